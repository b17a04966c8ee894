"""What is known of ingest: for the status, for the trigger, and for the log, a line a batch."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from azaion_daemon.ingest.staging import StagedMessage
from azaion_daemon.ingest.totals import Totals
from azaion_daemon.ingest.writer import Plan
from azaion_daemon.logs import get_logger
from azaion_daemon.store.layout import Home
from azaion_daemon.stream.events import AnnotationEvent, Role

log = get_logger(__name__)

_RATE_WINDOW_S = 10.0
_NAMED = 20
_KNOWN_ROLES = frozenset(Role)


class Rate:
    """How much was done a second, over the last ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._done: deque[tuple[float, int, int]] = deque()

    def add(self, messages: int, size: int) -> None:
        """Messages of so many bytes are done."""
        self._done.append((self._clock(), messages, size))

    def now(self) -> tuple[float, float]:
        """Messages and bytes a second."""
        now = self._clock()
        while self._done and self._done[0][0] <= now - _RATE_WINDOW_S:
            self._done.popleft()
        window_s = min(_RATE_WINDOW_S, max(now - self._started, 1.0))
        return sum(messages for _, messages, _ in self._done) / window_s, sum(size for _, _, size in self._done) / window_s


@dataclass
class IngestState:
    """Counts, position and pace."""

    counts: dict[Home, int]
    position: int | None = None
    offset: int | None = None
    """Of the last message, in its stream; the position where there never was another stream."""
    quarantined: int = 0
    totals: Totals = field(default_factory=Totals)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after every batch that changed annotations."""
    rate: Rate = field(default_factory=Rate)
    _unknown_roles: set[int] = field(default_factory=set)

    def batch_done(self, batch: Sequence[StagedMessage], plan: Plan, *, seconds: float) -> None:
        """Take in a batch that is in the tree, and say so."""
        size, messages = sum(message.bytes for message in batch), sum(message.complete for message in batch)
        self._count(plan, messages, size, seconds)
        for home, difference in plan.moved.items():
            self.counts[home] += difference
        if plan.position is not None:
            self.position, self.offset = plan.position.position, plan.position.offset
        if plan.rows:
            self.changed.set()
        quarantined = self._report_rejections(batch)
        self._report_roles(batch)
        if plan.surprises:
            log.warning("ingest.rejected_transition", names=plan.surprises[:_NAMED], count=len(plan.surprises), position=self.position)
        log.info(
            "ingest.batch",
            messages=messages,
            bytes=size,
            annotations=len(plan.rows),
            quarantined=quarantined,
            position=self.position,
            offset=None if plan.position is None else plan.position.offset,
            seconds=round(seconds, 4),
        )

    def _count(self, plan: Plan, messages: int, size: int, seconds: float) -> None:
        self.rate.add(messages, size)
        totals = self.totals
        totals.messages += messages
        totals.bytes += size
        totals.ignored += len(plan.surprises)
        totals.batches.add(seconds)
        for home, count in plan.written.items():
            totals.written[home] += count

    def _report_rejections(self, batch: Sequence[StagedMessage]) -> int:
        rejected = [message.decoded for message in batch if message.decoded.rejection is not None and message.complete]
        for decoded in rejected:
            log.warning("ingest.message_quarantined", position=decoded.position, why=decoded.rejection)
            if decoded.fault is not None:
                self.totals.quarantined[decoded.fault] += 1
        return len(rejected)

    def _report_roles(self, batch: Sequence[StagedMessage]) -> None:
        for message in batch:
            event = message.decoded.event
            if isinstance(event, AnnotationEvent) and event.role not in _KNOWN_ROLES | self._unknown_roles:
                self._unknown_roles.add(event.role)
                log.warning("ingest.unknown_role", role=event.role, position=event.position)


def report_lost(names: Iterable[str]) -> None:
    """Say whose images are nowhere."""
    for name in names:
        log.error("ingest.image_lost", name=name)
