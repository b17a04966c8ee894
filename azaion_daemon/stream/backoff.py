"""How long to wait between attempts, and which of many equal failures to log."""

import random
from collections import Counter

FIRST_CEILING_S = 0.5
LONGEST_CEILING_S = 30.0


def ceiling_s(failures: int) -> float:
    """The longest pause after so many failures in a row, of which there is at least one: doubles up to a cap."""
    return min(FIRST_CEILING_S * 2.0 ** min(failures - 1, 16), LONGEST_CEILING_S)


def pause_s(failures: int, chance: random.Random) -> float:
    """The pause after so many failures in a row, with full jitter: many clients of a broker that comes back spread over the whole of it.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return chance.uniform(0.0, ceiling_s(failures))


class Repeats:
    """Counts equal reasons, and picks the ones to log: the first, the second, the fourth, the eighth, and so on."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def count(self, why: str) -> int:
        """How often this reason was seen by now, this time included, if it is to be logged; else 0."""
        self._seen[why] += 1
        seen = self._seen[why]
        return seen if seen & (seen - 1) == 0 else 0

    def clear(self) -> None:
        """Begin anew, after a success."""
        self._seen.clear()
