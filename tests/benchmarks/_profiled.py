"""The daemon under cProfile, all its threads, by CPU time: python -m tests.benchmarks._profiled STATS run

cProfile sees one thread. So every thread gets a profile of its own when it starts, and they are added up in the end.
"""

import cProfile
import pstats
import sys
import threading
import time
from pathlib import Path

from azaion_daemon import daemon
from azaion_daemon.sandbox.operator import Operator, RunningDaemon
from azaion_daemon.signals import Signals

_CHECKOUT = Path(__file__).parents[2]


def profiled_daemon(operator: Operator, stats: Path) -> RunningDaemon:
    """A context in which the daemon runs; it leaves its statistics in a file when it stops."""
    return operator.daemon(command=[sys.executable, "-m", __name__, str(stats)], environment={"PYTHONPATH": str(_CHECKOUT)})


def main() -> None:
    profiles: list[cProfile.Profile] = []

    def profile_this_thread(*_: object) -> None:
        profiles.append(cProfile.Profile(time.thread_time))
        profiles[-1].enable()

    threading.setprofile(profile_this_thread)  # called at a thread's first event, and replaced by what it enables
    profile_this_thread()
    code = daemon.run(Path("config.yaml"), Signals())
    threading.setprofile(None)
    stats = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        stats.add(profile)
    stats.dump_stats(sys.argv[1])
    sys.exit(code)


if __name__ == "__main__":
    main()
