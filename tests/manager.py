"""Stands in for systemd at the other end of NOTIFY_SOCKET: a real socket, whose datagrams are kept."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

Word = dict[str, str]


class Manager:
    """Listens at a path, or at an abstract address (`@name`), while its context lasts."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[tuple[float, Word]] = []
        """When (monotonic seconds), and what."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()
        if not self.address.startswith("@"):
            Path(self.address).unlink()

    @property
    def words(self) -> list[Word]:
        """What was said, in its order."""
        return [word for _, word in self.heard]

    def wait_for(self, matches: Callable[[Word], bool], *, after: int = 0, limit_s: float = 60.0) -> int:
        """The place among the words of the first that matches, from place `after` on."""
        deadline = time.monotonic() + limit_s
        while True:
            words = self.words
            found = next((place for place in range(after, len(words)) if matches(words[place])), None)
            if found is not None:
                return found
            assert time.monotonic() < deadline, f"waited {limit_s:.0f} s in vain; it said: {words}"
            time.sleep(0.02)

    def _listen(self) -> None:
        while datagram := self._socket.recv(1 << 16):
            pairs = (line.partition("=") for line in datagram.decode().split("\n"))
            self.heard.append((time.monotonic(), {name: value for name, _, value in pairs}))
