"""What is learned by looking at the jobs again and again: how many have ended since the start, and when a training last got on."""

from collections.abc import Iterable, Mapping

from azaion_daemon.training.jobs import Progress
from azaion_daemon.training.states import IN_TRAINING, JobState

OUTCOMES = tuple(state.value for state in JobState if state not in IN_TRAINING | {JobState.RELEASING, JobState.RELEASED})
"""How a training can end. What its model is released as, or what an operator makes of it, comes later and is not counted here."""
_THROUGH = frozenset({JobState.RELEASING, JobState.RELEASED})


class Tally:
    """Keeps count from one look to the next. The first one only learns what was there before."""

    def __init__(self) -> None:
        self.ended: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self._known: set[str] | None = None
        self._moved: dict[str, tuple[tuple[object, ...], float]] = {}

    def look(self, states: Mapping[str, str], progress: Mapping[str, Progress | None], now: float) -> None:
        """Take in how all jobs stand, and how far those are that are under way."""
        ended = {id_: state for id_, state in states.items() if state not in IN_TRAINING}
        if self._known is not None:
            for id_ in ended.keys() - self._known:
                state = ended[id_]
                self.ended[JobState.ACCEPTED if state in _THROUGH else state] += 1
        self._known = set(ended)
        self._moved = dict(self._moves(progress, now))

    def got_on(self, job: str) -> float | None:
        """When the worker of a job was last seen to get on, in seconds since the epoch; None while it has said nothing."""
        moved = self._moved.get(job)
        return None if moved is None else moved[1]

    def _moves(self, progress: Mapping[str, Progress | None], now: float) -> Iterable[tuple[str, tuple[tuple[object, ...], float]]]:
        for job, at in progress.items():
            if at is None:
                continue
            place = (at.attempt, at.phase, at.step, at.epoch, at.batch, at.batches)
            before = self._moved.get(job)
            if before is None:
                yield job, (place, min(now, at.updated.timestamp()))  # maybe from before a restart
            else:
                yield job, before if before[0] == place else (place, now)
