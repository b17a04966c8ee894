"""What the end of a worker is in a job's history, also of one whose end nobody saw."""

import os
from datetime import UTC, datetime

from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import Identity, JobDirectory, JobResult, JobSpec, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.processes import boot_id, open_alive
from azaion_daemon.training.stalls import where


def is_alive(identity: Identity) -> bool:
    """Whether that process lives."""
    if (descriptor := open_alive(identity)) is None:
        return False
    os.close(descriptor)
    return True


def attempt_of(job: JobDirectory, spec: JobSpec, result: JobResult) -> Attempt:
    """The start of a worker that ended with this result. A good end is no failure of the job, so it does not count. Blocking."""
    done = result.outcome is Outcome.DONE
    return _attempt(job, spec, result.attempts, result.outcome, result.reason, result.finished, counts=result.counts and not done)


def unseen_attempt(job: JobDirectory, spec: JobSpec) -> Attempt | None:
    """A start of a worker that has ended without a result, and whose end nobody has recorded; None when there is none. Blocking.

    That the machine went down is not the job's fault.
    """
    identity = job.read_identity()
    if identity is None or job.read_result() is not None or is_alive(identity):
        return None
    if identity.attempt in {attempt.number for attempt in job.read_attempts()}:
        return None
    went_down = identity.boot_id != boot_id()
    reason = "The machine went down" if went_down else "The worker was killed while no daemon watched"
    progress = job.read_progress()
    reached = where(progress if progress is not None and progress.attempt == identity.attempt else None)
    return _attempt(
        job, spec, identity.attempt, Outcome.INFRASTRUCTURE, f"{reason}, {reached}.", datetime.now(UTC), counts=not went_down
    )  # fmt: skip


def _attempt(job: JobDirectory, spec: JobSpec, number: int, outcome: Outcome, reason: str, ended: datetime, *, counts: bool) -> Attempt:
    progress = job.read_progress()
    phase = progress.phase if progress is not None and progress.attempt == number else None
    return Attempt(
        number=number,
        outcome=outcome,
        reason=reason,
        phase=phase,
        epoch=_kept_epochs(job, progress),
        batch_size=spec.batch_size,
        workers=spec.workers,
        gpus=spec.gpus,
        ended=ended,
        counts=counts,
    )  # fmt: skip


def _kept_epochs(job: JobDirectory, progress: Progress | None) -> int:
    """How many epochs another start would not have to do again."""
    try:
        pairs = [int(path.name) + 1 for path in job.checkpoints.iterdir() if path.name.isdecimal()]
    except FileNotFoundError:
        pairs = []
    trained = progress.epoch if progress is not None and job.marker(Phase.TRAIN) is not None else 0
    return max([trained, *pairs])
