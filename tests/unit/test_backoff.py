"""How long to wait."""

import random

import pytest

from azaion_daemon.stream.backoff import FIRST_CEILING_S, LONGEST_CEILING_S, ceiling_s, pause_s


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (8, 30.0), (1_000_000, 30.0)])
def test_the_ceiling_doubles_up_to_a_cap(failures: int, ceiling: float) -> None:
    assert ceiling_s(failures) == ceiling


def test_the_jitter_is_full() -> None:
    pauses = [pause_s(9, random.Random(seed)) for seed in range(2000)]
    assert 0 <= min(pauses) < 0.05 * LONGEST_CEILING_S
    assert 0.95 * LONGEST_CEILING_S < max(pauses) <= LONGEST_CEILING_S
    assert sum(pauses) / len(pauses) == pytest.approx(LONGEST_CEILING_S / 2, rel=0.05)
    assert pause_s(1, random.Random(0)) <= FIRST_CEILING_S
