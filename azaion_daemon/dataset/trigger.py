"""When a training job is due: a pure decision on persisted facts, so it is the same after any restart.

Level-triggered: what is due stays due until a job has taken it up. What holds first decides, in this order:

1. jobs are under way: what is due meanwhile follows them, but for what somebody asked for, where there is room beside them;
2. somebody asked for a training: nothing else is needed. Requests with the same wishes are answered by one job, the oldest wish first;
3. the last job failed. For the machine: it is tried again after a while. For its data or settings: not before one of them changes;
4. the last job ended less than `cooldown_hours` ago;
5. a time of `schedule` has come and something has changed. One that was missed while no daemon ran is made up for once, however many
   there were, as soon as what came meanwhile is taken in;
6. `new_annotations` have changed, `min_total` are validated, and nothing has changed for `quiet_minutes` or the first change waits for
   `max_wait_hours`. A daemon that has just started takes in what came meanwhile, so quiet is counted from its start at the earliest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from azaion_daemon.cron import next_time, zone
from azaion_daemon.sections import TriggerSettings
from azaion_daemon.store.due import DueRecord, Failure, TrainingRequest
from azaion_daemon.store.records import Blame

_FIRST_BACKOFF_S = 300.0
_LONGEST_BACKOFF_S = 24 * 3600.0
_WHY_LENGTH = 200


@dataclass(frozen=True, slots=True)
class TriggerFacts:
    """What a decision follows from. Times are in seconds since the epoch."""

    ledger: DueRecord
    total: int
    """Validated annotations."""
    settings: str
    """The digest of the settings that a job would be formed with now."""
    started: float
    """Since when this daemon looks: a scheduled time before that was missed, and whether it was quiet before that is not known yet."""
    under_way: tuple[str, ...] = ()
    """The jobs that are under way."""
    room: bool = False
    """Whether what somebody asks for may run beside them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to train now, and the sentence that says why."""

    due: bool
    why: str
    next_look: float | None = None
    """When time alone may change the decision; None when it cannot."""
    settled: float | None = None
    """Until when the schedule needs nothing: to be recorded."""
    requests: tuple[TrainingRequest, ...] = ()
    """What the training would answer, all of one wish."""


def schedule_key(settings: TriggerSettings) -> str:
    """What the ledger remembers a schedule by: another one begins anew."""
    return f"{settings.schedule} {settings.schedule_timezone}" if settings.schedule else ""


def next_schedule(settings: TriggerSettings, now: float) -> float | None:
    """The next scheduled time that is still to come."""
    return next_time(settings.schedule, settings.schedule_timezone, now) if settings.schedule else None


def decide(facts: TriggerFacts, settings: TriggerSettings, now: float) -> Decision:
    """Whether a training job is due at `now`, in seconds since the epoch."""
    return _Look(facts, settings, now).decide()


def same_wish(requests: Sequence[TrainingRequest]) -> tuple[TrainingRequest, ...]:
    """Those of the requests, the oldest first, that one job answers: they want the same as the oldest."""
    return tuple(one for one in requests if (one.trial, one.epochs) == (requests[0].trial, requests[0].epochs))


class _Look:
    """One decision in the making."""

    def __init__(self, facts: TriggerFacts, settings: TriggerSettings, now: float) -> None:
        self._facts = facts
        self._settings = settings
        self._now = now
        self._is = facts.ledger
        self._quiet_s = settings.quiet_minutes * 60
        self._changes = (
            f"{_annotations(self._is.changed)} new, changed or gone since the last training, {facts.total} "
            f"{'is' if facts.total == 1 else 'are'} validated"
        )
        self._missed, self._on_time = self._scheduled()
        self._upcoming = next_schedule(settings, now)

    def decide(self) -> Decision:
        jobs, requests = self._facts.under_way, same_wish(self._is.requests)
        if requests and (self._facts.room or not jobs):
            beside = f", beside {_jobs(jobs)}" if jobs else ""
            reasons = "; ".join(request.reason for request in requests)
            return self._train(f"an operator asked for {_wish(requests[0])}{beside} ({reasons}); {self._changes}", requests)
        if jobs:
            are = "is" if len(jobs) == 1 else "are"
            follows = "; what was asked for follows" if requests else ""
            return self._wait(f"{_jobs(jobs)} {are} under way{follows}; {self._changes}")
        failure = self._is.failure
        corrected = failure is not None and failure.settings != self._facts.settings
        if failure is not None and (decision := self._after(failure, corrected=corrected)) is not None:
            return decision
        ended, pause_s = self._is.last_ended, self._settings.cooldown_hours * 3600
        if not corrected and ended is not None and (cool := self._later(ended, pause_s)) is not None:
            return self._wait(f"the last job ended {self._at(ended)}, and {_span(pause_s)} must lie between two; {self._changes}", cool)
        return self._by_schedule() or self._by_changes()

    def _after(self, failure: Failure, *, corrected: bool) -> Decision | None:
        backoff_s = min(_FIRST_BACKOFF_S * 2 ** min(failure.in_a_row - 1, 20), _LONGEST_BACKOFF_S)
        again = self._later(self._is.last_ended, max(backoff_s, self._settings.cooldown_hours * 3600))
        failed = f"job {failure.job} failed ({_shortened(failure.why)})"
        if failure.blame == Blame.INFRASTRUCTURE:
            if again is None:
                return self._train(f"{failed} for a cause that may have passed; {self._changes}")
            return self._wait(f"{failed}; it is tried again {self._at(again)}; {self._changes}", again)
        if corrected:
            return None
        if not failure.changed_since:
            return self._wait(f"{failed}, and neither annotations nor settings have changed since; {self._changes}", settle=True)
        if again is None:
            return None
        changed = f"{_annotations(failure.changed_since)} new, changed or gone since"
        return self._wait(f"{failed}, and is not tried again before {self._at(again)}; {changed}", again)

    def _scheduled(self) -> tuple[bool, bool]:
        """Whether a scheduled time has passed that nothing was done about: while no daemon ran, and while this one did."""
        settings, settled = self._settings, self._is.schedule_settled
        if settings.schedule is None or settled is None:
            return False, False
        passed = [
            next_time(settings.schedule, settings.schedule_timezone, min(since, self._now)) <= self._now
            for since in (settled, max(settled, self._facts.started))
        ]
        return passed[0], passed[1]

    def _by_schedule(self) -> Decision | None:
        if not self._missed or not self._is.changed:
            return None
        schedule = f"the schedule {self._settings.schedule} ({self._settings.schedule_timezone})"
        if self._on_time:
            return self._train(f"{schedule} says so; {self._changes}")
        if (calm := self._calm_at()) is None:
            return self._train(f"{schedule} was missed while the daemon was not running; {self._changes}")
        return self._wait(f"{schedule} was missed while the daemon was not running, and {self._restless()}; {self._changes}", calm)

    def _by_changes(self) -> Decision:
        needed, total = self._settings.new_annotations, self._facts.total
        settle = self._on_time  # and nothing has changed, else it would have been due
        if needed is None:
            return self._wait(f"neither the schedule nor an operator says otherwise; {self._changes}", settle=settle)
        if self._is.changed < needed:
            return self._wait(f"{self._changes}; {needed} changes are needed", settle=settle)
        if total < self._settings.min_total:
            return self._wait(f"{self._changes}; {self._settings.min_total} must be validated at least", settle=settle)
        if (calm := self._calm_at()) is not None:
            return self._wait(f"{self._restless()}; {self._changes}, {needed} changes are needed", calm)
        last = "" if self._is.last_change is None else f"; the last change came {_span(max(self._now - self._is.last_change, 0.0))} ago"
        return self._train(f"{self._changes}, {needed} changes are needed{last}")

    def _calm_at(self) -> float | None:
        """When what has changed may be trained on; None when that is now."""
        first, last = self._is.first_change, self._is.last_change
        if first is None or last is None:
            return None
        quiet = self._later(max(last, self._facts.started), self._quiet_s)
        waited, looked = self._later(first, self._settings.max_wait_hours * 3600), self._looked_long_at()
        longest = max((time for time in (waited, looked) if time is not None), default=None)
        return None if quiet is None or longest is None else min(quiet, longest)

    def _looked_long_at(self) -> float | None:
        """When the daemon has looked for long enough to have noticed what came while it did not run; None when it has."""
        return self._later(self._facts.started, self._quiet_s)

    def _restless(self) -> str:
        first, last, started = self._is.first_change, self._is.last_change, self._facts.started
        assert first is not None and last is not None  # noqa: PT018 - else nothing is waited for
        quiet, longest = _span(self._quiet_s), _span(self._settings.max_wait_hours * 3600)
        waited = self._later(first, self._settings.max_wait_hours * 3600) is None
        if self._looked_long_at() is not None and (last < started or waited):
            return f"the daemon started {self._at(started)}: what came meanwhile is taken in, and {quiet} of quiet are waited for"
        return (
            f"the last change came {self._at(last)}: {quiet} of quiet are waited for, or {longest} since the first, which came "
            f"{self._at(first)}"
        )

    def _later(self, since: float | None, duration_s: float) -> float | None:
        """When a duration will have passed; None when it has. Since an unknown time it has."""
        return None if since is None or (end := min(since, self._now) + duration_s) <= self._now else end

    def _at(self, time: float) -> str:
        return f"{datetime.fromtimestamp(time, UTC).astimezone(zone(self._settings.schedule_timezone)):%Y-%m-%d %H:%M %Z}"

    def _train(self, why: str, requests: tuple[TrainingRequest, ...] = ()) -> Decision:
        return Decision(due=True, why=f"train now because {why}", requests=requests)

    def _wait(self, why: str, until: float | None = None, *, settle: bool = False) -> Decision:
        looks = [time for time in (until, self._upcoming) if time is not None]
        settled = self._now if settle and self._on_time else None
        return Decision(due=False, why=f"wait because {why}", next_look=min(looks, default=None), settled=settled)


def _jobs(ids: Sequence[str]) -> str:
    return f"job {ids[0]}" if len(ids) == 1 else f"jobs {', '.join(ids)}"


def _wish(request: TrainingRequest) -> str:
    if request.trial:
        return "a trial"
    return "it" if request.epochs is None else f"one of {request.epochs} epoch{'' if request.epochs == 1 else 's'}"


def _annotations(count: int) -> str:
    return f"{count} annotation is" if count == 1 else f"{count} annotations are"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WHY_LENGTH else f"{line[:_WHY_LENGTH]}…"


def _span(seconds: float) -> str:
    """A duration for people, in its largest fitting unit."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (seconds >= size and unit != "days"):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
