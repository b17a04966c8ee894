"""What may go: only what is old, is none of the newest, and is referred to by nothing."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.retention.rules import DatasetOnDisk, Decision, Facts, Fate, Verdict, Worker, decide, directory_of
from azaion_daemon.sections import RetentionSettings
from azaion_daemon.store.records import Job, Model, Release
from azaion_daemon.training.states import JobState

DAY = 86400.0
NOW = 1_780_000_000.0
KEEP_FEW = RetentionSettings(datasets_keep=1, datasets_keep_days=10, jobs_keep=1, jobs_keep_days=10, models_keep=1, models_keep_days=10)
ENDED = [JobState.RELEASED, JobState.RELEASING, JobState.FAILED, JobState.CANCELLED, JobState.REJECTED, JobState.TRIED]
UNDER_WAY = [state for state in JobState if state not in ENDED]


def dataset(number: int, *, days_old: float | None = None, **others: Any) -> DatasetOnDisk:
    """The higher the number the newer; by default a day apart, 9 being of today."""
    age = 9 - number if days_old is None else days_old
    return DatasetOnDisk(**{"name": f"d{number}", "id": f"id{number}", "created": NOW - age * DAY, "position": number * 100, **others})


def job(number: int, state: str = "failed", *, days_old: float = 0.0, dataset: str | None = "", **others: Any) -> Job:
    time = NOW - days_old * DAY
    named = f"d{number}" if dataset == "" else dataset
    return Job(**{"id": f"j{number}", "state": state, "reason": "", "created": time, "changed": time, "dataset": named, **others})


def model(number: int, *, current: bool = False, **others: Any) -> Model:
    values: dict[str, Any] = {
        "job": f"j{number}",
        "dataset_id": f"id{number}",
        "metrics": {},
        "path": f"/azaion/models/dir{number}/azaion.onnx",
    }
    values["created"] = NOW - 30 * DAY
    return Model(**{"sha256": f"m{number}", "current": current, **values, **others})


def facts(**given: Any) -> Facts:
    there = {job.id for job in given.get("jobs", ())}
    kept = {directory_of(model) for model in given.get("models", ())}
    nothing: dict[str, Any] = {
        "model_directories": kept,
        "datasets": (),
        "job_directories": there,
        "jobs": (),
        "models": (),
        "releases": (),
        "workers": (),
    }
    return Facts(**(nothing | given))


def going(verdicts: tuple[Verdict, ...], fate: Fate = Fate.GOES) -> list[str]:
    return [verdict.name for verdict in verdicts if verdict.fate is fate]


def decided(settings: RetentionSettings = KEEP_FEW, now: float = NOW, **given: Any) -> Decision:
    return decide(facts(**given), settings, now=now)


OLD, YOUNG, NEWEST = dataset(1, days_old=30), dataset(2, days_old=5), dataset(9)


def test_what_neither_count_nor_age_keeps_goes() -> None:
    made = decided(datasets=[OLD, YOUNG, NEWEST])
    assert going(made.datasets) == ["d1"]
    assert made.datasets[-1].why == "nothing refers to it, and it is old"


def test_the_newest_stay_however_old_they_are() -> None:
    everything = [dataset(number, days_old=1000 - number) for number in range(10)]
    settings = RetentionSettings(datasets_keep=3, datasets_keep_days=0)
    assert going(decided(settings, datasets=everything).datasets) == ["d6", "d5", "d4", "d3", "d2", "d1", "d0"]


def test_it_says_what_has_to_happen_before_something_goes() -> None:
    made = decided(RetentionSettings(datasets_keep=3, datasets_keep_days=10), datasets=[OLD, YOUNG, NEWEST])
    by_name = {verdict.name: verdict for verdict in made.datasets}
    assert by_name["d1"].why == "until 1 newer ones are there"
    assert by_name["d2"].why == "until 2 newer ones are there and one is from after 2026-06-02"


REFERENCES: list[tuple[str, dict[str, Any], str]] = [
    ("the model of its id", {"models": [model(1, job=None)]}, "model m1"),
    ("the model of its job", {"models": [model(1, dataset_id=None)], "jobs": [job(1, "released")]}, "model m1"),
    ("the current model", {"models": [model(1, job=None, current=True)]}, "model m1 is the current one"),
    ("the release that waits", {"models": [model(1)], "releases": [Release(7, "m1", "waiting", 0, 0)]}, "release 7 waits"),
    ("a worker that lives", {"workers": [Worker("j1", "d1")]}, "the worker of job j1 lives"),
    ("a worker whose job cannot be read", {"workers": [Worker("j5", None)]}, "the worker of job j5 lives"),
    ("a job that forms nobody knows which", {"jobs": [job(5, "forming", dataset=None)]}, "job j5 is forming"),
    ("a job of a state to come", {"jobs": [job(1, "pondering")]}, "job j1 is pondering"),
    ("a rejected job that is kept", {"jobs": [job(1, "rejected")]}, "job j1 was rejected"),
    *((f"a job that is {state}", {"jobs": [job(1, state)]}, f"job j1 is {state}") for state in UNDER_WAY),
]


@pytest.mark.parametrize(("given", "word"), [case[1:] for case in REFERENCES], ids=[case[0] for case in REFERENCES])
def test_a_dataset_stays_for(given: dict[str, Any], word: str) -> None:
    made = decided(datasets=[OLD, NEWEST], **given)
    (verdict,) = [one for one in made.datasets if one.name == "d1"]
    assert (verdict.fate, word in verdict.why) == (Fate.STAYS, True)


def test_of_two_datasets_that_hold_the_same_the_one_that_the_model_was_trained_on_stays() -> None:
    twins = [OLD, replace(OLD, name="twin"), NEWEST]
    assert going(decided(datasets=twins, models=[model(1)], jobs=[job(1, "released")]).datasets) == ["twin"]
    assert going(decided(datasets=twins, models=[model(1)]).datasets) == []  # nobody knows which
    gone = decided(datasets=[twins[1], NEWEST], models=[model(1)], jobs=[job(1, "released")])
    assert going(gone.datasets) == []


@pytest.mark.parametrize("state", ENDED)
def test_an_ended_job_alone_does_not_keep_its_dataset(state: JobState) -> None:
    """Not even a rejected one, once its own directory is gone."""
    made = decided(datasets=[OLD, NEWEST], jobs=[job(1, state)], job_directories=frozenset())
    assert going(made.datasets) == ["d1"]


def test_releases_that_are_over_keep_nothing_that_no_model_does() -> None:
    made = decided(datasets=[OLD, NEWEST], releases=[Release(1, "gone", "waiting", 0, 0), Release(2, "m1", "published", 0, 0)])
    assert going(made.datasets) == ["d1"]


@pytest.mark.parametrize("state", [*UNDER_WAY, "pondering"])
def test_a_job_that_has_not_ended_keeps_its_directory(state: str) -> None:
    assert going(decided(jobs=[job(1, state, days_old=30), job(2)]).jobs) == []


@pytest.mark.parametrize("state", ENDED)
def test_an_old_job_that_has_ended_goes(state: JobState) -> None:
    assert going(decided(jobs=[job(1, state, days_old=30), job(2)]).jobs) == ["j1"]


def test_a_job_whose_worker_lives_stays_whatever_the_ledger_says() -> None:
    assert going(decided(jobs=[job(1, days_old=30), job(2)], workers=[Worker("j1", "d1")]).jobs) == []


@pytest.mark.parametrize(
    ("others", "fate"),
    [
        ({}, Fate.SHRINKS),
        ({"releases": [Release(1, "m1", "waiting", 0, 0)]}, Fate.STAYS),
        ({"releases": [Release(1, "m1", "published", 0, 0)]}, Fate.SHRINKS),
        ({"workers": [Worker("j1", None)]}, Fate.STAYS),
    ],
)
def test_of_a_job_that_only_a_model_refers_to_the_record_stays(others: dict[str, Any], fate: Fate) -> None:
    made = decided(jobs=[job(1, "released", days_old=30), job(2)], models=[model(1)], **others)
    assert [verdict.fate for verdict in made.jobs] == [Fate.STAYS, fate]


def test_directories_that_the_ledger_does_not_know_are_none_of_ours() -> None:
    made = decided(jobs=[job(2)], job_directories={"j2", "mine", "20200101T000000Z"})
    assert [verdict.name for verdict in made.jobs] == ["j2"]


def test_a_clock_that_has_jumped_ahead_removes_nothing() -> None:
    """No dataset is newer than before, so none is older."""
    everything = [dataset(number) for number in range(10)]
    assert going(decided(now=NOW + 20 * 365 * DAY, datasets=everything).datasets) == []


def test_a_dataset_formed_while_the_clock_was_ahead_does_not_outdate_the_newest() -> None:
    keep_five = RetentionSettings(datasets_keep=5, datasets_keep_days=10)
    everything = [*(dataset(number) for number in range(9)), dataset(9, days_old=-7300)]
    ahead = decided(keep_five, now=NOW + 7300 * DAY, datasets=everything)
    assert [verdict.name for verdict in ahead.datasets if verdict.fate is Fate.STAYS] == ["d9", "d8", "d7", "d6", "d5"]
    mended = decided(keep_five, now=NOW, datasets=everything)
    assert going(mended.datasets) == []


def test_a_dataset_formed_while_the_clock_was_back_is_the_newest_by_its_position() -> None:
    made = decided(datasets=[dataset(8, days_old=30), replace(NEWEST, created=0.0)])
    assert made.datasets[0].name == "d9"
    assert made.datasets[0].fate is Fate.STAYS


def test_a_clock_that_has_jumped_back_makes_everything_young() -> None:
    assert going(decided(now=0.0, datasets=[OLD, YOUNG, NEWEST]).datasets) == []


def lived(number: int, *, days_old: float, **others: Any) -> Model:
    """A model that became the current one so many days ago."""
    return model(number, job=None, dataset_id=None, current_since=NOW - days_old * DAY, **others)


def test_a_model_goes_by_count_and_age_but_never_the_current_one_nor_its_predecessor() -> None:
    models = [lived(number, days_old=100 - 20 * number, current=number == 5) for number in range(6)]
    made = decided(models=models)
    assert going(made.models) == ["dir3", "dir2", "dir1", "dir0"]
    young = [lived(number, days_old=9.9 - 1.9 * number, current=number == 5) for number in range(6)]
    assert going(decided(models=young).models) == []
    many = KEEP_FEW.model_copy(update={"models_keep": 4})
    assert going(decided(many, models=models).models) == ["dir1", "dir0"]


def test_an_older_model_that_was_promoted_again_is_as_new_as_its_promotion() -> None:
    models = [lived(1, days_old=0, current=True, created=NOW - 900 * DAY), *(lived(number, days_old=50 - number) for number in range(2, 5))]
    verdicts = {verdict.name: verdict for verdict in decided(models=models).models}
    assert {name for name, verdict in verdicts.items() if verdict.fate is Fate.STAYS} == {"dir1", "dir4"}
    assert verdicts["dir4"].why == "it was the current model before"


@pytest.mark.parametrize(
    ("releases", "stays"),
    [
        ([Release(1, "m0", "waiting", 0, 0)], True),
        ([Release(1, "m0", "published", 0, 0)], True),  # consumers have it
        ([Release(1, "m0", "published", 0, 0), Release(2, "m2", "published", 0, 0)], False),
        ([Release(1, "m0", "superseded", 0, 0)], False),
    ],
)
def test_a_model_stays_while_consumers_have_it_or_are_to_have_it(releases: list[Release], *, stays: bool) -> None:
    models = [lived(number, days_old=100 - 50 * number, current=number == 2) for number in range(3)]
    assert ("dir0" in going(decided(models=models, releases=releases).models)) is not stays


def test_a_model_that_is_gone_keeps_neither_its_dataset_nor_its_job() -> None:
    there: dict[str, Any] = {"datasets": [OLD, NEWEST], "jobs": [job(1, "released", days_old=30), job(2)], "models": [model(1)]}
    assert (going(decided(**there).datasets), going(decided(**there).jobs)) == ([], [])
    gone = decided(**there, model_directories=())
    assert (going(gone.datasets), going(gone.jobs)) == (["d1"], ["j1"])
    removed = decided(**{**there, "models": [model(1), *(lived(number, days_old=number, current=number == 2) for number in (2, 3))]})
    assert (going(removed.models), going(removed.datasets)) == (["dir1"], ["d1"])


def test_the_dataset_of_the_current_model_stays_even_if_somebody_has_removed_the_model() -> None:
    """What it has seen is left out where models are compared."""
    made = decided(datasets=[OLD, NEWEST], models=[model(1, job=None, current=True)], model_directories=())
    assert going(made.datasets) == []


def test_directories_of_models_that_the_ledger_does_not_know_are_none_of_ours() -> None:
    assert [verdict.name for verdict in decided(models=[model(1)], model_directories={"dir1", "base-models"}).models] == ["dir1"]


numbers = st.integers(0, 9)
times = st.floats(0, 4e9)
states = st.sampled_from([*JobState, "pondering"])
maybe = st.one_of(st.none(), numbers)


@st.composite
def worlds(draw: st.DrawFn) -> Facts:
    datasets = draw(
        st.lists(st.builds(lambda n, t, p: dataset(n, created=t, position=p), numbers, times, maybe), unique_by=lambda d: d.name)
    )
    jobs = draw(
        st.lists(
            st.builds(
                lambda n, s, t, d, p: job(n, s, changed=t, dataset=None if d is None else f"d{d}", position=p),
                numbers,
                states,
                times,
                maybe,
                maybe,
            ),
            unique_by=lambda one: one.id,
        )
    )
    models = draw(
        st.lists(
            st.builds(
                lambda n, j, d, c, t: model(
                    n, job=None if j is None else f"j{j}", dataset_id=None if d is None else f"id{d}", current=c and n == 0, current_since=t
                ),
                numbers,
                maybe,
                maybe,
                st.booleans(),
                st.one_of(st.none(), times),
            ),
            unique_by=lambda one: one.sha256,
        )
    )
    releases = draw(
        st.lists(st.builds(lambda n, s: Release(n, f"m{n}", s, 0, 0), numbers, st.sampled_from(["waiting", "published", "superseded"])))
    )
    workers = draw(st.lists(st.builds(lambda j, d: Worker(f"j{j}", None if d is None else f"d{d}"), numbers, maybe), max_size=2))
    kept = {f"dir{n}" for n in draw(st.sets(numbers))}
    return Facts(datasets, {f"j{n}" for n in draw(st.sets(numbers))}, jobs, models, releases, workers, kept)


settings = st.builds(
    RetentionSettings,
    datasets_keep=st.integers(1, 4),
    datasets_keep_days=st.floats(0, 400),
    jobs_keep=st.integers(1, 4),
    jobs_keep_days=st.floats(0, 400),
    models_keep=st.integers(1, 4),
    models_keep_days=st.floats(0, 400),
)


@given(worlds(), settings, times)
def test_what_is_referred_to_never_goes(world: Facts, limits: RetentionSettings, now: float) -> None:
    """Said here once more from the side of those who refer."""
    made = decide(world, limits, now=now)
    gone, gone_jobs = set(going(made.datasets)), set(going(made.jobs))
    touched_jobs = gone_jobs | set(going(made.jobs, Fate.SHRINKS))
    ids = {one.id: one.name for one in world.datasets}
    by_job = {one.id: one.dataset for one in world.jobs}
    gone_models = set(going(made.models)) | {directory_of(one) for one in world.models} - set(world.model_directories)
    for one in (one for one in world.models if one.current or directory_of(one) not in gone_models):
        assert one.job not in gone_jobs
        trained_on = by_job.get(str(one.job))
        assert (trained_on if trained_on in ids.values() else ids.get(str(one.dataset_id))) not in gone
    for unfinished in (one for one in world.jobs if one.state not in ENDED):
        assert unfinished.id not in touched_jobs
        assert unfinished.dataset not in gone if unfinished.dataset else not gone
    for worker in world.workers:
        assert worker.job not in touched_jobs
        assert worker.dataset not in gone if worker.dataset else not gone
    for release in (one for one in world.releases if one.state == "waiting"):
        assert not touched_jobs & {one.job for one in world.models if one.sha256 == release.model_sha256}


@given(worlds(), settings, times)
def test_so_many_of_the_newest_stay_whatever_the_clock_says(world: Facts, limits: RetentionSettings, now: float) -> None:
    made = decide(world, limits, now=now)
    left = [verdict for verdict in made.datasets if verdict.fate is Fate.STAYS]
    assert len(left) >= min(limits.datasets_keep, len(world.datasets))
    assert left[: limits.datasets_keep] == list(made.datasets[: limits.datasets_keep])


@given(worlds(), settings, times)
def test_what_is_decided_once_more_after_it_was_carried_out_lets_nothing_else_go(
    world: Facts, limits: RetentionSettings, now: float
) -> None:
    first = decide(world, limits, now=now)
    left = replace(
        world,
        datasets=[one for one in world.datasets if one.name not in going(first.datasets)],
        job_directories=set(world.job_directories) - set(going(first.jobs)),
        model_directories=set(world.model_directories) - set(going(first.models)),
    )
    second = decide(left, limits, now=now)
    assert (going(second.datasets), going(second.jobs), going(second.models)) == ([], [], [])


def test_checkpoints_of_jobs_without_a_model_go_when_another_job_has_ended() -> None:
    jobs = [job(1, "failed", days_old=3), job(2, "cancelled", days_old=2), job(3, "failed", days_old=1), job(4, "running")]
    keep = RetentionSettings(jobs_keep=20, jobs_keep_days=90)
    assert going(decided(keep, jobs=jobs).jobs, Fate.SHRINKS) == ["j2", "j1"]
    assert going(decided(keep, jobs=[*jobs, job(5, "rejected")]).jobs, Fate.SHRINKS) == ["j3", "j2", "j1"]
    alive = (Worker("j1", None),)
    assert going(decided(keep, jobs=jobs, workers=alive).jobs, Fate.SHRINKS) == ["j2"]
