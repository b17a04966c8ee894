"""The split never leaks and never changes its mind."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.dataset.split import Side, assign_sides
from azaion_daemon.sections import SplitSettings

SHARES = SplitSettings()
WANTED = {Side.TRAIN: 70, Side.VALID: 20, Side.TEST: 10}
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


def test_another_key_splits_otherwise() -> None:
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


def miss(images: Mapping[str, int], sides: Mapping[str, Side]) -> float:
    """By how many points the worst side misses its share."""
    total = sum(images.values())
    return max(abs(100 * sum(images[media] for media in images if sides[media] is side) / total - share) for side, share in WANTED.items())


def least_miss(images: Mapping[str, int]) -> float:
    """The same of the best split that there is, found by trying all."""
    return min(miss(images, dict(zip(images, sides, strict=True))) for sides in itertools.product(Side, repeat=len(images)))


UNEQUAL: dict[str, Callable[[random.Random, int], int]] = {
    "uniform": lambda numbers, _: numbers.randint(1, 500),
    "log-normal": lambda numbers, _: max(1, int(numbers.lognormvariate(4, 1.5))),
    "Pareto": lambda numbers, _: max(1, int(20 * numbers.paretovariate(1))),
    "geometric": lambda _, index: max(1, int(5000 * 0.7**index)),
    "a few giants": lambda numbers, index: numbers.randint(2000, 4000) if index < 3 else numbers.randint(1, 60),
}


def media_of(shape: str, count: int, seed: int) -> dict[str, int]:
    numbers = random.Random(f"{shape} {count} {seed}")
    return {f"{seed}-{index}": UNEQUAL[shape](numbers, index) for index in range(count)}


@pytest.mark.parametrize("shape", UNEQUAL)
@pytest.mark.parametrize("count", [20, 50, 300, 3000])
def test_media_of_very_unequal_sizes_come_within_two_points_or_do_not_allow_it(shape: str, count: int) -> None:
    for seed in range(10):
        images = media_of(shape, count, seed)
        # One that is larger than the smallest side may be cannot always be placed; where it can, see the test below.
        if max(images.values()) <= 0.12 * sum(images.values()) or shape == "geometric":
            assert miss(images, assign_sides(images, {}, SHARES, key="k")) <= 2, (shape, count, seed)


@pytest.mark.parametrize("shape", UNEQUAL)
def test_a_few_media_are_divided_as_well_as_they_can_be(shape: str) -> None:
    for seed in range(6):
        images = media_of(shape, 7, seed)
        best = least_miss(images)
        assert miss(images, assign_sides(images, {}, SHARES, key="k")) <= max(2, best + 1), (shape, seed)


def test_no_side_stays_empty_while_there_are_media_for_it() -> None:
    assert set(assign_sides({"a": 98, "b": 1, "c": 1}, {}, SHARES, key="k").values()) == set(Side)
    assert set(assign_sides({"a": 9998, "b": 1, "c": 1}, {}, SHARES, key="k").values()) == set(Side)
    assert assign_sides({"a": 98, "b": 1, "c": 1}, {"a": Side.TEST, "b": Side.TRAIN}, SHARES, key="k") == {"c": Side.VALID}


def test_long_and_short_media_stand_on_every_side() -> None:
    """Else a model would be judged on short videos alone."""
    images = media_of("log-normal", 2000, 1)
    sides = assign_sides(images, {}, SHARES, key="k")
    middle = sorted(images.values())[1000]
    for side in Side:
        sizes = [images[media] for media in images if sides[media] is side]
        assert 0.4 < sum(size > middle for size in sizes) / len(sizes) < 0.6


@given(st.lists(MEDIA, max_size=6))
def test_a_growing_ledger_never_moves_a_media(growth: list[dict[str, int]]) -> None:
    images: Counter[str] = Counter()
    recorded: dict[str, Side] = {}
    for more in growth:
        images.update(more)  # new media, and more images of those that are there
        new = assign_sides(images, recorded, SHARES, key="k")
        assert set(new) == images.keys() - recorded.keys()
        recorded |= new


def test_a_growing_ledger_stays_within_two_points() -> None:
    images: dict[str, int] = {}
    recorded: dict[str, Side] = {}
    for seed in range(12):
        images |= media_of("log-normal", 40, seed)
        recorded |= assign_sides(images, recorded, SHARES, key="k")
        assert miss(images, recorded) <= 2, seed


def test_a_great_many_media_take_no_time() -> None:
    images = media_of("Pareto", 50_000, 0) | {f"large {index}": 30_000 for index in range(99)}
    started = time.monotonic()
    assign_sides(images, {}, SHARES, key="k")
    assert time.monotonic() - started < 5
