"""Whether a job is tried again, and how."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import JobSpec
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.retry import Again, GiveUp, decide

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def spec(**changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "id": "1", "dataset_id": "d", "dataset_name": "azaion-2026-01-02", "data_yaml": Path("/d/data.yaml"), "class_names": ("car",),
        "model": "yolo26n.yaml", "epochs": 120, "batch_size": 11, "imgsz": 64, "save_period": 1, "workers": 24, "export_imgsz": 64,
        "gpu_locks": Path("/g"), "gpus": ("GPU-1",), "max_attempts": 5,
    }  # fmt: skip
    return JobSpec(**(values | changes))


def attempt(
    outcome: Outcome = Outcome.INFRASTRUCTURE, epoch: int = 3, phase: Phase | None = Phase.TRAIN, *, counts: bool = True
) -> Attempt:
    return Attempt(
        number=1, outcome=outcome, reason="It fell.", phase=phase, epoch=epoch, batch_size=11, gpus=("GPU-1",), ended=NOW, counts=counts,
    )  # fmt: skip


def again(decision: Again | GiveUp) -> Again:
    assert isinstance(decision, Again)
    return decision


@pytest.mark.parametrize("outcome", [Outcome.BAD_JOB, Outcome.BAD_DATA, Outcome.DIVERGED])
def test_what_would_fail_again_is_given_up_at_once(outcome: Outcome) -> None:
    assert decide(spec(), [attempt(outcome)]) == GiveUp(outcome, "It fell.")


def test_a_failed_machine_is_tried_again_elsewhere_after_growing_pauses() -> None:
    decisions = [again(decide(spec(), [attempt()] * count)) for count in range(1, 5)]
    assert [one.pause_s for one in decisions] == [5, 20, 80, 320]
    assert {one.avoid for one in decisions} == {("GPU-1",)}
    assert all(one.spec == spec() for one in decisions)


def test_a_job_that_comes_no_further_is_given_up_with_how_often_it_was_tried() -> None:
    assert decide(spec(), [attempt()] * 5) == GiveUp(
        Outcome.INFRASTRUCTURE, "Tried 5 times, the last 5 without coming any further; in the end: It fell."
    )
    assert decide(spec(max_attempts=1), [attempt()]) == GiveUp(Outcome.INFRASTRUCTURE, "Tried once; in the end: It fell.")


@pytest.mark.parametrize(
    "further",
    [attempt(epoch=4), attempt(phase=Phase.EXPORT)],
    ids=["one more epoch", "another phase"],
)
def test_one_that_came_further_is_counted_anew(further: Attempt) -> None:
    decision = again(decide(spec(), [attempt()] * 4 + [further]))
    assert decision.pause_s == 5
    assert isinstance(decide(spec(), [attempt()] * 4 + [further] * 5), GiveUp)


def test_falling_back_and_coming_up_again_is_no_progress() -> None:
    """A worker that is killed before its first word, and one that reaches the same epoch as before, in turn."""
    attempts = [attempt(), attempt(epoch=0, phase=None), attempt(), attempt(epoch=0, phase=None), attempt()]
    assert isinstance(decide(spec(), attempts), GiveUp)


def test_nothing_is_tried_for_ever_not_even_with_one_more_epoch_each_time() -> None:
    steps = [attempt(epoch=number) for number in range(101)]
    assert isinstance(decide(spec(), steps[:99]), Again)
    assert isinstance(decide(spec(), steps[:100]), GiveUp)


def test_what_is_no_failure_of_the_job_does_not_count_and_is_waited_for() -> None:
    full = attempt(counts=False)
    assert decide(spec(), [full] * 500) == Again(spec(), 60)
    assert isinstance(decide(spec(), [attempt()] * 4 + [full] * 50), Again)
    assert isinstance(decide(spec(), [attempt()] * 4 + [full] * 50 + [attempt()]), GiveUp)
    assert isinstance(decide(spec(), [full] * 1000), GiveUp)


@pytest.mark.parametrize(
    ("batch", "gpus", "smaller"), [(11, 1, 5), (2, 1, 1), (1, 1, None), (16, 2, 8), (6, 2, 2), (2, 2, None), (3, 0, 1)]
)
def test_too_little_memory_halves_the_batch_in_equal_parts(batch: int, gpus: int, smaller: int | None) -> None:
    decision = decide(spec(batch_size=batch, gpus=("GPU-1", "GPU-2")[:gpus]), [attempt(Outcome.OUT_OF_MEMORY)])
    if smaller is None:
        assert isinstance(decision, GiveUp)
        assert decision.reason == "The memory does not suffice even for one image at a time: lower training.imgsz. It fell."
    else:
        assert (again(decision).spec.batch_size, again(decision).spec.workers) == (smaller, 24)


@pytest.mark.parametrize("phase", [Phase.EXPORT, Phase.EVALUATE, Phase.REPORT])
@pytest.mark.parametrize("outcome", [Outcome.OUT_OF_MEMORY, Outcome.OUT_OF_HOST_MEMORY])
def test_memory_that_runs_out_after_the_training_changes_nothing_of_it_but_the_place(outcome: Outcome, phase: Phase) -> None:
    decision = again(decide(spec(), [attempt(outcome, phase=phase)]))
    assert (decision.spec, decision.avoid) == (spec(), ("GPU-1",))


def test_too_little_memory_of_the_machine_halves_the_data_loaders_and_then_the_batch() -> None:
    killed = attempt(Outcome.OUT_OF_HOST_MEMORY)
    less = again(decide(spec(), [killed])).spec
    assert (less.workers, less.batch_size) == (12, 11)
    none = again(decide(spec(workers=1), [killed])).spec
    assert (none.workers, none.batch_size) == (0, 11)
    smaller = again(decide(none, [killed])).spec
    assert (smaller.workers, smaller.batch_size) == (0, 5)
