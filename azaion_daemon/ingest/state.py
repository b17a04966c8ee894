"""What is known of ingest: for the status, for the trigger, and for the log, a line a batch."""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from azaion_daemon.ingest.staging import StagedMessage
from azaion_daemon.ingest.totals import Totals
from azaion_daemon.ingest.writer import Plan
from azaion_daemon.logs import get_logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.store.layout import Home
from azaion_daemon.stream.events import AnnotationEvent, Decoded, Role

log = get_logger(__name__)

_RATE_WINDOW_S = 10.0
_NAMED = 20
_KINDS = 5
"""So many reasons for the quarantine are told of one batch."""
_DETAILS = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between two messages that are refused for the same reason."""
_MOST_ROLES = 100
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
    _repeats: Repeats = field(default_factory=Repeats)

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
            self._report_surprises(plan.surprises)
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
        kinds: dict[str, list[Decoded]] = {}
        for decoded in rejected:
            kinds.setdefault(_DETAILS.sub("…", decoded.rejection or ""), []).append(decoded)
            if decoded.fault is not None:
                self.totals.quarantined[decoded.fault] += 1
        for kind, alike in islice(kinds.items(), _KINDS):
            self._report_quarantined(alike[0].rejection, kind, alike)
        if others := [decoded for alike in islice(kinds.values(), _KINDS, None) for decoded in alike]:
            self._report_quarantined("various; see azaion-daemon quarantine list", "", others)
        return len(rejected)

    def _report_quarantined(self, why: str | None, kind: str, alike: Sequence[Decoded]) -> None:
        count = len(alike)
        if (seen := self._repeats.count("quarantined", kind, times=count)) is not None:
            log.warning(
                "ingest.message_quarantined",
                why=why,
                position=alike[0].position,
                count=count,
                repeated=seen.times,
                for_s=seen.for_s,
            )

    def _report_surprises(self, names: Sequence[str]) -> None:
        count = len(names)
        if (seen := self._repeats.count("rejected", times=count)) is not None:
            log.warning(
                "ingest.rejected_transition",
                names=names[:_NAMED],
                count=count,
                position=self.position,
                repeated=seen.times,
                for_s=seen.for_s,
            )

    def _report_roles(self, batch: Sequence[StagedMessage]) -> None:
        new = {
            event.role: event.position
            for event in (message.decoded.event for message in reversed(batch))
            if isinstance(event, AnnotationEvent) and event.role not in _KNOWN_ROLES | self._unknown_roles
        }
        if new and len(self._unknown_roles) < _MOST_ROLES:  # a producer gone mad may send another one with each message
            self._unknown_roles.update(new)
            log.warning("ingest.unknown_role", roles=sorted(new)[:_NAMED], position=min(new.values()))


def report_lost(names: Iterable[str]) -> None:
    """Say whose images are nowhere."""
    if lost := list(names):
        log.error("ingest.image_lost", names=lost[:_NAMED], count=len(lost))
