"""What the ledger says of when a training is due: counts, times, requests and failures, over restarts and clocks that jump."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azaion_daemon.store.due import NOTHING, DueRecord, Mark, TrainingRequest
from azaion_daemon.store.layout import Home
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import AuditEntry, Blame, Job, Position
from tests.unit.builders import row

SEED, VALIDATED, DELETED = Home.SEED, Home.VALIDATED, Home.DELETED


class World:
    """A ledger, a clock that is driven, and a stream."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        Ledger.create(path)
        self.ledger = self._open()
        self.offset = -1

    def _open(self) -> Ledger:
        return Ledger(self.path, clock=lambda: self.now)

    def restart(self) -> None:
        self.ledger.close()
        self.ledger = self._open()

    def message(self, *names: str, home: Home = VALIDATED, trained_on: bool = True) -> None:
        """A message changes annotations."""
        self.offset += 1
        rows = [
            row(home, name=name, position=self.offset, validated_position=self.offset if trained_on else None) for name in names
        ]  # fmt: skip
        self.ledger.commit_batch("s", Position(self.offset, b"d"), rows)

    def replay(self, *names: str, home: Home = VALIDATED) -> None:
        """Messages out of the quarantine change annotations; the stream stands still."""
        trained_on = self.offset if home is VALIDATED else None
        rows = [row(home, name=name, position=self.offset, validated_position=trained_on) for name in names]
        audit = [AuditEntry(f"annotation {name}", "replayed", "operator", "message 0") for name in names]
        self.ledger.commit_batch("s", Position(self.offset, b"d"), rows, audit)

    def repair(self, *names: str) -> None:
        rows = [row(VALIDATED, name=name, position=self.offset, validated_position=self.offset) for name in names]
        audit = [AuditEntry(f"annotation {name}", "repaired", "operator", "image found") for name in names]
        self.ledger.replace_annotations(rows, audit)

    def job(self, id_: str, state: str = "released", **others: Any) -> None:
        """A job whose snapshot is taken now and that has ended, as the conductor records it."""
        mark = self.ledger.due.mark()
        fields = {"position": mark.position, "audit": mark.audit, "judged": state == "released", "ended": self.now, **others}
        self.ledger.put_job(Job(id_, state, "reason", self.now, self.now, **fields))

    def record(self) -> DueRecord:
        return self.ledger.due.record("")


@contextmanager
def world_in(path: Path) -> Iterator[World]:
    made = World(path)
    try:
        yield made
    finally:
        made.ledger.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path / "ledger.db") as made:
        yield made


def test_what_is_new_changed_or_gone_since_a_judged_snapshot_counts_once_each(world: World) -> None:
    world.message("a", "b", "c")
    world.message("s", home=SEED, trained_on=False)
    assert world.record().changed == 3
    world.job("J")
    assert world.record().changed == 0
    world.message("a")
    world.message("a")
    world.message("b", home=DELETED)
    world.message("n")
    assert world.record().changed == 3


@pytest.mark.parametrize(("state", "judged", "changed"), [("released", True, 0), ("cancelled", False, 0), ("failed", False, 2)])
def test_a_cancelled_job_counts_as_judged_and_a_failed_one_does_not(world: World, state: str, changed: int, *, judged: bool) -> None:
    world.message("a", "b")
    world.job("J", state, judged=judged)
    assert world.record().changed == changed


@pytest.mark.parametrize("state", ["tried", "failed", "cancelled"])
def test_a_trial_counts_for_nothing(world: World, state: str) -> None:
    world.message("a", "b")
    world.ledger.due.settle_schedule("0 2 * * *", 5.0)
    world.ledger.due.ask(TrainingRequest("r", 1.0, "try it", trial=True))
    world.ledger.due.take_up(Job("T", "requested", "reason", world.now, world.now, trial=True, asked=True), world.record().requests)
    world.job("T", state, trial=True, blame="settings" if state == "failed" else None, why="w")
    found = world.ledger.due.record("0 2 * * *")
    assert (found.changed, found.last_ended, found.failure, found.schedule_settled, found.requests) == (2, None, None, 5.0, ())


def test_of_jobs_beside_each_other_the_one_that_ended_last_is_the_last(world: World) -> None:
    world.message("a", "b")
    world.job("A", "running", ended=None)
    world.job("B")
    assert world.record().failure is None
    world.now += 10
    world.job("A", "failed", blame=Blame.SETTINGS, why="w")
    failure = world.record().failure
    assert failure is not None
    assert (failure.job, failure.in_a_row) == ("A", 1)


def test_what_comes_while_a_job_trains_counts_for_the_next_one(world: World) -> None:
    world.message("a", "b")
    mark = world.ledger.due.mark()
    world.message("a", "c")
    world.job("J", position=mark.position, audit=mark.audit)
    assert world.record().changed == 2


def test_what_changed_while_the_stream_stood_still_counts(world: World) -> None:
    world.message("a", "b", "c", "d", "s")
    world.job("J")
    world.replay("a", "b")
    world.replay("b")
    world.replay("s", home=SEED)
    world.repair("c")
    world.ledger.flag_image_lost(list(world.ledger.annotations(["d"]).values()))
    world.ledger.flag_image_lost([])
    assert world.record().changed == 4
    world.job("K")
    assert world.record().changed == 0
    world.message("a")
    assert world.record().changed == 1


def test_what_was_repaired_before_the_snapshot_is_in_it(world: World) -> None:
    world.message("a")
    world.repair("a")
    world.job("J")
    world.restart()
    assert world.record().changed == 0


def test_a_tree_that_no_message_has_touched_is_judged_too(world: World) -> None:
    world.ledger.add_annotations([row(VALIDATED, name="a", validated_position=0)])
    assert (world.record().changed, world.ledger.due.mark()) == (1, Mark(0, 0))
    world.job("J")
    assert world.record().changed == 0


# When


def test_the_first_and_the_last_change_are_those_after_the_snapshot(world: World) -> None:
    assert (world.record().first_change, world.record().last_change) == (None, None)
    for minute in range(30):
        world.now = 1000.0 + 60 * minute
        world.message(f"{minute}")
    world.now += 1
    world.message("s", home=SEED, trained_on=False)
    assert (world.record().first_change, world.record().last_change) == (1000.0, 2740.0)
    mark = Mark(19, 0)
    world.job("J", position=mark.position, audit=mark.audit)
    assert (world.record().first_change, world.record().last_change) == (2200.0, 2740.0)


def test_the_first_change_stays_the_first_however_often_the_same_annotation_changes(world: World) -> None:
    for _ in range(200):
        world.message("a")
        world.now += 30
    world.restart()
    assert (world.record().changed, world.record().first_change) == (1, 1000.0)
    assert world.record().last_change == world.now - 30


def test_replays_and_repairs_are_changes_of_their_time(world: World) -> None:
    world.message("a", "b")
    world.job("J")
    world.now = 5000.0
    world.replay("a")
    assert (world.record().first_change, world.record().last_change) == (5000.0, 5000.0)
    world.job("K")
    world.now = 6000.0
    world.repair("b")
    assert world.record().first_change == 6000.0


def test_a_portion_of_a_long_message_is_a_change(world: World) -> None:
    world.message("a")
    world.job("J")
    world.now = 5000.0
    world.ledger.commit_batch("s", None, [row(VALIDATED, name="b", position=1, validated_position=1)])
    assert (world.record().changed, world.record().last_change) == (1, 5000.0)


def test_what_has_been_judged_is_forgotten(world: World, tmp_path: Path) -> None:
    for minute in range(10):
        world.now = 1000.0 + 60 * minute
        world.message(f"{minute}")
    world.job("J")
    world.now += 60
    world.message("n")
    world.ledger.due.take_up(Job("K", "requested", "reason", world.now, world.now), [])
    (left,) = world.ledger._db.execute("SELECT count(*) FROM changes").fetchone()
    assert (left, world.record().first_change) == (2, world.now)


def test_when_the_validated_last_changed_is_known_after_they_were_trained_on_too(world: World) -> None:
    assert world.ledger.due.newest_change() is None
    world.now = 1000.0
    world.message("a")
    world.now = 2000.0
    world.message("s", home=SEED, trained_on=False)
    world.job("J")
    world.ledger.due.take_up(Job("K", "requested", "reason", world.now, world.now), [])
    world.restart()
    assert world.ledger.due.newest_change() == 1000.0


# Clocks that jump


def test_times_in_the_future_are_brought_back_once_and_then_pass(world: World) -> None:
    world.now = 10_000.0
    world.message("a")
    world.job("J", "failed", blame="data")
    world.ledger.due.settle_schedule("* * * * *", world.now)
    world.now = 3000.0  # the clock was an hour and more ahead
    world.restart()
    first = world.ledger.due.record("* * * * *")
    assert (first.first_change, first.last_change, first.last_ended, first.schedule_settled) == (3000.0,) * 4
    world.now = 3600.0
    assert world.ledger.due.record("* * * * *") == first


def test_after_a_jump_back_the_next_change_is_of_its_time(world: World) -> None:
    world.now = 10_000.0
    world.message("a")
    world.now = 3000.0
    world.message("b")
    world.now = 3010.0
    record = world.record()
    assert (record.first_change, record.last_change) == (3000.0, 3010.0)


STEPS = st.lists(st.tuples(st.sampled_from(["message", "replay", "repair", "job", "restart", "look"]), st.floats(-5000, 5000)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_changes_are_counted_and_no_time_lies_in_the_future(tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    with world_in(tmp_path_factory.mktemp("due") / "ledger.db") as world:
        world.message("0")
        changed = {"0"}
        for number, (step, seconds) in enumerate(steps):
            world.now = max(world.now + seconds, 1.0)
            name = str(number % 7)
            match step:
                case "message" | "replay" | "repair":
                    getattr(world, step)(name)
                    changed.add(name)
                case "job":
                    world.job(str(number))
                    changed.clear()
                case "restart":
                    world.restart()
                case _:
                    pass
            record = world.record()
            assert record.changed == len(changed)
            assert (record.last_change is not None) == bool(changed)
            assert all(time <= world.now for time in (record.first_change, record.last_change, record.last_ended) if time is not None)


# Jobs that failed


def test_failures_are_counted_until_something_goes_well(world: World) -> None:
    world.message("a")
    assert world.record().failure is None
    for number in range(3):
        world.now -= 100  # whatever the clock says
        world.job(f"{number}", "failed", blame=Blame.DATA, why="no image", settings="S")
    world.ledger.put_job(Job("under way", "running", "reason", world.now, world.now))
    world.restart()
    assert world.record().failure == ("2", "data", "no image", "S", 0, 3)
    world.message("b")
    assert world.record().failure == ("2", "data", "no image", "S", 1, 3)
    world.job("well", "cancelled")
    assert world.record().failure is None


# Requests


def test_a_request_is_taken_up_exactly_once_across_restarts(world: World) -> None:
    request = TrainingRequest("r", 5.0, "new camera")
    for _ in range(2):  # the command's file is read again after a kill
        world.ledger.due.ask(request)
        world.restart()
    assert world.record().requests == (request,)
    world.ledger.due.take_up(Job("J", "requested", "asked", 1.0, 1.0), world.record().requests)
    world.restart()
    world.ledger.due.ask(request)
    assert world.record().requests == ()
    assert [job.id for job in world.ledger.jobs()] == ["J"]


def test_a_job_settles_the_schedule_until_it_was_requested(world: World) -> None:
    assert world.ledger.due.record("0 2 * * * UTC").schedule_settled is None
    world.ledger.due.settle_schedule("0 2 * * * UTC", world.now)
    world.now = 2000.0
    world.ledger.due.take_up(Job("J", "requested", "it is time", world.now, world.now), [])
    assert world.ledger.due.record("0 2 * * * UTC").schedule_settled == 2000.0
    assert world.ledger.due.record("0 3 * * * UTC").schedule_settled is None
    world.ledger.due.settle_schedule("0 3 * * * UTC", world.now)
    assert world.ledger.due.record("0 2 * * * UTC").schedule_settled is None


def test_counting_reads_indexes_alone(world: World) -> None:
    """It is done after every batch, with hundreds of thousands of rows."""
    plans: list[str] = []
    world.ledger._db.set_trace_callback(plans.append)
    world.ledger.due.changed_since(NOTHING)
    world.ledger._db.set_trace_callback(None)
    details = [line[-1] for query in plans for line in world.ledger._db.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert any("COVERING INDEX annotations_validated_position" in detail for detail in details)
    assert any("INDEX audit_beside_the_stream" in detail for detail in details)
    assert not [detail for detail in details if detail.startswith("SCAN")]
