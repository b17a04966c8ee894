"""Which of many equal failures to log, so that one that repeats for days does not bury everything else."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

AGAIN_S = 3600.0
"""What goes on is said once an hour, however often it has been said."""
FORGOTTEN_S = 2 * AGAIN_S
"""What was not seen for so long is over: it is told anew when it comes back."""
_MOST_KEYS = 1000


@dataclass(frozen=True, slots=True)
class Repeat:
    """How often something was seen by now, this time included, and for how many seconds it has been so."""

    times: int
    for_s: float


@dataclass(frozen=True, slots=True)
class _Seen:
    times: int
    first: float
    last: float
    told_times: int
    told: float


def is_told(times: int, told_times: int, since_told_s: float) -> bool:
    """Whether to say it: it is new, twice as often as when it was said last (1, 2, 4, 8, ...), or that was long ago."""
    return times >= 2 * told_times or since_told_s >= AGAIN_S


class Repeats:
    """Counts equal failures. What is equal is the caller's: the reason belongs in the key, so that another one is said at once.

    It remembers the thousand keys that were seen last.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[Hashable, ...], _Seen] = OrderedDict()

    def count(self, *key: Hashable, times: int = 1) -> Repeat | None:
        """Count it, so many times at once; what to say of it, or None where nothing is to be said now."""
        now = self._clock()
        seen = self._seen.pop(key, None)
        if seen is None or now - seen.last >= FORGOTTEN_S:
            seen = _Seen(0, now, now, 0, now)
        seen = replace(seen, times=seen.times + times, last=now)
        told = is_told(seen.times, seen.told_times, now - seen.told)
        self._seen[key] = replace(seen, told_times=seen.times, told=now) if told else seen
        if len(self._seen) > _MOST_KEYS:
            self._seen.popitem(last=False)
        return Repeat(seen.times, round(now - seen.first, 1)) if told else None

    def clear(self, *key: Hashable) -> None:
        """Begin anew, after a success: with the keys that begin so, or with all."""
        for one in [one for one in self._seen if one[: len(key)] == key]:
            del self._seen[one]
