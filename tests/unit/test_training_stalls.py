"""When a worker that lives has come to a standstill."""

from datetime import UTC, datetime
from typing import Any

import pytest

from azaion_daemon.training.jobs import Progress
from azaion_daemon.training.outcomes import Phase
from azaion_daemon.training.stalls import SETTING_UP, Ceilings, Standstill, ceiling_s, where

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def progress(phase: Phase = Phase.TRAIN, **values: Any) -> Progress:
    return Progress(phase=phase, started=NOW, phase_started=NOW, **{"updated": NOW, **values})


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (None, 600),
        (progress(Phase.PREPARE), 600),
        (progress(Phase.PREPARE, step="reading train", batches=100_000), 5600),
        (progress(step=SETTING_UP, batches=20_000), 1600),
        (progress(epoch=1, batch=0, batches=40), 600),
        (progress(epoch=1, batch=3, batches=40, batch_s=0.5), 300),
        (progress(epoch=1, batch=3, batches=40, batch_s=45.0), 450),
        (progress(epoch=1, step="validating", batch=0, batches=9, batch_s=90.0), 900),
        (progress(Phase.EXPORT), 1800),
        (progress(Phase.EVALUATE, batch=5, batches=9), 1200),
    ],
)
def test_each_phase_has_its_ceiling_in_proportion_to_its_work(found: Progress | None, seconds: float) -> None:
    assert ceiling_s(found, Ceilings()) == seconds


def test_a_worker_that_gets_on_is_left_alone_however_long_it_takes() -> None:
    standstill = Standstill(Ceilings())
    for number in range(10_000):
        assert standstill.look(progress(epoch=1 + number // 100, batch=1 + number % 100), number * 20.0) is None


@pytest.mark.parametrize(
    "step",
    [{"epoch": 2}, {"batch": 6}, {"step": "validating"}, {"phase": Phase.EXPORT}, {"attempt": 2}, {"batches": 41}],
    ids=lambda step: next(iter(step)),
)
def test_any_step_forward_is_progress(step: dict[str, Any]) -> None:
    standstill = Standstill(Ceilings(train_s=100))
    before = progress(epoch=1, batch=5)
    for now in range(0, 91, 10):
        assert standstill.look(before, now) is None
    assert standstill.look(before.model_copy(update=step), 100) is None
    assert standstill.look(before.model_copy(update=step), 130) is None


def test_a_file_that_is_only_written_again_is_no_progress() -> None:
    standstill = Standstill(Ceilings(train_s=100))
    looks = [standstill.look(progress(epoch=1, batch=5, updated=datetime.now(UTC), losses={"box": now}), now) for now in range(0, 121, 10)]
    assert looks == [None] * 11 + [110.0, 120.0]


def test_a_worker_that_says_nothing_has_stopped_too() -> None:
    standstill = Standstill(Ceilings(start_s=25))
    assert [standstill.look(None, now) for now in (0, 20, 30)] == [None, None, 30]


def test_time_in_which_nobody_looked_is_no_standstill() -> None:
    """The machine was paused, or the daemon was: the worker may have been as well."""
    standstill = Standstill(Ceilings(train_s=100))
    seen = progress(epoch=1, batch=5)
    assert standstill.look(seen, 0) is None
    assert standstill.look(seen, 100_000) is None
    assert standstill.look(seen, 100_010) is None


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "before it said anything"),
        (progress(Phase.PREPARE, step="reading train", batches=9), "in phase prepare, reading train, batch 0 of 9"),
        (progress(step=SETTING_UP, batches=9), "in phase train, setting up"),
        (progress(epoch=3, batch=17, batches=40), "in phase train, epoch 3, batch 17 of 40"),
        (progress(epoch=3, step="validating", batch=1, batches=4), "in phase train, epoch 3, validating, batch 1 of 4"),
        (progress(Phase.EXPORT, epoch=9), "in phase export, epoch 9"),
    ],
)
def test_where_it_stopped_is_said(found: Progress | None, sentence: str) -> None:
    assert where(found) == sentence
