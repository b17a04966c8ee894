"""The daemon of the soak: the unmodified command line, whose worker is `_soak_worker`.

`AZAION_SOAK_TRACE` names a file that gets what holds memory (tracemalloc) and how many objects of each type there are, every half minute as
a difference to how it was after three minutes, with everything imported: what grows there is a leak, what grows in the samples alone is
malloc's.
"""

import functools
import gc
import os
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

from azaion_daemon.cli import main as daemon
from azaion_daemon.training.pool import WorkerPool

TRACE = "AZAION_SOAK_TRACE"
_TRACE_S = 30.0
_WARM_UP_S = 180.0
_SHOWN = 25
_FRAMES = 6


def _trace(file: Path) -> None:
    first = objects = None
    time.sleep(_WARM_UP_S)
    while True:
        time.sleep(_TRACE_S)
        gc.collect()
        now, counts = tracemalloc.take_snapshot(), Counter(type(one).__qualname__ for one in gc.get_objects())
        if first is None or objects is None:
            first, objects = now, counts
            continue
        grown = counts - objects
        with file.open("a") as trace:
            print(f"\n{time.monotonic():.0f} s, traced {tracemalloc.get_traced_memory()[0] / 1e6:.2f} MB", file=trace)
            print("  ".join(f"{name} +{count}" for name, count in grown.most_common(_SHOWN)), file=trace)
            for one in now.compare_to(first, "lineno")[:_SHOWN]:
                print(one, file=trace)


def main() -> None:
    """Run a command of the daemon."""
    worker = (sys.executable, "-m", "tests.benchmarks._soak_worker")
    setattr(WorkerPool, "__init__", functools.partialmethod(WorkerPool.__init__, worker))  # noqa: B010 - mypy minds the other way
    if file := os.environ.get(TRACE):
        tracemalloc.start(_FRAMES)
        threading.Thread(target=_trace, args=(Path(file),), daemon=True, name="trace").start()
    daemon.main(args=sys.argv[1:], prog_name="azaion-daemon")


if __name__ == "__main__":
    main()
