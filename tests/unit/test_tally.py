"""What is learned by looking at the jobs again and again."""

from datetime import UTC, datetime

from azaion_daemon.ops.tally import Tally
from azaion_daemon.training.jobs import Progress
from azaion_daemon.training.outcomes import Phase

AT = datetime.fromtimestamp(900, UTC)


def progress(epoch: int, batch: int = 1) -> Progress:
    return Progress(phase=Phase.TRAIN, epoch=epoch, epochs=9, batch=batch, started=AT, phase_started=AT, updated=AT)


def test_each_training_that_ends_is_counted_once_whatever_becomes_of_its_model() -> None:
    tally = Tally()
    for now in (
        {"old": "failed", "a": "running", "b": "forming"},
        {"old": "failed", "a": "accepted", "b": "queued"},
        {"old": "failed", "a": "releasing", "b": "cancelled", "c": "requested"},
        {"old": "failed", "a": "released", "b": "cancelled", "c": "released"},  # so fast that nobody saw how
        {"old": "failed", "a": "released", "b": "cancelled", "c": "released"},
    ):
        tally.look(now, {}, 0.0)
    assert {state: count for state, count in tally.ended.items() if count} == {"accepted": 2, "cancelled": 1}


def test_a_training_gets_on_when_its_place_changes_and_not_when_it_only_says_the_same_again() -> None:
    tally = Tally()
    assert tally.got_on("a") is None
    for now, at, got_on in (
        (1000.0, progress(1), 900.0),  # from before this daemon: when the worker said so
        (1001.0, progress(1), 900.0),
        (1002.0, progress(1, batch=2), 1002.0),
        (1500.0, progress(1, batch=2), 1002.0),
        (1501.0, progress(2), 1501.0),
    ):
        tally.look({"a": "running"}, {"a": at}, now)
        assert tally.got_on("a") == got_on


def test_one_that_has_ended_or_says_nothing_is_forgotten() -> None:
    tally = Tally()
    tally.look({"a": "running"}, {"a": progress(1)}, 1000.0)
    tally.look({"a": "queued"}, {"a": None}, 1001.0)
    assert tally.got_on("a") is None
