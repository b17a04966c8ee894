"""Whether and how a job is tried again after a worker has ended without a model: a pure decision on its history."""

from collections.abc import Sequence
from dataclasses import dataclass

from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import JobSpec, Outcome


@dataclass(frozen=True, slots=True)
class Again:
    """Try it again, after a pause, as `spec` says; on GPUs other than those to `avoid`, if there are any."""

    spec: JobSpec
    pause_s: float
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed, for this reason."""

    outcome: Outcome
    reason: str


def decide(spec: JobSpec, attempts: Sequence[Attempt]) -> Again | GiveUp:
    """What to do after the last of the attempts."""
    last = attempts[-1]
    if last.outcome is not Outcome.INFRASTRUCTURE or len(attempts) >= spec.max_attempts:
        return GiveUp(last.outcome, last.reason)
    return Again(spec, pause_s=5.0)
