"""The thread that writes log lines, behind a bounded queue: a reader that stalls, or a disk that is full, costs lines and nothing else."""

import os
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

SERVICE = "azaion-daemon"
Fields = Mapping[str, Any]

_QUEUE_LINES = 10_000
_FLUSH_S = 3.0
_WAKE_S = 0.1
_RETRY_S = 1.0


def line(level: str, event: str, at: float, /, **fields: object) -> dict[str, Any]:
    """A line's fields in their order; `at` is seconds since the epoch."""
    timestamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"timestamp": timestamp, "level": level, "service": SERVICE, "event": event, **fields}


class LogOutput:
    """Takes lines from any thread, also from within a destructor, and writes them on its own.

    Lines for which there is no room, or which cannot be written, are counted, and told as soon as something can be written again.
    """

    def __init__(self, stream: TextIO, render: Callable[[Fields], str]) -> None:
        self._stream = stream
        self._render = render
        self._lines: queue.SimpleQueue[Fields | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._lost = 0
        self._told = 0
        self._why = ""
        self._retry_at = 0.0
        self._torn = False
        self._ending = threading.Event()
        self._end_by = 0.0
        self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)
        with suppress(OSError, ValueError):
            stream.flush()
        try:  # past the buffers, which would keep what a full disk did not take, and write it out of turn
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError):
            self._fd = None

    @property
    def lost(self) -> int:
        """How many lines were lost since the process began."""
        return self._lost

    def put(self, fields: Fields) -> None:
        """Have a line written, soon. Never blocks."""
        if self._lines.qsize() >= _QUEUE_LINES:
            self._lose("they came faster than they were read")
        else:
            self._lines.put(fields)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, but do not wait for ever for a reader that has stalled."""
        self._end_by = time.monotonic() + _FLUSH_S
        self._ending.set()
        self._lines.put(None)
        self._thread.join(_FLUSH_S)

    def _work(self) -> None:
        while True:
            try:
                fields = self._lines.get(timeout=_WAKE_S)
            except queue.Empty:
                self._tell()
                continue
            if fields is None:
                self._tell()
                return
            if not self._write(fields):
                self._retry_at = time.monotonic() + _RETRY_S
            elif self._lines.qsize() < _QUEUE_LINES // 2:
                self._tell()

    def _tell(self) -> None:
        with self._lock:
            lost, count, why = self._lost, self._lost - self._told, self._why
        if count and (time.monotonic() >= self._retry_at or self._ending.is_set()):
            try:
                self._send(self._render(line("warning", "log.lost", time.time(), count=count, total=lost, why=why)))
            except (OSError, ValueError):
                self._retry_at = time.monotonic() + _RETRY_S
            else:
                self._told = lost

    def _write(self, fields: Fields) -> bool:
        try:
            self._send(self._render(fields))
        except Exception as error:  # noqa: BLE001 - nobody reads, a full disk, a closed stream; whatever it is, the next line may do
            self._lose(getattr(error, "strerror", None) or str(error) or type(error).__name__)
            return False
        return True

    def _lose(self, why: str) -> None:
        with self._lock:
            self._lost += 1
            self._why = why

    def _send(self, text: str) -> None:
        if self._fd is None or self._stream.closed:
            self._stream.write(f"{text}\n")
            self._stream.flush()
            return
        whole = f"{text}\n".encode(errors="backslashreplace")
        left = memoryview(b"\n" + whole if self._torn else whole)  # what was cut short must not have another line at its end
        while left:
            try:
                written = os.write(self._fd, left)
            except BlockingIOError:  # another process has made the terminal or pipe that we share non-blocking
                if self._ending.is_set() and time.monotonic() > self._end_by:
                    raise
                select.select([], [self._fd], [], _WAKE_S)
                continue
            left = left[written:]
            self._torn = bool(left)
