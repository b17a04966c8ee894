"""Progress, as the daemon and `status` read it."""

import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

import psutil

from azaion_daemon.training.jobs import JobDirectory, Progress
from azaion_daemon.training.outcomes import Phase
from azaion_daemon.training.worker.failures import is_disk_full

_INTERVAL_S = 1.0
_MEMORY_S = 10.0
_MEMORY_SHARE = 500  # looking at the memory takes at most so small a part of the time


class ProgressReport:
    """Replaces progress.json: at once when a phase begins, and about once a second inside it.

    It is what a training leaves its numbers in, many times a second; so nothing is computed unless it is `due`. A training on several GPUs
    reports from a process of its own: each phase goes on from what stands in the file.
    """

    def __init__(self, job: JobDirectory, attempt: int) -> None:
        now = datetime.now(UTC)
        self._job = job
        self._now = Progress(phase=Phase.PREPARE, attempt=attempt, started=now, phase_started=now, updated=now)
        self._written = -math.inf
        self._memory = _Memory(job)

    @classmethod
    def going_on(cls, job: JobDirectory) -> Self:
        """For a process that a worker has started in the middle of a phase."""
        report, written = cls(job, 1), job.read_progress()
        if written is not None:
            report._now = written
        return report

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._written >= _INTERVAL_S

    def enter(self, phase: Phase) -> None:
        """Another phase begins. What the training reached stays visible."""
        written = self._job.read_progress()
        if written is not None and written.attempt == self._now.attempt:
            self._now = written
        now = datetime.now(UTC)
        self.update(phase=phase, phase_started=now, step="", batch=0, batches=0, batch_s=None)

    def update(self, **changes: Any) -> None:
        """Write now; `changes` are fields of Progress. A full disk is found out by what matters: a checkpoint, a result."""
        self._now = self._now.model_copy(
            update={"memory_bytes": self._memory.in_use() or self._now.memory_bytes, **changes, "updated": datetime.now(UTC)}
        )
        self._written = time.monotonic()
        try:
            self._job.write_progress(self._now)
        except OSError as error:
            if not is_disk_full(error):
                raise


class _Memory:
    """What the worker's processes use. Reading it makes the kernel walk their page tables: so seldom that it costs nothing."""

    def __init__(self, job: JobDirectory) -> None:
        self._job = job
        self._again = -math.inf
        self._bytes = 0

    def in_use(self) -> int:
        """In bytes; what several share is divided among them (PSS)."""
        began = time.monotonic()
        if began < self._again:
            return self._bytes
        total = 0
        with suppress(psutil.Error):
            identity = self._job.read_identity()
            worker = psutil.Process(None if identity is None else identity.pid)
            for process in (worker, *worker.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_full_info().pss
        ended = time.monotonic()
        self._bytes, self._again = total, ended + max(_MEMORY_S, _MEMORY_SHARE * (ended - began))
        return total


def say(line: str) -> None:
    """One line into worker.log, where there is space for it."""
    with suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def finite(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers of any library as JSON can hold them."""
    numbers = {name: float(value) for name, value in values.items()}
    return {name: round(number, 5) if math.isfinite(number) else None for name, number in numbers.items()}
