"""What repeats is said ever more rarely, and nothing new hides behind it."""

import itertools

import pytest

from azaion_daemon.logs.folding import AGAIN_S, FORGOTTEN_S, Repeat, Repeats, is_told


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def said(repeats: Repeats, *key: str) -> int | None:
    seen = repeats.count(*key)
    return None if seen is None else seen.times


def test_the_same_reason_again_is_said_ever_more_rarely(clock: Clock) -> None:
    repeats = Repeats(clock)
    assert [said(repeats, "away") for _ in range(9)] == [1, 2, None, 4, None, None, None, 8, None]


def test_another_reason_is_said_at_once(clock: Clock) -> None:
    repeats = Repeats(clock)
    for _ in range(100):
        repeats.count("call", "away")
    assert said(repeats, "call", "refused") == 1
    assert said(repeats, "another call", "away") == 1


def test_it_says_for_how_long(clock: Clock) -> None:
    repeats = Repeats(clock)
    repeats.count("away")
    clock.now += 12.34
    assert repeats.count("away") == Repeat(2, 12.3)


def test_what_goes_on_is_said_once_an_hour(clock: Clock) -> None:
    repeats = Repeats(clock)
    told = []
    for minute in range(24 * 60):
        if repeats.count("away"):
            told.append(minute)
        clock.now += 60
    assert told[:7] == [0, 1, 3, 7, 15, 31, 63]
    assert all(later - earlier <= 65 for earlier, later in itertools.pairwise(told))
    assert len(told) < 40


def test_what_was_over_for_long_begins_anew(clock: Clock) -> None:
    repeats = Repeats(clock)
    for _ in range(5):
        repeats.count("away")
    clock.now += FORGOTTEN_S
    assert repeats.count("away") == Repeat(1, 0.0)


def test_a_success_begins_anew_with_what_it_is_about(clock: Clock) -> None:
    repeats = Repeats(clock)
    for key in (("GET", "away"), ("GET", "busy"), ("PUT", "away")):
        repeats.count(*key)
        repeats.count(*key)
    repeats.clear("GET")
    assert [said(repeats, *key) for key in (("GET", "away"), ("GET", "busy"), ("PUT", "away"))] == [1, 1, None]
    repeats.clear()
    assert said(repeats, "PUT", "away") == 1


def test_many_at_once_are_said_when_they_have_doubled(clock: Clock) -> None:
    repeats = Repeats(clock)
    counts = [repeats.count("bad", times=times) for times in (200, 100, 100, 100, 1000)]
    assert [seen and seen.times for seen in counts] == [200, None, 400, None, 1500]


def test_ever_new_reasons_take_no_memory_for_ever(clock: Clock) -> None:
    repeats = Repeats(clock)
    for number in range(5000):
        repeats.count(number)
    assert len(repeats._seen) == 1000
    assert repeats.count(4999) == Repeat(2, 0.0)


@pytest.mark.parametrize(
    ("times", "told_times", "since_told_s", "told"),
    [(1, 0, 0, True), (2, 1, 0, True), (3, 2, 0, False), (3, 2, AGAIN_S, True), (10, 4, 1, True), (7, 4, AGAIN_S - 1, False)],
)
def test_when_it_is_told(times: int, told_times: int, since_told_s: float, told: bool) -> None:  # noqa: FBT001
    assert is_told(times, told_times, since_told_s) is told
