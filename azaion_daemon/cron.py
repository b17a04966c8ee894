"""Cron expressions in a time zone: every time that the expression names comes exactly once, whatever the clocks do.

The expression is read over the wall clock of its zone, which knows no gaps, and each time is then given its instant: the first of two
where clocks are set back, the end of the gap where they are set forward. (Cron itself repeats `*/30 1 * * *` when clocks are set back.)
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = 5
_SHOWN = 60
_SOME_TIME = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall clock's
_A_MINUTE = timedelta(minutes=1)


def check_expression(expression: str) -> None:
    """Raise ValueError, with a sentence, unless it is an expression of five fields that names a time."""
    if len(expression.split()) != _FIELDS:
        raise ValueError("must be five fields: minute, hour, day of month, month, day of week; such as 0 2 * * MON-FRI")
    try:
        first = next(CronSim(expression, _SOME_TIME), None)
    except (CronSimError, ValueError, AssertionError) as error:  # a number of thousands of digits; L has no steps
        raise ValueError(f"must be a cron expression: {str(error).lower()[:_SHOWN] or 'bad step'}") from None
    if first is None:
        raise ValueError("must name a time that comes")


@cache
def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name, from the system or from the package tzdata; ValueError when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found; no name at all; a directory of zones
        raise ValueError("must be a time zone's IANA name, such as UTC or Europe/Berlin") from None


def next_time(expression: str, zone_name: str, after: float) -> float:
    """The first instant of the expression that is later than `after`; both in seconds since the epoch."""
    tz = zone(zone_name)
    wall = datetime.fromtimestamp(after, UTC).astimezone(tz).replace(tzinfo=None)
    times = CronSim(expression, wall)
    while (found := _instant(next(times), tz)) <= after:  # the clocks were set back since: this one has been
        pass
    return found


def _instant(wall: datetime, tz: ZoneInfo) -> float:
    while True:
        instant = wall.replace(tzinfo=tz, fold=0).astimezone(UTC)
        if instant.astimezone(tz).replace(tzinfo=None) == wall:
            return instant.timestamp()
        wall += _A_MINUTE  # clocks were set forward over it
