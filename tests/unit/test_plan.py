"""What a dataset would hold: sides by media, exclusions with reasons, problems before anything is made."""

from typing import Any

import pytest

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.plan import DatasetPlan, plan_dataset
from azaion_daemon.dataset.split import Side
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.store.layout import Home
from azaion_daemon.store.records import Annotation
from tests.unit.builders import BOX, row

CLASSES = Classes(tuple(f"c{number}" for number in range(80)), frozenset(range(5)))


def validated(name: str, media: str = "", **others: Any) -> Annotation:
    return row(Home.VALIDATED, name=name, media=media, **others)


def plan(*rows: Annotation, split_by: str = "media", sides: dict[str, Side] | None = None) -> DatasetPlan:
    return plan_dataset(rows, sides or {}, CLASSES, DatasetSettings.model_validate({"split_by": split_by}), key="k")


def test_frames_of_one_video_stay_together() -> None:
    rows = [validated(f"v{video}-{frame}", f"video{video}.mp4") for video in range(20) for frame in range(10)]
    by_media: dict[str, set[Side]] = {}
    for entry in plan(*rows).entries:
        by_media.setdefault(entry.annotation.media, set()).add(entry.side)
    assert all(len(sides) == 1 for sides in by_media.values())
    assert len(by_media) == 20


def test_an_annotation_of_unknown_media_stands_for_itself() -> None:
    assert set(plan(validated("a"), validated("b")).new_sides) == {"name:a", "name:b"}


def test_a_name_is_never_taken_for_a_media() -> None:
    assert set(plan(validated("a"), validated("b", "a")).new_sides) == {"name:a", "media:a"}


def test_by_name_each_image_stands_for_itself() -> None:
    assert set(plan(validated("a", "v"), validated("b", "v"), split_by="name").new_sides) == {"name:a", "name:b"}


def test_recorded_sides_stay_and_only_new_ones_are_told() -> None:
    made = plan(validated("a", "v"), validated("b", "w"), sides={"media:v": Side.TEST})
    assert set(made.new_sides) == {"media:w"}
    assert {entry.annotation.name: entry.side for entry in made.entries}["a"] is Side.TEST


@pytest.mark.parametrize(
    ("others", "word"),
    [
        ({"image": None, "image_missing": True}, "image is missing"),
        ({"image_conflict": True}, "another image"),
        ({"label": "77 0.5 0.5 0.1 0.1\n"}, "unknown class 77"),
        ({"label": "1 nan 0.5 0.1 0.1\n"}, "not finite"),
        ({"label": "1 1.5 0.5 0.1 0.1\n"}, "outside 0..1"),
        ({"label": "garbage\n"}, "line 1"),
    ],
)
def test_what_cannot_be_trained_on_is_left_out_with_its_reason(others: dict[str, Any], word: str) -> None:
    made = plan(validated("a", **others), validated("b"))
    assert [entry.annotation.name for entry in made.entries] == ["b"]
    assert word in made.excluded["a"].detail


def test_a_conflict_of_a_pending_revision_does_not_concern_the_label_that_is_trained_on() -> None:
    assert plan(validated("a", image_conflict=True, pending=BOX)).excluded == {}


def test_a_label_is_judged_by_todays_classes_and_not_by_its_flag() -> None:
    assert plan(validated("a", label_problem="detection 1 has the unknown class 1")).excluded == {}


def test_an_image_without_objects_is_a_background_sample() -> None:
    made = plan(validated("a", label=""))
    assert (made.excluded, sum(made.counts.images.values()), sum(made.counts.objects.values())) == ({}, 1, 0)


def test_the_order_of_rows_does_not_matter() -> None:
    rows = [validated(name, name) for name in "badce"]
    assert plan(*rows) == plan(*sorted(rows, key=lambda one: one.name))


def test_sides_are_counted_in_images_and_objects() -> None:
    rows = [validated(f"{number:02}", label=BOX * 2) for number in range(10)]
    made = plan(*rows)
    assert made.counts.images == {Side.TRAIN: 7, Side.VALID: 2, Side.TEST: 1}
    assert made.counts.objects == {Side.TRAIN: 14, Side.VALID: 4, Side.TEST: 2}
