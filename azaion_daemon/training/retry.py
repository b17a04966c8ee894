"""Whether and how a job is tried again after a worker has ended without a model: a pure decision on its history."""

from collections.abc import Sequence
from dataclasses import dataclass

from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import JobSpec
from azaion_daemon.training.outcomes import Outcome, Phase

_PAUSE_S = 5.0
_PAUSE_GROWTH = 4.0
_LONGEST_PAUSE_S = 600.0
_NO_FAULT_PAUSE_S = 60.0
_BOUND = 20  # times `max_attempts`: an end also for a job that comes a little further each time
_NO_FAULT_BOUND = 1000
_ORDER = tuple(Phase)
_TRAINED = frozenset({Phase.EXPORT, Phase.EVALUATE, Phase.REPORT})


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
    """What to do after the last of the attempts, which are all there were.

    A job is given up after `spec.max_attempts` that came no further than one before them: a training of weeks may well meet five power
    cuts. What does not count is waited for; but nothing goes on for ever.
    """
    last = attempts[-1]
    if last.outcome in {Outcome.DONE, Outcome.BAD_JOB, Outcome.BAD_DATA, Outcome.DIVERGED}:
        return GiveUp(last.outcome, last.reason)
    counting = [attempt for attempt in attempts if attempt.counts]
    in_vain = _in_vain(counting)
    if in_vain >= spec.max_attempts or len(counting) >= _BOUND * spec.max_attempts or len(attempts) - len(counting) >= _NO_FAULT_BOUND:
        often = "once" if len(attempts) == 1 else f"{len(attempts)} times"
        further = f", the last {in_vain} without coming any further" if in_vain > 1 else ""
        return GiveUp(last.outcome, f"Tried {often}{further}; in the end: {last.reason}")
    return _again(spec, last, in_vain)


def _again(spec: JobSpec, last: Attempt, in_vain: int) -> Again | GiveUp:
    if not last.counts:
        return Again(spec, _NO_FAULT_PAUSE_S)
    elsewhere = Again(spec, min(_LONGEST_PAUSE_S, _PAUSE_S * _PAUSE_GROWTH ** (in_vain - 1)), avoid=last.gpus)
    match last.outcome:
        case _ if last.phase in _TRAINED:  # neither the batch nor the loaders of the training make a difference any more
            return elsewhere
        case Outcome.OUT_OF_HOST_MEMORY if spec.workers > 0:
            return Again(spec.model_copy(update={"workers": spec.workers // 2}), _PAUSE_S)
        case Outcome.OUT_OF_MEMORY | Outcome.OUT_OF_HOST_MEMORY:
            return _smaller_batch(spec, last)
        case _:  # whatever it was, another GPU, if there is one, has not met it yet
            return elsewhere


def _smaller_batch(spec: JobSpec, last: Attempt) -> Again | GiveUp:
    """Half the batch, in equal parts for all GPUs."""
    share = max(1, len(spec.gpus))
    batch = spec.batch_size // 2 // share * share
    if batch < share:
        return GiveUp(last.outcome, f"The memory does not suffice even for one image at a time: lower training.imgsz. {last.reason}")
    return Again(spec.model_copy(update={"batch_size": batch}), _PAUSE_S)


def _in_vain(attempts: Sequence[Attempt]) -> int:
    """How many of the last attempts have failed at the same place: those since one came further than any before, and that one."""
    furthest, in_vain = (-1, -1), 0
    for attempt in attempts:
        reached = (-1 if attempt.phase is None else _ORDER.index(attempt.phase), attempt.epoch)
        if reached > furthest:
            furthest, in_vain = reached, 0
        in_vain += 1
    return in_vain
