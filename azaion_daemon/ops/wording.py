"""Numbers as people read them."""

from datetime import datetime, timedelta

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_UNITS = ((_DAY, "day", "days"), (_HOUR, "h", "h"), (_MINUTE, "min", "min"), (1, "s", "s"))
_PLAIN_DAYS = 6
_KILO = 1000.0


def duration(seconds: float) -> str:
    """A duration in its two largest units: `2 days 3 h`, `4 min 10 s`, `8 s`."""
    left, words = max(0, round(seconds)), []
    for size, one, several in _UNITS:
        count, rest = divmod(left, size)
        if count:
            words.append(f"{count} {one if count == 1 else several}")
            left = rest
        if words and (len(words) == 2 or not count):  # noqa: PLR2004 - two units
            break
    return " ".join(words) or "0 s"


def about(seconds: float) -> str:
    """A duration in its largest fitting unit, rounded: `2 days`, `3 h`, `40 s`."""
    for size, _, several in _UNITS:
        if seconds >= 1.5 * size or size == 1:
            return f"{max(0, round(seconds / size))} {several}"
    raise AssertionError


def moment(at: datetime, now: datetime) -> str:
    """A time of day, with the day where it is not today's: `14:00`, `Thu 14:00`, `Thu 3 Dec 14:00`. Both in the reader's time zone."""
    clock = f"{at:%H:%M}"
    if at.date() == now.date():
        return clock
    if abs(at - now) < timedelta(days=_PLAIN_DAYS):
        return f"{at:%a} {clock}"
    return f"{at:%a} {at.day} {at:%b} {clock}"


def ahead(seconds: float, now: datetime) -> str:
    """When something will be: `in about 2 days, Thu 14:00`."""
    try:
        at = now + timedelta(seconds=seconds)
    except OverflowError:
        return f"in about {about(seconds)}"
    return f"in about {about(seconds)}, {moment(at, now)}"


def since(text: str, now: datetime) -> str:
    """When something was, from its ISO form: `2 days 3 h ago, Sun 14:02`; the text itself where it is no time."""
    try:
        at = datetime.fromisoformat(text).astimezone(now.tzinfo)
    except ValueError:
        return text
    return f"{duration((now - at).total_seconds())} ago, {moment(at, now)}"


def size(count: float) -> str:
    """Bytes, in units of 1,000: `41.2 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < _KILO or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.{1 if count < 100 else 0}f} {unit}"  # noqa: PLR2004 - three digits
        count /= _KILO
    raise AssertionError


def bar(share: float, width: int) -> str:
    """A bar of so many characters, filled to a share of 0..1."""
    done = round(min(max(share, 0.0), 1.0) * width)
    return "█" * done + "░" * (width - done)
