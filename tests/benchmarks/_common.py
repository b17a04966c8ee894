"""What the benchmarks share: judged figures, the last line, progress, and what the kernel says of a process."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

_STARTED = time.perf_counter()


@dataclass(frozen=True)
class Target:
    """A judged figure."""

    name: str
    value: float
    target: float
    ok: bool


def at_least(name: str, value: float, target: float) -> Target:
    return Target(name, round(value, 3), target, value >= target)


def at_most(name: str, value: float, target: float) -> Target:
    return Target(name, round(value, 3), target, value <= target)


def below(name: str, value: float, target: float) -> Target:
    return Target(name, round(value, 3), target, value < target)


def progress(text: str) -> None:
    """Say what is done, and since when this process runs."""
    print(f"{time.perf_counter() - _STARTED:6.1f} s  {text}", file=sys.stderr, flush=True)


def finish(benchmark: str, targets: Sequence[Target], figures: dict[str, Any]) -> None:
    """The judged figures for people, then everything as the last line."""
    print()
    for target in targets:
        print(f"{'met   ' if target.ok else 'MISSED'}  {target.name}: {target.value:g} (target {target.target:g})")
    print()
    print(json.dumps({"benchmark": benchmark, "targets": [asdict(target) for target in targets], "figures": figures}))


def status_mb(field: str, pid: int | str = "self") -> float:
    """A memory figure of /proc/PID/status, in MB of 10^6 bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def restart_peak() -> None:
    """Let this process's VmHWM start again from here."""
    Path("/proc/self/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all the threads that it has and had; finer than the ticks in /proc.

    The clock of another process is addressed as in the kernel's posix-timers.h (CPUCLOCK_SCHED is 2).
    """
    return time.clock_gettime((~pid << 3) | 2)


def machine_cpu_seconds() -> float:
    """CPU time that all processes of the machine have spent, and what its host has taken away."""
    spent = psutil.cpu_times()
    return float(spent.user + spent.nice + spent.system + spent.irq + spent.softirq + spent.steal)
