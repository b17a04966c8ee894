"""A job's worker.log for operators: its last lines, and those that come, made fit for a terminal.

The file grows over all starts of a worker. It need not be there yet, may be gone with its directory, and may be replaced.
"""

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from azaion_daemon.errors import OperatorError
from azaion_daemon.logs.tidying import printable
from azaion_daemon.ops.reading import reading, unreadable
from azaion_daemon.ops.trainings import find
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Job
from azaion_daemon.training.states import IN_TRAINING

_POLL_S = 0.2
_LOOK_S = 1.0
_BLOCK_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 16
"""A line that is longer is shown in pieces: a progress bar may go on for days without an end of line."""
_STYLING = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
"""Sequences that style a terminal or move its cursor (ECMA-48: CSI, OSC, and those of two bytes)."""


def job_to_read(layout: Layout, wanted: str | None) -> Job:
    """The job whose log is meant: by default the newest of those under way, else the newest.

    Raises:
        OperatorError: There is none such.
    """
    with reading(layout) as ledger:
        jobs = ledger.jobs()
    if wanted is not None:
        return find(jobs, wanted)
    if not jobs:
        raise OperatorError("there is no job yet. See: azaion-daemon status")
    return next((job for job in reversed(jobs) if job.state in IN_TRAINING), jobs[-1])


def in_training(layout: Layout, job: str) -> bool:
    """Whether a worker of the job may still write.

    Raises:
        OperatorError: The ledger cannot be read.
    """
    with reading(layout) as ledger:
        return any(one.id == job and one.state in IN_TRAINING for one in ledger.jobs())


def log_lines(path: Path, *, last: int, goes_on: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """The last lines of a log, and then those that come, until it does not go on. Blocks.

    Raises:
        OperatorError: It cannot be read.
    """
    try:
        yield from _Reader(path, last).lines(_seldom(goes_on))
    except OSError as error:
        raise unreadable(error) from error


def _seldom(goes_on: Callable[[], bool]) -> Callable[[], bool]:
    """The same question, asked once a second at most."""
    looked, answer = -_LOOK_S, True

    def asked() -> bool:
        nonlocal looked, answer
        if (now := time.monotonic()) >= looked + _LOOK_S:
            looked, answer = now, goes_on()
        return answer

    return asked


class _Reader:
    """One reading of a log, by whatever file has its name."""

    def __init__(self, path: Path, last: int) -> None:
        self._path = path
        self._last: int | None = last
        self._file: io.FileIO | None = None
        self._rest = b""

    def lines(self, goes_on: Callable[[], bool]) -> Iterator[str]:
        try:
            while True:
                going = goes_on()  # asked before it is read: what was written before the end is shown
                yield from self._new_lines()
                self._last = None  # whatever file comes from now on is shown from its beginning
                if not going:
                    break
                time.sleep(_POLL_S)
            if self._rest:
                yield _shown(self._rest)
        finally:
            self._close()

    def _new_lines(self) -> Iterator[str]:
        yield from self._read()
        if self._replaced():
            yield from self._read()  # what came between the last look and its replacement
            if self._rest:
                yield _shown(self._rest)
                self._rest = b""
            self._close()
            self._open()
            yield from self._read()

    def _replaced(self) -> bool:
        """Whether the name is that of another file, or of one that has been cut short. One that is gone may come again."""
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        read = os.fstat(self._file.fileno())
        return (named.st_dev, named.st_ino) != (read.st_dev, read.st_ino) or named.st_size < self._file.tell()

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            self._file = io.FileIO(self._path)
            if self._last is not None:
                self._file.seek(_start_of_last(self._file, self._last))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> Iterator[str]:
        while self._file is not None and (block := self._file.read(_BLOCK_BYTES)):
            *whole, self._rest = (self._rest + block).split(b"\n")
            for line in whole:
                yield _shown(line)
            if len(self._rest) > _LONGEST_LINE_BYTES:
                yield _shown(self._rest)
                self._rest = b""


def _start_of_last(file: io.FileIO, lines: int) -> int:
    """Where the last so many lines begin."""
    end = position = file.seek(0, os.SEEK_END)
    missing = lines + 1
    while position > 0:
        size = min(_BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        if position + size == end and not block.endswith(b"\n"):
            missing -= 1  # the last line has no end yet
        found = len(block)
        while missing and (found := block.rfind(b"\n", 0, found)) >= 0:
            missing -= 1
            if not missing:
                return position + found + 1
    return 0


def _shown(line: bytes) -> str:
    """A line as a terminal may have it: of what was written over itself, as progress bars are, the last."""
    last = line.rstrip(b"\r").rpartition(b"\r")[2]
    return printable(_STYLING.sub(b"", last).decode(errors="replace"))
