"""The daemon's start: from the process's first moment to READY, with a ledger of many years and with an empty one.

python -m tests.benchmarks.start [--quick]
"""

import argparse
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.store.layout import Layout
from tests.benchmarks._common import below, finish, progress
from tests.benchmarks._workloads import INDEXED, Workload, idle_messages, publish, seed_ledger
from tests.harness import Site

MOST_SECONDS = 2.0
VALIDATED = 0.9


def start(site: Site) -> float:
    """Start the daemon once, with its files in the page cache; the seconds until it is ready."""
    spawned = time.time()
    with site.daemon() as daemon:
        ready = daemon.wait_for_event("daemon.ready")
        daemon.wait_for_event("stream.connected")  # a start is complete, also one that is not looked at any more
    return datetime.fromisoformat(ready["timestamp"]).timestamp() - spawned


def measure(starts: int) -> dict[str, list[float]]:
    """The starts of both, by turns, after one of each that is not counted."""
    with tempfile.TemporaryDirectory(prefix="benchmark-start-") as work, Broker(Path(work) / "broker") as broker:
        sites: dict[str, Site] = {}
        for name, seeded in (("indexed", INDEXED), ("empty", 0)):
            workload = Workload(name, f"azaion-annotations-{name}", 0, first_offset=1, seeded=seeded)
            broker.create_stream(workload.stream)
            sites[name] = Site(Path(work) / name, broker, workload.stream)
            sites[name].prepare()
            if seeded:
                progress(f"indexing {seeded} annotations")
                publish(broker, workload.stream, idle_messages(workload))
                seed_ledger(Layout(sites[name].root), workload, validated=VALIDATED)
        seconds: dict[str, list[float]] = {name: [] for name in sites}
        for number in range(starts + 1):
            for name, site in sites.items():
                took = start(site)
                progress(f"start {number}, {name}: {took:.2f} s")
                if number > 0:
                    seconds[name].append(took)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 starts instead of 5")
    arguments = parser.parse_args()
    seconds = measure(3 if arguments.quick else 5)
    print(f"\n{'annotations':>12}{'median s':>12}{'slowest s':>12}")
    for name, indexed in (("indexed", INDEXED), ("empty", 0)):
        print(f"{indexed:>12}{statistics.median(seconds[name]):>12.2f}{max(seconds[name]):>12.2f}")
    target = below("start_to_ready_s", statistics.median(seconds["indexed"]), MOST_SECONDS)
    finish("start", [target], {"annotations": INDEXED, **seconds})


if __name__ == "__main__":
    main()
