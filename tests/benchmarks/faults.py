"""Killed at random moments, thousands of times: the daemon with SIGKILL, its broker now and then, while an annotator publishes.

python -m tests.benchmarks.faults [--rounds N] [--seed S] [--quick]
"""

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from tests.faults.rounds import Tally, play

ROUNDS = 2000
QUICK_ROUNDS = 100
CHAPTER_ROUNDS = 200


def report(tally: Tally, rounds: int) -> None:
    damage = {"lost": tally.damage.lost, "doubled": tally.damage.doubled, "torn": tally.damage.torn}
    print(f"{tally.rounds} rounds in {tally.seconds:.0f} s, seed {tally.seed}\n")
    for moment, count in tally.kills.most_common():
        print(f"{'killed ' + moment:<44}{count:>8}{count / tally.rounds:>8.0%}")
    print(f"{'kills of the broker':<44}{tally.broker_kills:>8}")
    print(f"{'messages published and confirmed':<44}{tally.messages:>8}")
    print(f"{'chunks sent again, not confirmed in time':<44}{tally.unconfirmed:>8}\n")
    for kind, found in damage.items():
        print(f"{kind:<44}{len(found):>8}")
        for one in found[:20]:
            print(f"    {one[:300]}")
    print()
    targets = [
        {"name": "rounds", "value": tally.rounds, "target": rounds, "ok": tally.rounds >= rounds},
        *({"name": kind, "value": len(found), "target": 0, "ok": not found} for kind, found in damage.items()),
    ]
    figures = {
        "seed": tally.seed,
        "seconds": round(tally.seconds, 1),
        "chapters": tally.chapters,
        "kills": dict(tally.kills),
        "broker_kills": tally.broker_kills,
        "messages": tally.messages,
        "chunks_sent_again": tally.unconfirmed,
    }
    print(json.dumps({"benchmark": "faults", "targets": targets, "figures": figures}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS} unless told otherwise")
    parser.add_argument("--seed", type=int, help="of a run to repeat; the moments of the kills depend on the machine all the same")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    logging.disable(logging.CRITICAL)  # what rstream says of a broker that was killed
    warnings.simplefilter("ignore", ResourceWarning)
    directory = Path(tempfile.mkdtemp(prefix="benchmark-faults-"))
    tally = play(
        directory,
        seed,
        chapter_rounds=min(rounds, CHAPTER_ROUNDS),
        is_over=lambda tally: tally.rounds >= rounds,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if tally.damage:
        print(f"the damaged roots are in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory)
    report(tally, rounds)


if __name__ == "__main__":
    main()
