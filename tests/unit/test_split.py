"""The split never leaks and never changes its mind."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.dataset.split import Side, assign_sides
from azaion_daemon.settings import SplitSettings

SHARES = SplitSettings()
MEDIA = st.dictionaries(st.text(max_size=6), st.integers(1, 40), max_size=40)


def shares(images: dict[str, int], sides: dict[str, Side]) -> dict[Side, float]:
    total = sum(images.values())
    return {side: 100 * sum(images[media] for media in images if sides[media] is side) / total for side in Side}


def test_many_media_come_close_to_their_shares() -> None:
    images = {f"v{number}": random.Random(number).randint(1, 50) for number in range(500)}
    found = shares(images, assign_sides(images, {}, SHARES, key="k"))
    assert found == pytest.approx({Side.TRAIN: 70, Side.VALID: 20, Side.TEST: 10}, abs=0.5)


def test_ten_media_of_one_size_reach_their_shares() -> None:
    sides = list(assign_sides({f"v{number}": 10 for number in range(10)}, {}, SHARES, key="k").values())
    assert [sides.count(side) for side in Side] == [7, 2, 1]


@given(MEDIA, MEDIA)
def test_a_side_once_given_is_never_given_again(first: dict[str, int], more: dict[str, int]) -> None:
    known = assign_sides(first, {}, SHARES, key="k")
    new = assign_sides({**first, **more}, known, SHARES, key="k")
    assert set(new) == set(more) - set(first)


@given(MEDIA, st.randoms())
def test_the_outcome_depends_on_nothing_but_the_arguments(images: dict[str, int], order: random.Random) -> None:
    shuffled = list(images.items())
    order.shuffle(shuffled)
    assert assign_sides(dict(shuffled), {}, SHARES, key="k") == assign_sides(images, {}, SHARES, key="k")


def test_another_root_splits_otherwise() -> None:
    images = {f"v{number}": 1 for number in range(50)}
    assert assign_sides(images, {}, SHARES, key="k") != assign_sides(images, {}, SHARES, key="l")


def test_new_media_go_where_most_is_missing() -> None:
    sides = {"old": Side.TRAIN}
    assert assign_sides({"old": 70, "new": 20}, sides, SHARES, key="k") == {"new": Side.VALID}


def test_media_that_have_no_images_any_more_do_not_count() -> None:
    sides = {"gone": Side.TRAIN}
    assert assign_sides({"new": 5}, sides, SHARES, key="k") == {"new": Side.TRAIN}


@given(MEDIA)
def test_no_side_is_far_beyond_its_share_but_for_one_media(images: dict[str, int]) -> None:
    sides = assign_sides(images, {}, SHARES, key="k")
    total, largest = sum(images.values()), max(images.values(), default=0)
    for side, share in ((Side.TRAIN, 70), (Side.VALID, 20), (Side.TEST, 10)):
        assert sum(images[media] for media in images if sides[media] is side) <= share * total / 100 + largest
