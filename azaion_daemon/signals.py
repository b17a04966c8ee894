"""Signals from the first moment on: what comes before there is anyone to tell is kept, not lost, and ends nothing.

Unlike those of `loop.add_signal_handler` these handlers are there before the loop, and stay after it: a SIGHUP that comes while the last
lines are written would end the process. Nothing heavy is imported here.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

KEPT = (signal.SIGHUP, signal.SIGTERM)
_PIPE_BYTES = 4096


class Signals:
    """The signals of the process. To be used from its main thread."""

    def __init__(self) -> None:
        self._early: dict[int, None] = {}
        self._tell: Callable[[int], object] | None = None

    def keep(self) -> None:
        """From now on a SIGHUP or a SIGTERM ends nothing: it waits until there is someone to tell."""
        for number in KEPT:
            signal.signal(number, self._came)

    @contextmanager
    def told(self, actions: "Mapping[signal.Signals, Callable[[], None]]", loop: "AbstractEventLoop") -> Iterator[None]:
        """Have a loop call actions while the context lasts: for the signals to come, and for those that are kept."""

        def tell(number: int) -> None:
            loop.call_soon_threadsafe(actions[signal.Signals(number)])

        with _woken(loop):
            self._tell = tell
            for number in actions:
                signal.signal(number, self._came)
            for kept in [*self._early]:
                del self._early[kept]
                tell(kept)
            try:
                yield
            finally:
                self._tell = None

    def _came(self, number: int, _: FrameType | None) -> None:
        if self._tell is None:
            self._early[number] = None
        else:
            self._tell(number)


@contextmanager
def _woken(loop: "AbstractEventLoop") -> Iterator[None]:
    """Have every signal end the loop's wait: Python's handlers run between two of its steps, and it may be about to begin a long one."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def drain() -> None:
        with suppress(BlockingIOError):
            os.read(reading, _PIPE_BYTES)

    loop.add_reader(reading, drain)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)
