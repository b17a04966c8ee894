"""How much there is in a dataset: by side, class and mode, and what was left out."""

from azaion_daemon.dataset.classes import Classes, Mode
from azaion_daemon.dataset.counts import Tally, count, counts_document
from azaion_daemon.dataset.entries import Entry, Exclusion, Reason
from azaion_daemon.dataset.split import Side
from azaion_daemon.store.layout import Home
from tests.unit.builders import row

NAMES = tuple(f"c{number}" for number in range(80))
CLASSES = Classes(NAMES, frozenset({0, 1, 20, 21, 40, 41}))
TRAIN, VALID, TEST = Side


def entry(name: str, side: Side, *class_ids: int, media: str = "media:v") -> Entry:
    return Entry(row(Home.VALIDATED, name=name), media, side, class_ids)


ENTRIES = [
    entry("a", TRAIN, 0, 0, 20),
    entry("b", TRAIN, 0),
    entry("c", TRAIN, media="media:w"),
    entry("d", VALID, 41, media="media:x"),
]


def test_images_objects_backgrounds_and_media_are_counted_by_side() -> None:
    found = count(ENTRIES, [], CLASSES)
    assert found.images == {TRAIN: 3, VALID: 1, TEST: 0}
    assert found.objects == {TRAIN: 4, VALID: 1, TEST: 0}
    assert found.backgrounds == {TRAIN: 1, VALID: 0, TEST: 0}
    assert found.media == {TRAIN: 2, VALID: 1, TEST: 0}
    assert found.shares() == {TRAIN: 75, VALID: 25, TEST: 0}


def test_every_class_is_counted_in_images_and_objects_also_one_without_any() -> None:
    found = count(ENTRIES, [], CLASSES).classes
    assert set(found) == CLASSES.known
    assert found[0] == Tally({TRAIN: 2, VALID: 0, TEST: 0}, {TRAIN: 3, VALID: 0, TEST: 0})
    assert found[1] == Tally(dict.fromkeys(Side, 0), dict.fromkeys(Side, 0))


def test_an_image_counts_in_every_mode_that_it_has_an_object_of() -> None:
    found = count(ENTRIES, [], CLASSES).modes
    assert found[Mode.NORM] == Tally({TRAIN: 2, VALID: 0, TEST: 0}, {TRAIN: 3, VALID: 0, TEST: 0})
    assert found[Mode.WINT] == Tally({TRAIN: 1, VALID: 0, TEST: 0}, {TRAIN: 1, VALID: 0, TEST: 0})
    assert found[Mode.NIGHT] == Tally({TRAIN: 0, VALID: 1, TEST: 0}, {TRAIN: 0, VALID: 1, TEST: 0})


def test_what_is_left_out_is_counted_by_reason_and_by_the_id_that_no_class_has() -> None:
    unknown = [Exclusion(Reason.UNKNOWN_CLASS, f"detection {number} has the unknown class 77", 77) for number in (1, 2)]
    found = count([], [*unknown, Exclusion(Reason.NO_LABEL, "no label: the tree has none")], CLASSES)
    assert found.excluded == {Reason.UNKNOWN_CLASS: 2, Reason.NO_LABEL: 1}
    assert found.unknown_classes == {77: 2}
    assert found.shares() == dict.fromkeys(Side, 0)


def test_the_document_is_plain_data_with_names_of_classes() -> None:
    document = counts_document(count(ENTRIES, [Exclusion(Reason.UNKNOWN_CLASS, "x", 77)], CLASSES), CLASSES)
    assert document["classes"][0] == {
        "id": 0,
        "name": "c0",
        "images": {"train": 2, "valid": 0, "test": 0},
        "objects": {"train": 3, "valid": 0, "test": 0},
    }
    assert document["modes"]["Night"]["images"] == {"train": 0, "valid": 1, "test": 0}
    assert (document["excluded"], document["unknown_classes"]) == ({"unknown_class": 1}, {"77": 1})
    assert document["shares"] == {"train": 75.0, "valid": 25.0, "test": 0.0}
