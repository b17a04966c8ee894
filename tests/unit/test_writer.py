"""Group commit: what a batch makes of ledger and tree, and what a crash between any two steps leaves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from azaion_daemon.store.due import Mark
from azaion_daemon.store.layout import Home
from azaion_daemon.stream.events import RawMessage, Role, Status
from tests.unit.builders import BOX, CLASSES, VALIDATOR, boxes, bulk, created, debris_of, edited, picture, raw, staged, tree_of
from tests.unit.test_rules_model import World

NEW = "2 0.5 0.5 0.25 0.25\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path / "azaion")
    yield one
    one.close()


def test_a_batch_folds_into_the_last_state_of_each_annotation(world: World) -> None:
    batch = [created(1, "a"), created(2, "b", 1), bulk(3, Status.VALIDATED, ["a"]), edited(4, "a", detections=boxes(2))]
    plan = world.writer.commit(world.stage(batch), CLASSES)
    assert {name: (one.home, one.label, one.pending) for name, one in plan.rows.items()} == {
        "a": (Home.VALIDATED, BOX, NEW),
        "b": (Home.SEED, BOX, None),
    }
    assert plan.moved == {Home.SEED: 1, Home.VALIDATED: 1, Home.DELETED: 0}
    assert plan.position is not None
    assert plan.position.offset == 4


def test_the_position_has_the_digest_of_the_last_message_even_of_a_bad_one(world: World) -> None:
    bad = RawMessage(2, b"bad")
    world.run([created(1), bad])
    position = world.ledger.position("s")
    assert position is not None
    assert (position.offset, position.digest) == (2, world.stage([bad])[0].decoded.digest)


def test_counts_follow_what_moved(world: World) -> None:
    world.run([created(1, "a"), created(2, "b"), created(3, "c")])
    plan = world.writer.commit(world.stage([bulk(4, Status.VALIDATED, ["a", "b"]), bulk(5, Status.DELETED, ["b"])]), CLASSES)
    assert plan.moved == {Home.SEED: -2, Home.VALIDATED: 1, Home.DELETED: 1}
    assert world.ledger.counts() == {Home.SEED: 1, Home.VALIDATED: 1, Home.DELETED: 1}


def test_validating_unknown_names_surprises_once_each_and_changes_nothing_else(world: World) -> None:
    plan = world.writer.commit(world.stage([bulk(1, Status.VALIDATED, ["x", "y"]), bulk(2, Status.DELETED, ["z"])]), CLASSES)
    assert (plan.rows, plan.surprises) == ({}, ["x", "y"])
    assert [(entry.subject, entry.action) for entry in plan.audit] == [
        ("annotation x", "validated ignored"),
        ("annotation y", "validated ignored"),
        ("annotation z", "deleted ignored"),
    ]


def test_a_repeated_created_leaves_no_staged_file(world: World) -> None:
    world.run([created(1), RawMessage(2, created(1).data)])
    assert debris_of(world.layout) == []
    assert len(tree_of(world.layout)) == 2


def test_an_image_that_was_replaced_within_the_batch_leaves_no_staged_file(world: World) -> None:
    world.run([created(1, "a", 0), created(2, "a", 1, extension="png")])
    assert debris_of(world.layout) == []
    assert set(tree_of(world.layout)) == {"data-seed/images/a.png", "data-seed/labels/a.txt"}


def test_a_valid_name_of_a_bulk_message_is_applied_beside_a_bad_one(world: World) -> None:
    world.run([created(1, "a"), bulk(2, Status.VALIDATED, ["a", "../b", 7])])
    assert world.ledger.counts()[Home.VALIDATED] == 1
    assert (world.layout.quarantine / "2.amqp").exists()


def test_validated_then_edited_by_an_operator_then_a_crash_before_the_tree_was_placed(world: World) -> None:
    """Moving "the seed label" again would validate what nobody has validated."""
    world.run([created(1)])
    world.sync()
    world.writer.commit(world.stage([bulk(2, Status.VALIDATED, ["a"]), edited(3, detections=boxes(2))]), CLASSES)
    world.crash_and_recover()
    assert tree_of(world.layout) == {
        "data/images/a.jpg": picture(0),
        "data/labels/a.txt": BOX.encode(),
        "data-seed/labels/a.txt": NEW.encode(),
    }


def test_validated_placed_then_edited_and_placed_then_a_crash_before_the_sync(world: World) -> None:
    world.run([created(1)])
    world.run([bulk(2, Status.VALIDATED, ["a"])])
    world.run([edited(3, detections=boxes(2))])
    before = tree_of(world.layout)
    world.crash_and_recover()
    assert tree_of(world.layout) == before
    assert (world.layout.labels(Home.VALIDATED) / "a.txt").read_text() == BOX


def test_recovery_needs_nothing_but_the_ledger_and_the_staged_files(world: World) -> None:
    """As if no rename of the tree had reached the disk before the power went."""
    world.writer.commit(world.stage([created(1), bulk(2, Status.VALIDATED, ["a"])]), CLASSES)
    assert tree_of(world.layout) == {}
    world.crash_and_recover()
    assert tree_of(world.layout) == {"data/images/a.jpg": picture(0), "data/labels/a.txt": BOX.encode()}
    assert debris_of(world.layout) == []
    assert world.ledger.dirty() == []


def test_recovery_removes_what_was_staged_but_never_committed(world: World) -> None:
    world.stage([created(1)])
    world.crash_and_recover()
    assert debris_of(world.layout) == []
    assert world.ledger.position("s") is None


def test_recovery_counts_what_it_placed_and_flags_what_is_lost(world: World) -> None:
    world.writer.commit(world.stage([created(1, "a"), created(2, "b")]), CLASSES)
    (world.layout.incoming / "1.image").unlink()
    assert world.writer.recover() == (2, ["a"])
    lost = world.ledger.annotations(["a"])["a"]
    assert (lost.image, lost.image_missing) == (None, True)
    assert world.writer.recover() == (0, [])


def test_a_lost_image_changes_what_is_trained_on(world: World) -> None:
    world.run([created(1, role=int(Role.VALIDATOR))])
    world.sync()
    world.layout.image(Home.VALIDATED, "a", "jpg").unlink()
    before = world.ledger.due.changed_since(Mark(1, 0))
    plan = world.writer.commit(world.stage([edited(2)]), CLASSES)
    world.ledger.flag_image_lost(world.writer.place(list(plan.rows.values())))
    assert before == 0
    assert world.ledger.due.changed_since(Mark(1, 0)) == 1


def test_an_image_that_was_lost_can_come_again(world: World) -> None:
    world.run([created(1, role=int(VALIDATOR))])
    world.sync()
    world.layout.image(Home.VALIDATED, "a", "jpg").unlink()
    plan = world.writer.commit(world.stage([edited(2)]), CLASSES)
    world.ledger.flag_image_lost(world.writer.place(list(plan.rows.values())))
    world.run([created(3, number=0, extension="png")])
    assert world.ledger.annotations(["a"])["a"].image == staged(0).sha256
    assert (world.layout.images(Home.VALIDATED) / "a.png").exists()


def test_marks_that_are_newer_than_the_sync_stay(world: World) -> None:
    world.run([created(1, "a")])
    placed_to = world.placed_to
    assert placed_to is not None
    world.run([created(2, "b"), edited(3, "a")])
    world.ledger.clear_dirty(placed_to)
    assert {one.name for one in world.ledger.dirty()} == {"a", "b"}


def test_more_names_than_sqlite_has_variables(world: World) -> None:
    names = [f"n{number}" for number in range(40_000)]
    plan = world.writer.commit(world.stage([bulk(1, Status.VALIDATED, names)]), CLASSES)
    assert len(plan.surprises) == 40_000


def test_a_message_without_a_status_moves_the_position_all_the_same(world: World) -> None:
    world.run([raw(5, [])])
    assert world.next_offset() == 6
