"""The daemon as a case of the benchmarks: the real process, timed by its own log."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psutil

from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from tests.benchmarks._common import cpu_seconds, machine_cpu_seconds, status_mb
from tests.benchmarks._ingest_cases import Measured

_SAMPLE_S = 0.03

Sample = tuple[float, float, float, float]
"""The time, and the CPU seconds that the daemon, the machine and the broker had spent by then."""


def broker_pid() -> int | None:
    """The process of a broker that this one has started; None when it runs in a container."""
    found = (child.pid for child in psutil.Process().children(recursive=True) if child.name() == "beam.smp")
    return next(found, None)


def drain(daemon: RunningDaemon, messages: int, *, limit_s: float = 600.0) -> Measured:
    """Wait until the daemon has ingested so many messages. The clock runs from its first try to connect to its last batch.

    Raises:
        SandboxError: It ended, or was not through in time.
    """
    pid, broker = daemon.process.pid, broker_pid()
    deadline = time.monotonic() + limit_s
    spent: list[Sample] = []
    while True:
        spent.append((time.time(), cpu_seconds(pid), machine_cpu_seconds(), cpu_seconds(broker) if broker else 0.0))
        events = daemon.events()
        batches = [event for event in events if event["event"] == "ingest.batch"]
        if sum(batch["messages"] for batch in batches) >= messages:
            break
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            raise SandboxError(f"the daemon has not ingested {messages} messages: {events[-1:]}")
        time.sleep(_SAMPLE_S)
    start, end = _time_of(next(event for event in events if event["event"] == "stream.connecting")), _time_of(batches[-1])
    return Measured(
        seconds=end - start,
        messages=messages,
        bytes=sum(batch["bytes"] for batch in batches),
        cpu_s=_between(spent, start, end, 1),
        memory_mb=status_mb("VmHWM", pid),
        machine_cpu_s=_between(spent, start, end, 2),
        broker_cpu_s=_between(spent, start, end, 3),
    )


def _time_of(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _between(samples: Sequence[Sample], start: float, end: float, column: int) -> float:
    return _at(samples, end, column) - _at(samples, start, column)


def _at(samples: Sequence[Sample], moment: float, column: int) -> float:
    """A sampled figure at a moment, on the line between the samples around it."""
    before = max((sample for sample in samples if sample[0] <= moment), default=samples[0])
    after = min((sample for sample in samples if sample[0] >= moment), default=samples[-1])
    if after[0] == before[0]:
        return before[column]
    return before[column] + (after[column] - before[column]) * (moment - before[0]) / (after[0] - before[0])
