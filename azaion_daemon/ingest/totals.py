"""What ingest has done since the start: numbers that only grow, for metrics."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from azaion_daemon.store.layout import Home
from azaion_daemon.stream.events import Fault

_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Durations:
    """How long something took each time, counted in ranges."""

    def __init__(self, bounds_s: tuple[float, ...] = _BOUNDS_S) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """It took so long."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def document(self) -> dict[str, Any]:
        """As JSON: how many were not longer than each bound, and than none."""
        cumulative, so_far = [], 0
        for bound, count in zip((*self._bounds_s, None), self._counts, strict=True):
            so_far += count
            cumulative.append([bound, so_far])
        return {"buckets": cumulative, "sum": round(self._sum_s, 6)}


@dataclass
class Totals:
    """The numbers."""

    messages: int = 0
    bytes: int = 0
    written: dict[Home, int] = field(default_factory=lambda: dict.fromkeys(Home, 0))
    """Annotations that a message brought into a home, or changed there."""
    ignored: int = 0
    """Annotations of which a message asked for what their state does not allow."""
    quarantined: dict[Fault, int] = field(default_factory=lambda: dict.fromkeys(Fault, 0))
    batches: Durations = field(default_factory=Durations)
    """From the commit to the tree."""
    syncs: Durations = field(default_factory=Durations)
    """Of the filesystem: what was received, and the tree."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "messages": self.messages,
            "bytes": self.bytes,
            "annotations": {home.value: count for home, count in self.written.items()},
            "ignored": self.ignored,
            "quarantined": {fault.value: count for fault, count in self.quarantined.items()},
            "batch_seconds": self.batches.document(),
            "sync_seconds": self.syncs.document(),
        }
