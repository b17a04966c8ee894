"""Schedules: every time that an expression names comes exactly once, whatever the clocks do."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.cron import check_expression, next_time, zone


def at(text: str, zone_name: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone_name), fold=fold).timestamp()


def times(expression: str, zone_name: str, begin: float, end: float) -> list[str]:
    """What comes in between, as UTC."""
    found = []
    while (begin := next_time(expression, zone_name, begin)) <= end:
        found.append(f"{datetime.fromtimestamp(begin, UTC):%m-%d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("expression", "days", "expected"),
    [
        # Berlin leaps from 02:00 to 03:00 on 29 March 2026, which is 01:00 UTC ...
        ("30 2 * * *", ("2026-03-28", "2026-03-31"), ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("*/20 2 29 3 *", ("2026-03-28", "2026-03-31"), ["03-29 01:00"]),
        ("0 1-4 29 3 *", ("2026-03-28", "2026-03-31"), ["03-29 00:00", "03-29 01:00", "03-29 02:00"]),
        # ... and goes back from 03:00 to 02:00 on 25 October, at the same hour.
        ("30 2 * * *", ("2026-10-24", "2026-10-27"), ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
        ("*/20 2 25 10 *", ("2026-10-24", "2026-10-27"), ["10-25 00:00", "10-25 00:20", "10-25 00:40"]),
        ("0 1-4 25 10 *", ("2026-10-24", "2026-10-27"), ["10-24 23:00", "10-25 00:00", "10-25 02:00", "10-25 03:00"]),
    ],
)
def test_a_time_that_does_not_exist_or_happens_twice_comes_once(expression: str, days: tuple[str, str], expected: list[str]) -> None:
    begin, end = (at(day, "Europe/Berlin") for day in days)
    assert times(expression, "Europe/Berlin", begin, end) == expected


def test_asked_between_the_two_a_time_that_happens_twice_has_been() -> None:
    second = at("2026-10-25 02:10", "Europe/Berlin", fold=1)
    assert next_time("30 2 * * *", "Europe/Berlin", second) == at("2026-10-26 02:30", "Europe/Berlin")


def test_a_day_that_a_zone_has_left_out_is_made_up_for_at_its_end() -> None:
    assert times("0 12 * * *", "Pacific/Apia", at("2011-12-29", "Pacific/Apia"), at("2012-01-01", "Pacific/Apia")) == [
        "12-29 22:00", "12-30 10:00", "12-30 22:00",
    ]  # fmt: skip


ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu", "America/St_Johns")


@given(
    st.sampled_from(ZONES),
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 */3 * * *", "5 1-3 * * SUN", "0 0 L * *", "*/30 2 * * *"]),
    st.floats(at("2026-01-01"), at("2028-01-01")),
)
def test_the_next_time_is_later_and_nothing_lies_between(zone_name: str, expression: str, after: float) -> None:
    found = next_time(expression, zone_name, after)
    assert found > after
    assert next_time(expression, zone_name, (after + found) / 2) == found
    assert next_time(expression, zone_name, found) > found


@given(
    st.sampled_from(ZONES),
    st.dates(date(2026, 1, 2), date(2027, 12, 30)),
    st.integers(0, 1439),
)
def test_a_daily_time_comes_once_between_two_midnights(zone_name: str, day: date, minute: int) -> None:
    begin = datetime.fromisoformat(str(day)).replace(tzinfo=ZoneInfo(zone_name))
    end = (begin.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone_name))
    expression = f"{minute % 60} {minute // 60} * * *"
    just_before = timedelta(microseconds=1)
    assert len(times(expression, zone_name, (begin - just_before).timestamp(), (end - just_before).timestamp())) == 1


def test_times_are_in_order_over_a_whole_year() -> None:
    for zone_name in ZONES:
        begin = at("2026-01-01")
        found = [begin := next_time("15 */2 * * *", zone_name, begin) for _ in range(4400)]
        assert all(0 < later - earlier <= 3 * 3600 for earlier, later in pairwise(found))


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "five fields"), ("0 2 * *", "five fields"), ("0 0 2 * * *", "five fields"), ("@daily", "five fields"),
        ("x * * * *", "bad minute"), ("60 * * * *", "bad minute"), ("0 24 * * *", "bad hour"), ("0 0 30 2 *", "bad day-of-month"),
        ("*/0 * * * *", "bad minute"), ("0 0 * * FRO", "bad day-of-week"), (f"{'9' * 5000} * * * *", "must be a cron expression"),
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_expression(expression)


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "Europe", "../etc/passwd", "/etc/localtime", "a\0b"])
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="IANA name"):
        zone(name)
