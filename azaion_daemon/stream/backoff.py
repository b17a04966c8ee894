"""How long to wait between attempts."""

import random

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
