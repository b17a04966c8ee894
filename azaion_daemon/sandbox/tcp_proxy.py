"""A TCP proxy in front of a broker's stream port, for faults that a real network has: silence, cuts, damage, slowness.

with Proxy(broker.port) as proxy:
    ...  # clients use proxy.port; whatever address the broker advertises, they come back to the proxy
    proxy.freeze()  # nothing passes, nothing is closed
    proxy.cut()  # every connection is reset
    proxy.damage_delivery(2, flip_last_byte)  # the second chunk from now on

Frames of the stream protocol: length (4 bytes), key (2), version (2), content. All numbers are big-endian.
"""

import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from azaion_daemon.sandbox.processes import LOOPBACK

_DELIVER, _SUBSCRIBE, _METADATA_ANSWER = 8, 7, 0x800F
_READ_BYTES = 1 << 16
_POLL_S = 0.1
_LINGER_RESET = struct.pack("ii", 1, 0)
_CRC_AT, _DATA_AT = 41, 57  # in a Deliver frame, the length included

Damage = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Subscribed:
    """What a client has asked the broker for. `offset` is None where the kind of start has none."""

    offset_type: int
    offset: int | None
    credit: int


class Proxy:
    """Listens on a free loopback port while the context lasts."""

    host = LOOPBACK

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.settimeout(_POLL_S)
        self.port: int = self._listener.getsockname()[1]
        self.subscribed: list[Subscribed] = []
        self.connections = 0
        """How many there have ever been."""
        self.deliveries = 0
        """How many chunks have come from the broker."""
        self.bytes_per_s: float | None = None
        """How fast the broker's bytes pass."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.refusing = False
        """Whether new connections are reset at once."""
        self.requests: Counter[int] = Counter()
        """How often a client has sent each kind of frame, by its key."""
        self._damages: dict[int, Damage] = {}
        self._cuts: set[int] = set()

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._closing.set()
        self.thaw()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def freeze(self) -> None:
        """Let nothing pass in either direction; connections stay, and new ones are accepted."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let everything pass again."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for one in self._all():
            _reset(one)

    def hang_up(self) -> None:
        """End every connection as a broker does that stops."""
        for one in self._all():
            with suppress(OSError):
                one.shutdown(socket.SHUT_WR)

    def _all(self) -> set[socket.socket]:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        return sockets

    def damage_delivery(self, number: int, damage: Damage) -> None:
        """Change the chunk that is the `number`th from now on."""
        self._damages[self.deliveries + number] = damage

    def cut_in_delivery(self, number: int) -> None:
        """Reset the connection when half of the chunk has passed that is the `number`th from now on."""
        self._cuts.add(self.deliveries + number)

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True, name="tcp-proxy")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                self.connections += 1
                if self.refusing:
                    _reset(client)
                    continue
                try:
                    broker = socket.create_connection((LOOPBACK, self._target_port), timeout=5)
                except OSError:
                    _reset(client)
                    continue
                for one in (client, broker):
                    one.settimeout(None)
                with self._lock:
                    self._sockets |= {client, broker}
                self._spawn(self._forward, client, broker, self._from_client)
                self._spawn(self._forward, broker, client, self._from_broker)

    def _forward(self, source: socket.socket, target: socket.socket, change: Callable[[bytes], tuple[bytes, bool]]) -> None:
        pending = bytearray()
        with suppress(OSError):
            while data := source.recv(_READ_BYTES):
                pending += data
                while len(pending) >= 4 and len(pending) >= (size := 4 + int.from_bytes(pending[:4], "big")):  # noqa: PLR2004 - the length
                    frame, cut = change(bytes(pending[:size]))
                    del pending[:size]
                    self._flowing.wait()
                    self._send(target, frame, self.bytes_per_s if change == self._from_broker else None)
                    if cut:
                        _reset(source)
                        _reset(target)
                        return
            self._flowing.wait()
            target.shutdown(socket.SHUT_WR)

    def _send(self, target: socket.socket, frame: bytes, bytes_per_s: float | None) -> None:
        part = len(frame) if bytes_per_s is None else max(1, int(bytes_per_s * _POLL_S))
        for start in range(0, len(frame), part):
            target.sendall(frame[start : start + part])
            if part < len(frame):
                time.sleep(_POLL_S)

    def _from_client(self, frame: bytes) -> tuple[bytes, bool]:
        self.requests[_key(frame)] += 1
        if _key(frame) == _SUBSCRIBE:
            self.subscribed.append(_subscribed(frame))
        return frame, False

    def _from_broker(self, frame: bytes) -> tuple[bytes, bool]:
        if _key(frame) == _METADATA_ANSWER:
            return self._lead_back(frame), False
        if _key(frame) != _DELIVER:
            return frame, False
        self.deliveries += 1
        if self.deliveries in self._cuts:
            return frame[: len(frame) // 2], True
        damage = self._damages.get(self.deliveries)
        return (frame if damage is None else damage(frame)), False

    def _lead_back(self, frame: bytes) -> bytes:
        """Put the proxy's port into the addresses that the broker advertises."""
        changed = bytearray(frame)
        at = 12
        (brokers,) = struct.unpack_from(">I", frame, at)
        at += 4
        for _ in range(brokers):
            (host_bytes,) = struct.unpack_from(">H", frame, at + 2)
            at += 4 + host_bytes
            struct.pack_into(">I", changed, at, self.port)
            at += 4
        return bytes(changed)


def flip_last_byte(frame: bytes) -> bytes:
    """A chunk that does not fit its checksum."""
    return frame[:-1] + bytes([frame[-1] ^ 0xFF])


def unknown_compression(frame: bytes) -> bytes:
    """A chunk whose first sub-entry says that it is compressed in a way that nobody knows; its checksum fits."""
    data = bytearray(frame[_DATA_AT:])
    data[0] = 0x80 | (7 << 4)
    return frame[:_CRC_AT] + struct.pack(">I", zlib.crc32(data)) + frame[_CRC_AT + 4 : _DATA_AT] + bytes(data)


def _key(frame: bytes) -> int:
    return int.from_bytes(frame[4:6], "big")


def _subscribed(frame: bytes) -> Subscribed:
    (name_bytes,) = struct.unpack_from(">H", frame, 13)
    at = 15 + name_bytes
    (offset_type,) = struct.unpack_from(">H", frame, at)
    at += 2
    offset: int | None = None
    if offset_type in {4, 5}:  # an offset, a timestamp
        (offset,) = struct.unpack_from(">Q", frame, at)
        at += 8
    (credit,) = struct.unpack_from(">H", frame, at)
    return Subscribed(offset_type, offset, credit)


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        one.shutdown(socket.SHUT_RDWR)
    one.close()
