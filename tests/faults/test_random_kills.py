"""Killed at random moments, again and again: what is in the stream is in the tree and in the ledger, once and whole.

AZAION_FAULT_SECONDS  how long (180)
AZAION_FAULT_SEED     the seed of a run to repeat; the moments of the kills depend on the machine all the same
"""

import gc
import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.rounds import play

SECONDS = float(os.environ.get("AZAION_FAULT_SECONDS", "180"))
ENDING_S = 300.0
"""What the last chapter may take beyond, on a slow machine."""


@pytest.mark.timeout(SECONDS + ENDING_S)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_killed_at_random_moments_nothing_is_lost_nothing_doubled_nothing_torn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    seed = int(os.environ.get("AZAION_FAULT_SEED", random.SystemRandom().getrandbits(32)))
    deadline = time.monotonic() + SECONDS
    with capsys.disabled():
        print(f"\nrandom kills for {SECONDS:g} s, seed {seed}")
        tally = play(tmp_path, seed, chapter_rounds=100, is_over=lambda _: time.monotonic() > deadline, say=print)
    caplog.clear()  # records keep connections alive
    gc.collect()  # the warnings of what an annotator left behind are expected here
    assert tally.damage.found() == []
    assert tally.rounds > SECONDS / 10
