"""What systemd is told of the daemon, by its protocol sd_notify(3): datagrams of `NAME=value` lines to the socket of NOTIFY_SOCKET.

Without that socket all of it does nothing. Nothing is ever waited for, and no failure reaches the daemon: what could not be sent goes out
with the next word, but for pings, which are worth something at their time only. (The packages for this are unmaintained, or are built
against libsystemd's headers; the protocol is three lines.)
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

_LONGEST_STATUS = 400
_OWED = frozenset({"READY", "STATUS", "STOPPING"})
"""What is sent later when it could not be sent at its time."""
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Speaks to the manager of the service, if there is one."""

    def __init__(self, address: str | None = None, *, watchdog_s: float | None = None) -> None:
        """`address` is a path, or `@` and the name of an abstract socket; `watchdog_s` is how often a ping is demanded at least."""
        self.watchdog_s = watchdog_s
        self._address = _socket_address(address or "")
        self._owed: dict[str, str] = {}
        self._status = ""
        self._stopping = False

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> "Notifier":
        """By the variables that systemd sets. They are removed: no process that is started from here may speak for the daemon."""
        said = {name: environment.pop(name, "") for name in _VARIABLES}
        return cls(said["NOTIFY_SOCKET"], watchdog_s=_watchdog_s(said))

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows. Said again, nothing is sent."""
        if (sentence := _one_line(sentence)) != self._status:
            self._send(STATUS=sentence)

    def ready(self, sentence: str) -> None:
        """The start is done."""
        self._send(READY="1", STATUS=_one_line(sentence))

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The configuration is read again while the context lasts, which a stop may cut short: a daemon that stops is not ready again."""
        self._send(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))
        try:
            yield
        finally:
            if not self._stopping:
                self._send(READY="1")

    def stopping(self, sentence: str) -> None:
        """The stop has begun."""
        self._stopping = True
        self._send(STOPPING="1", STATUS=_one_line(sentence))

    def extend(self, seconds: float) -> None:
        """The start takes so much longer from now on, at most."""
        self._send(EXTEND_TIMEOUT_USEC=str(round(seconds * 1e6)))

    def ping(self) -> None:
        """All is well. Without a watchdog only what is owed is sent."""
        if self.watchdog_s is not None:
            self._send(WATCHDOG="1")
        elif self._owed:
            self._send()

    def _send(self, **words: str) -> None:
        if self._address is None:
            return
        said = {**self._owed, **words}
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as speaking:
                speaking.sendto("\n".join(f"{name}={value}" for name, value in said.items()).encode(), self._address)
        except OSError:  # nobody listens, or nobody keeps up
            self._owed = {name: value for name, value in said.items() if name in _OWED}
            return
        self._owed.clear()
        self._status = said.get("STATUS", self._status)


def _socket_address(address: str) -> bytes | None:
    if address.startswith("@") and len(address) > 1:
        return b"\0" + os.fsencode(address[1:])
    return os.fsencode(address) if address.startswith("/") else None


def _watchdog_s(said: Mapping[str, str]) -> float | None:
    """None where no pings are demanded, or not of this process."""
    if said["WATCHDOG_PID"] not in {"", str(os.getpid())}:
        return None
    usec = said["WATCHDOG_USEC"]
    return int(usec) / 1e6 if usec.isascii() and usec.isdigit() and int(usec) else None


def _one_line(sentence: str) -> str:
    """A line break would begin another word of the protocol."""
    line = " ".join("".join(character if character.isprintable() else " " for character in sentence).split())
    return line if len(line) <= _LONGEST_STATUS else line[: _LONGEST_STATUS - 1] + "…"
