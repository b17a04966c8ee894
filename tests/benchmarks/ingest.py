"""Ingest: the daemon beside rstream alone, sequential handlers with and without durability, and the limits of disk and decoding.

python -m tests.benchmarks.ingest [--quick] [--only NAME] [--backlog-gb GB] [--profile]

Every case reads the same stream of one broker in a process of its own, on an empty or freshly seeded root; the cases take turns, and ratios
are taken within a turn. Publishing and seeding are not timed.

read        rstream alone: read and discard
plain       a sequential handler as commonly written, without any fsync
durable     the same, each file and the position durable before the next message
files       the same files written durably without a broker; `write` is that on one thread
decode      nothing but looking at the images, on one thread
daemon      the real daemon, images decoded in full, which is its default, and not
"""

import argparse
import io
import os
import pstats
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from azaion_daemon.sandbox.broker import Broker
from tests.benchmarks._common import Target, at_least, below, finish
from tests.benchmarks._ingest_bench import DAEMON, NOT_DECODED, Bench, Memory, Rounds, Scale
from tests.benchmarks._ingest_cases import Measured
from tests.benchmarks._workloads import BULK_NAMES, INDEXED

FULL, FULL_BACKLOG_GB = Scale(rounds=3, photos=24, jpegs_300k=1500, jpegs_2m=180, edits=4000, bulk=20), 2.0
QUICK, QUICK_BACKLOG_GB = Scale(rounds=1, photos=8, jpegs_300k=300, jpegs_2m=30, edits=1000, bulk=5), 0.25
WORKLOADS = {
    "jpeg_300k": "300 KB JPEGs",
    "jpeg_2m": "2 MB JPEGs",
    "edits": "label edits",
    "bulk": f"bulk validations of {BULK_NAMES} names",
}
MEMORY = "memory"

LEAST_SPEEDUP = 2.5
LEAST_OF_LIMIT = 0.6
LEAST_OF_DECODE_LIMIT = 0.8
LEAST_MOVED_A_SECOND = 10_000.0
IDLE_MB = 90.0
BACKLOG_MB = 350.0
_PROFILE_LINES = 25

Turn = dict[str, Measured]
"""The cases of one round."""


def median(measured: Rounds, of: Callable[[Turn], float]) -> float:
    """The median over the rounds of what is computed from the runs of one round."""
    return statistics.median(of(dict(zip(measured, turn, strict=True))) for turn in zip(*measured.values(), strict=True))


def jpeg_figures(measured: Rounds, cores: int) -> dict[str, float]:
    """The daemon's speed beside what could be: the slower of reading and writing alone, and the cores' time for the parts of its work."""

    def limit(turn: Turn) -> float:
        return min(turn["read"].rate, turn["files"].rate)

    def decode_limit(turn: Turn) -> float:
        return cores / sum(turn[part].cpu_s / turn[part].messages for part in ("read", "decode", "write"))

    return {
        "durable_speedup": median(measured, lambda turn: turn[NOT_DECODED].rate / turn["durable"].rate),
        "durable_speedup_decoded": median(measured, lambda turn: turn[DAEMON].rate / turn["durable"].rate),
        "limit_messages_a_second": median(measured, limit),
        "share_of_limit": median(measured, lambda turn: turn[NOT_DECODED].rate / limit(turn)),
        "decode_limit_messages_a_second": median(measured, decode_limit),
        "share_of_decode_limit": median(measured, lambda turn: turn[DAEMON].rate / decode_limit(turn)),
    }


def bulk_figures(measured: Rounds) -> dict[str, float]:
    return {"annotations_a_second": median(measured, lambda turn: turn[DAEMON].rate * BULK_NAMES)}


def judge(figures: dict[str, Any]) -> list[Target]:
    """The targets of what was measured."""
    targets: list[Target] = []
    if jpegs := figures.get("jpeg_300k"):
        targets += [
            at_least("durable_speedup", jpegs["durable_speedup"], LEAST_SPEEDUP),
            at_least("share_of_limit", jpegs["share_of_limit"], LEAST_OF_LIMIT),
            at_least("share_of_decode_limit", jpegs["share_of_decode_limit"], LEAST_OF_DECODE_LIMIT),
        ]
    if bulk := figures.get("bulk"):
        targets.append(at_least("bulk", bulk["annotations_a_second"], LEAST_MOVED_A_SECOND))
    if memory := figures.get(MEMORY):
        targets += [
            below("memory_idle_mb", memory["idle_mb"], IDLE_MB),
            below("memory_backlog_mb", memory["backlog"]["memory_mb"], BACKLOG_MB),
        ]
    return targets


def others(run: Measured, cores: int) -> float:
    """The share of the machine that neither the case nor the broker had, in per cent: much of it, and the figures are worth little."""
    return max(run.machine_cpu_s - run.cpu_s - run.broker_cpu_s, 0.0) / (run.seconds * cores) * 100


def show(title: str, measured: Rounds, cores: int) -> None:
    header = ("messages/s", "MB/s", "CPU s", "CPU s/1000", "peak MB", "broker CPU s", "others CPU %")
    print(f"\n{title}, {next(iter(measured.values()))[0].messages} messages, median of {len(measured[DAEMON])} rounds")
    print(f"{'':22}" + "".join(f"{column:>14}" for column in header))
    for case, runs in measured.items():
        row = (
            statistics.median(run.rate for run in runs),
            statistics.median(run.bytes / run.seconds / 1e6 for run in runs),
            statistics.median(run.cpu_s for run in runs),
            statistics.median(run.cpu_s / run.messages * 1000 for run in runs),
            max(run.memory_mb for run in runs),
            statistics.median(run.broker_cpu_s for run in runs),
            statistics.median(others(run, cores) for run in runs),
        )
        print(f"{case:22}" + "".join(f"{value:>14.2f}" for value in row))


def show_memory(memory: Memory) -> None:
    backlog = memory.backlog
    print(f"\nmemory with {INDEXED} indexed annotations")
    print(f"idle: {memory.idle_mb:.1f} MB, at most {memory.idle_peak_mb:.1f} MB since its start")
    print(
        f"while a backlog of {backlog.bytes / 1e9:.2f} GB drains: at most {backlog.memory_mb:.1f} MB "
        f"({backlog.rate:.1f} messages/s, {backlog.bytes / backlog.seconds / 1e6:.1f} MB/s)"
    )


def measure(bench: Bench, names: Sequence[str], backlog_gb: float) -> dict[str, Any]:
    """Measure and show; the figures."""
    cores = len(os.sched_getaffinity(0))
    figures: dict[str, Any] = {"cores": cores}
    for name in names:
        if name == MEMORY:
            memory = bench.memory(backlog_gb * 1e9)
            show_memory(memory)
            figures[MEMORY] = {"indexed": INDEXED, **asdict(memory)}
            continue
        measured = bench.run(name)
        show(WORKLOADS[name], measured, cores)
        figures[name] = {case: [asdict(run) for run in runs] for case, runs in measured.items()}
        if NOT_DECODED in measured:
            figures[name] |= jpeg_figures(measured, cores)
        if name == "bulk":
            figures[name] |= bulk_figures(measured)
    return figures


def show_profile(name: str, stats: pstats.Stats) -> dict[str, Any]:
    """Print where the daemon's CPU time went, by own time; the same as figures."""
    text = io.StringIO()
    stats.stream = text  # type: ignore[attr-defined]
    stats.strip_dirs().sort_stats("tottime").print_stats(_PROFILE_LINES)
    print(f"\n{WORKLOADS[name]}: CPU seconds of all threads\n{text.getvalue().strip()}")
    rows = [(function, row[2]) for function, row in stats.stats.items()]  # type: ignore[attr-defined]
    rows.sort(key=lambda row: -row[1])
    return {"profile": [{"function": ":".join(map(str, where)), "own_cpu_s": own} for where, own in rows[:_PROFILE_LINES]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything, one round")
    parser.add_argument("--only", choices=(*WORKLOADS, MEMORY), help="one part alone")
    parser.add_argument("--backlog-gb", type=float, help=f"the backlog to drain; {FULL_BACKLOG_GB:g}, with --quick {QUICK_BACKLOG_GB:g}")
    parser.add_argument("--profile", action="store_true", help="instead of measuring, run the daemon once under a profiler")
    arguments = parser.parse_args()
    scale, backlog_gb = (QUICK, QUICK_BACKLOG_GB) if arguments.quick else (FULL, FULL_BACKLOG_GB)
    with tempfile.TemporaryDirectory(prefix="benchmark-ingest-") as work, Broker(Path(work) / "broker") as broker:
        bench = Bench(broker, Path(work), scale)
        if arguments.profile:
            name = arguments.only if arguments.only in WORKLOADS else next(iter(WORKLOADS))
            figures = show_profile(name, bench.profile(name))
        else:
            names = [arguments.only] if arguments.only else [*WORKLOADS, MEMORY]
            figures = measure(bench, names, arguments.backlog_gb or backlog_gb)
    finish("ingest", judge(figures), figures)


if __name__ == "__main__":
    main()
