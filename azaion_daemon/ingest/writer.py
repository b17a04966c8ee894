"""Group commit: the ledger decides, the tree follows.

Deriving the tree from messages that are read again is not safe: after a crash in the middle, "move the seed label to validated" may pick up
a label that a later edit has put there. So a batch is committed in steps, each of which may be the last before a crash:

1. its images are durable in `incoming` (`staging.py`);
2. one transaction records the new state of every touched annotation, marks it dirty, and moves the stream position: from here on the batch
   has happened;
3. the tree is made to match, annotation by annotation, from the row alone;
4. now and then the filesystem is synced, and the marks of what was placed before the sync began are cleared.

After a crash `recover` places the dirty rows again and removes the staged files that no row names. Nothing is derived twice.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice

from azaion_daemon.errors import OperatorError
from azaion_daemon.health import beat
from azaion_daemon.ingest.digests import resolve
from azaion_daemon.ingest.replay import Replayed, replay
from azaion_daemon.ingest.rules import Change, apply_annotation, apply_deleted, apply_validated
from azaion_daemon.ingest.staging import StagedMessage
from azaion_daemon.ingest.tree import Tree
from azaion_daemon.ingest.turns import Turns
from azaion_daemon.store.durable import FilesystemSync, storage
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Annotation, AuditEntry, Position
from azaion_daemon.stream.events import AnnotationEvent, BulkEvent, Status

_PLACED_A_TURN = 128
"""Annotations; some milliseconds."""


@dataclass(slots=True)
class Plan:
    """What a batch makes of the ledger."""

    position: Position | None = None
    """Of the last message that is whole; None when the batch is the middle of a long one."""
    rows: dict[str, Annotation] = field(default_factory=dict)
    only_moved: set[str] = field(default_factory=set)
    """Those of the rows that only went to another home."""
    audit: list[AuditEntry] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    moved: dict[Home, int] = field(default_factory=lambda: dict.fromkeys(Home, 0))
    """By how much each home's count changes."""
    written: dict[Home, int] = field(default_factory=lambda: dict.fromkeys(Home, 0))
    """How many of the rows each home has."""
    staged: list[str] = field(default_factory=list)


class Writer:
    """Commits batches of one stream; every method blocks. Commits run on the ledger's thread, placing on another one."""

    def __init__(self, stream: str, ledger: Ledger, layout: Layout, *, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._ledger = ledger
        self._layout = layout
        self._incoming = layout.incoming
        self._tree = Tree(layout)
        self._clock = clock
        self._turns = Turns()
        self._sync = FilesystemSync(layout.root)

    def recover(self) -> tuple[int, list[str]]:
        """Finish what a crash has left: how many rows were placed, and whose image is nowhere."""
        dirty = self._ledger.dirty()
        lost = self.place(dirty)
        self._ledger.flag_image_lost(lost)
        if dirty:
            self.sync()
            self._ledger.clear_dirty(max(row.dirty for row in dirty if row.dirty is not None))
        keep = self._ledger.staged_files()
        with storage("clearing what a crash has left"):
            for path in self._incoming.iterdir():
                if path.name not in keep:
                    path.unlink()
        return len(dirty), [row.name for row in lost]

    def commit(self, batch: Sequence[StagedMessage], known_classes: AbstractSet[int]) -> Plan:
        """Apply a staged batch to the ledger. From here on it has happened."""
        with self._turns:
            plan = _plan(batch, self._rows(batch), known_classes, self._clock())
        moved = [plan.rows[name] for name in plan.only_moved]
        changed = [row for name, row in plan.rows.items() if name not in plan.only_moved]
        self._ledger.commit_batch(self._stream, plan.position, changed, plan.audit, moved=moved)
        return plan

    def replay(self, message: StagedMessage, known_classes: AbstractSet[int], *, as_new: bool, since: float) -> Replayed:
        """Apply one message out of its order. The stream position stays. `since` is when it was passed, in seconds since the epoch.

        Raises:
            OperatorError: The message still cannot be understood, or no message was ever consumed.
        """
        event, position = message.decoded.event, self._ledger.position(self._stream)
        if event is None:
            raise OperatorError(f"it still cannot be applied: {message.decoded.rejection}")
        if position is None:
            raise OperatorError("nothing was consumed from the stream yet")
        rows = self._rows([message])
        unknown = [name for name in _names(message) if name not in rows]
        passed_over = {} if as_new else self._ledger.passed_over(unknown, since)
        replayed = replay(
            event,
            message.image,
            rows,
            passed_over=passed_over,
            position=position.position,
            as_new=as_new,
            known_classes=known_classes,
            now=self._clock(),
        )
        audit = [AuditEntry(f"annotation {name}", "replayed", "operator", f"message {event.position}") for name in replayed.rows]
        self._ledger.commit_batch(self._stream, position, replayed.rows.values(), audit)
        return replayed

    def _rows(self, batch: Sequence[StagedMessage]) -> dict[str, Annotation]:
        """What the rules need to know of the annotations that a batch touches."""
        rows = self._ledger.annotations(list({name for message in batch for name in _names(message)}))
        return resolve(rows, (name for message in batch if message.image is not None for name in _names(message)), self._layout)

    def place(self, rows: Iterable[Annotation]) -> list[Annotation]:
        """Make the tree match these rows: those whose image is nowhere.

        Raises:
            StorageError: The disk failed or is full; placing the same rows again goes on.
        """
        lost: list[Annotation] = []
        remaining = iter(rows)
        with storage("placing annotations"):
            while portion := list(islice(remaining, _PLACED_A_TURN)):
                with self._turns:
                    lost += self._tree.place_all(portion)
                beat()
        return lost

    def finish(self, staged: Iterable[str]) -> None:
        """After placing: staged files that no row needed go away."""
        with storage("clearing staged images"):
            for name in staged:
                (self._incoming / name).unlink(missing_ok=True)

    def sync(self) -> None:
        """Make the tree durable: what was placed before the call began.

        Raises:
            StorageError: Something that was written is lost; only starting again from the ledger is safe.
        """
        with storage("syncing the tree", syncing=True):
            self._sync()

    def close(self) -> None:
        """Give the descriptor back."""
        self._sync.close()


def _names(message: StagedMessage) -> Iterator[str]:
    match message.decoded.event:
        case AnnotationEvent(name=name):
            yield name
        case BulkEvent(names=names):
            yield from names


def _plan(batch: Sequence[StagedMessage], rows: dict[str, Annotation], known_classes: AbstractSet[int], now: float) -> Plan:
    """Apply a batch's events in order; several changes to one annotation fold into its last state."""
    last = next((message for message in reversed(batch) if message.complete), None)
    plan = Plan(None if last is None else Position(last.decoded.position - last.base, last.decoded.digest, last.base))
    before = {name: row.home for name, row in rows.items()}
    for message in batch:
        if message.image is not None:
            plan.staged.append(message.image.file)
        match message.decoded.event:
            case AnnotationEvent() as event:
                change = apply_annotation(rows.get(event.name), event, message.image, known_classes=known_classes, now=now)
                _record(plan, rows, event.name, event, change)
            case BulkEvent() as event:
                apply = apply_validated if event.status is Status.VALIDATED else apply_deleted
                for name in event.names:
                    change = apply(rows.get(name), event.position, known_classes=known_classes, now=now)
                    _record(plan, rows, name, event, change)
    for name, row in plan.rows.items():
        if name in before:
            plan.moved[before[name]] -= 1
        plan.moved[row.home] += 1
        plan.written[row.home] += 1
    return plan


def _record(plan: Plan, rows: dict[str, Annotation], name: str, event: AnnotationEvent | BulkEvent, change: Change) -> None:
    if change.ignored is not None:
        plan.audit.append(AuditEntry(f"annotation {name}", f"{event.status.name.lower()} ignored", event.email, change.ignored))
        if change.surprising:
            plan.surprises.append(name)
    elif change.row is not None:
        if change.moved and name not in plan.rows:
            plan.only_moved.add(name)
        else:
            plan.only_moved.discard(name)
        rows[name] = plan.rows[name] = change.row
