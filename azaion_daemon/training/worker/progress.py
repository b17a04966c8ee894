"""Progress, as the daemon and `status` read it."""

import math
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from azaion_daemon.training.jobs import JobDirectory, Phase, Progress

_INTERVAL_S = 1.0


class ProgressReport:
    """Replaces progress.json: at once when a phase begins, and about once a second inside it.

    It is what a training leaves its numbers in, many times a second; so nothing is computed unless it is `due`.
    """

    def __init__(self, job: JobDirectory, attempt: int) -> None:
        now = datetime.now(UTC)
        self._job = job
        self._now = Progress(phase=Phase.PREPARE, attempt=attempt, started=now, phase_started=now, updated=now)
        self._written = -math.inf

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._written >= _INTERVAL_S

    def enter(self, phase: Phase) -> None:
        """Another phase begins. What the training reached stays visible."""
        now = datetime.now(UTC)
        self.update(phase=phase, phase_started=now, batch=0, batches=0)

    def update(self, **changes: Any) -> None:
        """Write now; `changes` are fields of Progress."""
        self._now = self._now.model_copy(update={**changes, "updated": datetime.now(UTC)})
        self._job.write_progress(self._now)
        self._written = time.monotonic()


def say(line: str) -> None:
    """One line into worker.log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def finite(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers of any library as JSON can hold them."""
    numbers = {name: float(value) for name, value in values.items()}
    return {name: round(number, 5) if math.isfinite(number) else None for name, number in numbers.items()}
