"""What is kept together, and that no side is ever given up, whatever the split was made by before."""

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.entries import Reason
from azaion_daemon.dataset.plan import DatasetPlan, plan_dataset
from azaion_daemon.dataset.split import Side
from azaion_daemon.dataset.units import find_units
from azaion_daemon.store.layout import Home
from azaion_daemon.store.records import UNKNOWN_MEDIA, Annotation
from tests.unit.builders import SMALL, row

CLASSES = Classes(tuple(f"c{number}" for number in range(80)), frozenset(range(5)))
TRAIN, VALID, TEST = Side


def frame(name: str, media: str = "v", **others: Any) -> Annotation:
    return row(Home.VALIDATED, name=name, media=media, **others)


def plan(rows: list[Annotation], sides: dict[str, Side], by: Literal["media", "name"]) -> DatasetPlan:
    return plan_dataset(rows, sides, CLASSES, SMALL.model_copy(update={"split_by": by}), key="k")


def sides_of(made: DatasetPlan) -> dict[str, Side]:
    return {entry.annotation.name: entry.side for entry in made.entries}


def test_from_media_to_name_what_has_a_side_keeps_it_and_so_do_later_frames_of_it() -> None:
    made = plan([frame("a"), frame("b"), frame("c", "w")], {"media:v": TEST}, "name")
    assert (sides_of(made)["a"], sides_of(made)["b"]) == (TEST, TEST)
    assert set(made.new_sides) == {"name:c"}


def test_from_name_to_media_a_media_that_stands_on_one_side_gets_it_whole() -> None:
    made = plan([frame("a"), frame("b"), frame("new")], {"name:a": VALID, "name:b": VALID}, "media")
    assert sides_of(made) == {"a": VALID, "b": VALID, "new": VALID}
    assert made.new_sides == {"media:v": VALID}


def test_from_name_to_media_what_is_new_of_a_divided_media_goes_to_train() -> None:
    made = plan([frame("a"), frame("b"), frame("new")], {"name:a": VALID, "name:b": TEST}, "media")
    assert sides_of(made) == {"a": VALID, "b": TEST, "new": TRAIN}
    assert made.new_sides == {"name:new": TRAIN}
    assert made.counts.torn_media == 1


def test_an_annotation_whose_media_became_known_too_late_stands_nowhere() -> None:
    """On its own side it would leak into its media's, and there a model has seen it."""
    made = plan([frame("late"), frame("b")], {"name:late": TRAIN, "media:v": VALID}, "media")
    assert made.excluded["late"].reason is Reason.SIDE_CONFLICT
    assert sides_of(made) == {"b": VALID}
    agreed = plan([frame("late"), frame("b")], {"name:late": VALID, "media:v": VALID}, "media")
    assert sides_of(agreed) == {"late": VALID, "b": VALID}


def test_what_is_left_out_still_says_where_its_media_stands() -> None:
    made = plan([frame("a", image=None), frame("new")], {"name:a": TEST}, "media")
    assert sides_of(made) == {"new": TEST}


def test_a_side_is_told_only_of_what_is_in_the_dataset() -> None:
    made = plan([frame("a", "w"), frame("new", image=None)], {"name:a": TEST}, "media")
    assert made.new_sides == {}
    assert find_units([frame("new")], {}, "media").sides == {}


NAMES = st.text("abcdefgh", min_size=1, max_size=2)
GROWTH = st.lists(
    st.tuples(st.dictionaries(NAMES, st.sampled_from("uvwxyz")), st.sets(NAMES, max_size=3), st.sampled_from(["media", "name"])), max_size=8
)


@given(GROWTH)
@settings(deadline=None)
def test_nothing_ever_changes_its_side_over_a_growing_ledger(
    growth: list[tuple[dict[str, str], set[str], Literal["media", "name"]]],
) -> None:
    """Annotations come and go, and what the split is made by changes again and again."""
    rows: dict[str, Annotation] = {}
    media_of: dict[str, str] = {}
    recorded: dict[str, Side] = {}
    ever: dict[str, Side] = {}
    for added, gone, by in growth:
        for name, media in added.items():
            rows[name] = frame(name, media_of.setdefault(name, media))  # deleted and back is still of the same media
        for name in gone:
            rows.pop(name, None)
        made = plan([*rows.values()], recorded, by)
        assert not made.new_sides.keys() & recorded.keys()
        recorded |= made.new_sides
        for name, side in sides_of(made).items():
            assert ever.setdefault(name, side) is side


@given(st.lists(st.tuples(st.dictionaries(NAMES, st.sampled_from("uvwxyz")), st.sets(NAMES, max_size=3)), max_size=8))
@settings(deadline=None)
def test_by_media_no_media_ever_stands_on_two_sides(growth: list[tuple[dict[str, str], set[str]]]) -> None:
    rows: dict[str, Annotation] = {}
    recorded: dict[str, Side] = {}
    ever: dict[str, Side] = {}
    for added, gone in growth:
        rows |= {f"{media}-{name}": frame(f"{media}-{name}", media) for name, media in added.items()}
        for name in [name for name in rows if name[2:] in gone]:
            del rows[name]
        made = plan([*rows.values()], recorded, "media")
        recorded |= made.new_sides
        for entry in made.entries:
            assert ever.setdefault(entry.annotation.media, entry.side) is entry.side
        assert made.counts.torn_media == 0


@pytest.mark.parametrize("by", ["media", "name"])
def test_what_lost_its_media_goes_to_train_for_it_may_be_a_frame_of_what_is_there(by: Literal["media", "name"]) -> None:
    lost = [frame(f"lost{number}", UNKNOWN_MEDIA) for number in range(40)]
    made = plan([frame("a"), frame("b", "w"), frame("c", "x"), *lost], {"media:v": TRAIN, "media:w": VALID, "media:x": TEST}, by)
    assert {side for name, side in sides_of(made).items() if name.startswith("lost")} == {TRAIN}
    assert made.new_sides == {f"name:lost{number}": TRAIN for number in range(40)}
    again = plan(
        [frame("lost0", "w"), frame("lost1", "v"), frame("lost2", "y"), frame("new", "y")], {**made.new_sides, "media:w": VALID}, by
    )
    assert again.excluded["lost0"].reason is Reason.SIDE_CONFLICT  # its media became known, and was judged upon
    assert sides_of(again)["lost1"] is TRAIN


def test_what_never_had_a_media_is_divided() -> None:
    made = plan([frame(f"{number}", "") for number in range(100)], {"media:v": TRAIN}, "media")
    assert set(sides_of(made).values()) == set(Side)
