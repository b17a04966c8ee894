"""What may go: a pure decision on what there is and on what still refers to it.

Something goes only when nothing refers to it, and it is none of the newest, and it is old: whatever one of count and age keeps, stays.
No clock can remove everything: the newest are told by the stream's position before the time, and age is measured against the newest thing
there is, never against a clock that may have jumped ahead; one that has jumped back makes everything young.

The split loses nothing by it while there is a ledger, for that has the side of every media. `index rebuild` has only the datasets that are
still there, so it restores those media that a model was trained on, and their sides; what it does not know the media of goes to train.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePath
from typing import TypeVar

from azaion_daemon.sections import RetentionSettings
from azaion_daemon.store.records import Job, Model, Release
from azaion_daemon.training.states import JobState

_DAY_S = 86400.0
_LAST_S = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_ENDED = frozenset({JobState.RELEASING, JobState.RELEASED, JobState.REJECTED, JobState.TRIED, JobState.FAILED, JobState.CANCELLED})
"""Of these nothing happens by itself any more: what is releasing lives on as its release, or was superseded. Any other state, also one that
this release does not know, keeps all that it refers to."""
_WITHOUT_MODEL = frozenset({JobState.FAILED, JobState.CANCELLED})

T = TypeVar("T")
Recency = tuple[int, float, str]


class Fate(StrEnum):
    """What becomes of something."""

    STAYS = "stays"
    SHRINKS = "shrinks"
    """A job that only its model or nothing refers to any more: what it worked with goes, the record of it stays."""
    GOES = "goes"


@dataclass(frozen=True, slots=True)
class DatasetOnDisk:
    """A complete dataset, as its dataset.json says. `created` is in seconds since the epoch."""

    name: str
    id: str
    created: float
    position: int | None

    @property
    def recency(self) -> Recency:
        """What the newest is told by."""
        return _recency(self.name, self.position, self.created)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that lives, whatever the ledger says of its job. `dataset` is None when its job cannot be read."""

    job: str
    dataset: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is, and what may refer to it."""

    datasets: Sequence[DatasetOnDisk]
    job_directories: Collection[str]
    jobs: Sequence[Job]
    models: Sequence[Model]
    releases: Sequence[Release]
    workers: Sequence[Worker]
    model_directories: Collection[str] = ()
    """What there is in {root}/models. A model whose directory is gone is history, unless it is the current one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one thing."""

    name: str
    fate: Fate
    referred_by: tuple[str, ...]
    newer_needed: int
    """How many newer ones must come before the count does not keep it any more."""
    kept_until: float | None
    """The newest one must be from after this, in seconds since the epoch, before the age does not keep it; None when it does not now."""

    @property
    def why(self) -> str:
        """Why it stays or goes, in a few words."""
        if self.referred_by:
            return "; ".join(self.referred_by)
        waits = [f"{self.newer_needed} newer ones are there"] if self.newer_needed else []
        waits += [f"one is from after {_day(self.kept_until)}"] if self.kept_until is not None else []
        return f"until {' and '.join(waits)}" if waits else "nothing refers to it, and it is old"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of everything, the newest first."""

    datasets: tuple[Verdict, ...]
    jobs: tuple[Verdict, ...]
    models: tuple[Verdict, ...]
    """By the name of the directory that a model is kept in."""


def decide(facts: Facts, settings: RetentionSettings, *, now: float) -> Decision:
    """Decide about every dataset, job directory and kept model. Directories that the ledger does not know are none of ours."""
    models = _judge(
        {directory_of(model): model for model in facts.models if directory_of(model) in facts.model_directories}.values(),
        lambda model: (directory_of(model), _positions(facts).get(model.job or ""), model.current_since or model.created),
        _collected(_references_to_models(facts)),
        keep=settings.models_keep,
        keep_days=settings.models_keep_days,
        now=now,
    )
    kept = {verdict.name for verdict in models if verdict.fate is Fate.STAYS}
    waiting = {model.sha256 for _, model in _waiting(facts)}
    still = [model for model in facts.models if model.current or directory_of(model) in kept or model.sha256 in waiting]
    facts = replace(facts, models=still)
    in_work = _collected(_references_to_jobs(facts))
    from_models = ((model.job, reference) for model, reference in _models(facts) if model.job is not None)
    jobs = _judge(
        [job for job in facts.jobs if job.id in facts.job_directories],
        lambda job: (job.id, job.position, job.changed),
        _collected([*_references_to_jobs(facts), *from_models]),
        keep=settings.jobs_keep,
        keep_days=settings.jobs_keep_days,
        now=now,
        shrinks=lambda job: job.id not in in_work,
    )
    there = {verdict.name for verdict in jobs if verdict.fate is Fate.STAYS}
    spent = _spent(facts)
    jobs = tuple(replace(one, fate=Fate.SHRINKS) if one.fate is Fate.STAYS and one.name in spent - in_work.keys() else one for one in jobs)
    datasets = _judge(
        facts.datasets,
        lambda dataset: (dataset.name, dataset.position, dataset.created),
        _collected(_references_to_datasets(facts, there)),
        keep=settings.datasets_keep,
        keep_days=settings.datasets_keep_days,
        now=now,
    )
    return Decision(datasets, jobs, models)


def _spent(facts: Facts) -> frozenset[str]:
    """Jobs that ended without a model. The checkpoints of the one that ended last can still be looked at; those of others are of no use."""
    ended = [job for job in facts.jobs if job.state in _ENDED]
    last = max(ended, key=lambda job: (job.ended or job.changed, job.id), default=None)
    alive = {worker.job for worker in facts.workers}
    return frozenset(job.id for job in ended if job.state in _WITHOUT_MODEL and job is not last and job.id not in alive)


def directory_of(model: Model) -> str:
    """The name of the directory that a model is kept in."""
    return PurePath(model.path).parent.name


def predecessor(models: Iterable[Model]) -> Model | None:
    """The model that was the current one before: what an operator would go back to."""
    before = [model for model in models if not model.current]
    return max(before, key=lambda model: (model.current_since is not None, model.current_since or model.created), default=None)


def _judge(
    things: Iterable[T],
    identify: Callable[[T], tuple[str, int | None, float]],
    references: Mapping[str, Sequence[str]],
    *,
    keep: int,
    keep_days: float,
    now: float,
    shrinks: Callable[[T], bool] = lambda _: False,
) -> tuple[Verdict, ...]:
    newest_first = sorted(things, key=lambda thing: _recency(*identify(thing)), reverse=True)
    newest = min(now, max((identify(thing)[2] for thing in newest_first), default=now))
    verdicts = []
    for rank, thing in enumerate(newest_first):
        name, _, time = identify(thing)
        kept_until = time + keep_days * _DAY_S
        referred_by = tuple(references.get(name, ()))
        aged = newest > kept_until
        fate = Fate.STAYS
        if rank >= keep and aged:
            fate = Fate.GOES if not referred_by else Fate.SHRINKS if shrinks(thing) else Fate.STAYS
        verdicts.append(Verdict(name, fate, referred_by, max(0, keep - rank), None if aged else kept_until))
    return tuple(verdicts)


def _recency(name: str, position: int | None, time: float) -> Recency:
    """Positions only grow, whatever clocks do."""
    return (-1 if position is None else position, time, name)


def _references_to_jobs(facts: Facts) -> Iterator[tuple[str, str]]:
    """Pairs of a job and what refers to it, other than a model that came from it."""
    yield from ((job.id, f"it is {job.state}") for job in facts.jobs if job.state not in _ENDED)
    yield from ((worker.job, "its worker lives") for worker in facts.workers)
    yield from ((model.job, f"release {release.serial} waits") for release, model in _waiting(facts) if model.job is not None)


def _references_to_models(facts: Facts) -> Iterator[tuple[str, str]]:
    """Pairs of the directory of a model and what refers to it."""
    there = [model for model in facts.models if directory_of(model) in facts.model_directories]
    yield from ((directory_of(model), "it is the current model") for model in there if model.current)
    if (before := predecessor(there)) is not None:
        yield directory_of(before), "it was the current model before"
    yield from ((directory_of(model), f"release {release.serial} waits") for release, model in _waiting(facts))
    published = max((release for release in facts.releases if release.state == "published"), key=lambda one: one.serial, default=None)
    if published is not None:
        yield from (
            (directory_of(model), f"release {published.serial} is the last one that was published")
            for model in there
            if model.sha256 == published.model_sha256
        )


def _positions(facts: Facts) -> dict[str, int | None]:
    return {job.id: job.position for job in facts.jobs}


def _references_to_datasets(facts: Facts, job_directories: Collection[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a dataset and what refers to it."""
    everything = [dataset.name for dataset in facts.datasets]
    for job in facts.jobs:
        if job.trial:
            continue  # its sample lies in its own directory
        if job.state not in _ENDED:
            # Before it has a dataset its state does not tell which one is being formed for it.
            yield from ((name, f"job {job.id} is {job.state}") for name in (everything if job.dataset is None else [job.dataset]))
        elif job.state == JobState.REJECTED and job.dataset is not None and job.id in job_directories:
            yield job.dataset, f"job {job.id} was rejected, and can be overruled while it is kept"
    for worker in facts.workers:
        named = everything if worker.dataset is None else [worker.dataset]
        yield from ((name, f"the worker of job {worker.job} lives") for name in named)
    trained_on = {job.id: job.dataset for job in facts.jobs}
    for model, reference in [*_models(facts), *((model, f"release {release.serial} waits") for release, model in _waiting(facts))]:
        by_job = None if model.job is None else trained_on.get(model.job)
        if by_job in everything:
            yield by_job, reference  # that one alone: others of the same id hold the same, and would be kept for ever
        else:
            yield from ((one.name, reference) for one in facts.datasets if one.id == model.dataset_id)


def _waiting(facts: Facts) -> list[tuple[Release, Model]]:
    models = {model.sha256: model for model in facts.models}
    waiting = [release for release in facts.releases if release.state == "waiting"]
    return [(release, models[release.model_sha256]) for release in waiting if release.model_sha256 in models]


def _models(facts: Facts) -> Iterator[tuple[Model, str]]:
    for model in facts.models:
        yield model, f"model {model.sha256[:12]}" + (" is the current one" if model.current else "")


def _collected(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, reference in pairs:
        found[name] = (*found.get(name, ()), reference)
    return found


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(min(seconds, _LAST_S), UTC):%Y-%m-%d}"
