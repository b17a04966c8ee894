"""Applying a quarantined message out of its order."""

from azaion_daemon.ingest.replay import replay
from azaion_daemon.ingest.rules import StagedImage
from azaion_daemon.store.layout import Home
from azaion_daemon.store.records import NO_LABEL, Annotation
from azaion_daemon.stream.events import AnnotationEvent, BulkEvent, Status

IMAGE = StagedImage("5.image", "ab" * 32, 10, 10)
OLD, NEW = "0 0.5 0.5 0.1 0.1\n", "0 0.4 0.4 0.1 0.1\n"
CREATED = AnnotationEvent(5, b"d" * 32, Status.CREATED, "a", NEW, "jpg", None, 10, "", "", None, None, None)
SEEN_SINCE = Annotation("a", Home.VALIDATED, "", OLD, position=8, validated_position=8, image_missing=True)


def outcome(
    event: AnnotationEvent | BulkEvent,
    row: Annotation | None,
    *,
    image: StagedImage | None = None,
    as_new: bool = False,
    passed_over: dict[str, str] | None = None,
) -> object:
    rows = {} if row is None else {row.name: row}
    done = replay(event, image, rows, passed_over=passed_over or {}, position=20, as_new=as_new, known_classes={0}, now=1.0)
    return done.rows.get("a") or done.refused["a"]


def test_what_nothing_has_come_after_is_applied_as_of_now() -> None:
    row = outcome(CREATED, None, image=IMAGE)
    assert isinstance(row, Annotation)
    assert (row.home, row.label, row.position, row.dirty) == (Home.SEED, NEW, 20, 20)


def test_what_was_deleted_while_it_was_unknown_is_not_brought_to_life() -> None:
    why = outcome(CREATED, None, image=IMAGE, passed_over={"a": "deleted, but it is unknown"})
    assert why == "since then it was deleted, but it is unknown; replay it as new if this message is right"


def test_an_older_message_is_refused_with_the_position_of_what_came_after() -> None:
    why = outcome(CREATED, SEEN_SINCE._replace(image="cd" * 32), image=IMAGE)
    assert "it has changed since, at 8" in str(why)


def test_an_older_message_may_supply_a_missing_image_and_nothing_else() -> None:
    row = outcome(CREATED, SEEN_SINCE, image=IMAGE)
    assert isinstance(row, Annotation)
    assert (row.label, row.home, row.image, row.staged, row.extension) == (OLD, Home.VALIDATED, IMAGE.sha256, "5.image", "jpg")
    assert (row.image_missing, row.validated_position, row.dirty) == (False, 20, 20)


def test_an_older_message_may_supply_a_missing_label() -> None:
    lacking = SEEN_SINCE._replace(image="cd" * 32, image_missing=False, label="", label_problem=NO_LABEL)
    row = outcome(CREATED, lacking, image=IMAGE)
    assert isinstance(row, Annotation)
    assert (row.label, row.label_problem, row.image, row.validated_position, row.dirty) == (NEW, None, "cd" * 32, 20, 20)


def test_an_older_message_may_supply_both() -> None:
    row = outcome(CREATED, SEEN_SINCE._replace(label="", label_problem=NO_LABEL), image=IMAGE)
    assert isinstance(row, Annotation)
    assert (row.label, row.label_problem, row.image) == (NEW, None, IMAGE.sha256)


def test_as_new_it_is_applied_whatever_came_after() -> None:
    row = outcome(BulkEvent(5, b"d" * 32, Status.DELETED, ("a",), ""), SEEN_SINCE, as_new=True)
    assert isinstance(row, Annotation)
    assert (row.home, row.position) == (Home.DELETED, 20)


def test_an_older_bulk_message_is_refused() -> None:
    assert "replay it as new" in str(outcome(BulkEvent(5, b"d" * 32, Status.VALIDATED, ("a",), ""), SEEN_SINCE))


def test_what_the_rules_ignore_is_said() -> None:
    assert outcome(BulkEvent(5, b"d" * 32, Status.VALIDATED, ("a",), ""), None) == "validated, but it is unknown"
