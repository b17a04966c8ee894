"""The daemon under cProfile, all its threads, by CPU time: python -m tests.benchmarks._profiled CONFIG STATS

cProfile sees one thread. So every thread gets a profile of its own when it starts, and they are added up in the end.
"""

import cProfile
import os
import pstats
import sys
import threading
import time
from pathlib import Path
from typing import Self

from typing_extensions import override

from azaion_daemon import daemon
from azaion_daemon.sandbox.operator import Operator, RunningDaemon
from azaion_daemon.sandbox.processes import spawn

_CHECKOUT = Path(__file__).parents[2]


class ProfiledDaemon(RunningDaemon):
    """A running daemon that leaves its statistics in a file when it stops."""

    def __init__(self, operator: Operator, stats: Path) -> None:
        super().__init__(operator)
        self._stats = stats

    @override
    def __enter__(self) -> Self:
        command = [sys.executable, "-m", __name__, str(self._operator.config), str(self._stats)]
        environment = {**os.environ, "PYTHONPATH": str(_CHECKOUT)}
        self.process = spawn(command, log=self._operator.log, cwd=self._operator.directory, environment=environment)
        return self


def main() -> None:
    profiles: list[cProfile.Profile] = []

    def profile_this_thread(*_: object) -> None:
        profiles.append(cProfile.Profile(time.thread_time))
        profiles[-1].enable()

    threading.setprofile(profile_this_thread)  # called at a thread's first event, and replaced by what it enables
    profile_this_thread()
    code = daemon.run(Path(sys.argv[1]))
    threading.setprofile(None)
    stats = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        stats.add(profile)
    stats.dump_stats(sys.argv[2])
    sys.exit(code)


if __name__ == "__main__":
    main()
