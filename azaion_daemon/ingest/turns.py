"""Taking turns at the interpreter."""

import threading
from types import TracebackType


class Turns:
    """A lock that whoever waits for it gets next: who holds it in many short pieces does not keep it.

    Two threads that both work in thousands of small steps, each a call that lets go of the interpreter, wait for each other at every one of
    them: planning a batch beside placing another one took twice the time of one after the other.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._inside = threading.Lock()

    def __enter__(self) -> None:
        with self._door:
            self._inside.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inside.release()
