"""`init` on a server that has annotations already: its tree, its position and its model become the ledger's."""

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from azaion_daemon.dataset.classes import SLOTS, load_classes
from azaion_daemon.errors import OperatorError, RootError
from azaion_daemon.index.build import IndexReport, index_tree
from azaion_daemon.index.models import existing_model
from azaion_daemon.index.offset import read_offset
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import AuditEntry, Model, Position
from azaion_daemon.store.root import Root, init_root

_UNSEEN = b""
"""The digest of a message at a position that was imported: nobody has seen it."""


@dataclass(frozen=True, slots=True)
class InitReport:
    """What `init` has made."""

    root: Root
    index: IndexReport | None = None
    """None when there was a ledger already."""
    model: Model | None = None
    offset: int | None = None
    """The message that is taken first, where a position was imported."""


def initialise(
    settings: Settings, layout: Layout, *, offset_file: Path | None, say: Callable[[str], None], clock: Callable[[], float] = time.time
) -> InitReport:
    """Make a root, or complete one. What a new ledger finds there is indexed.

    `offset_file` holds the position of the service before; by default {root}/offset.yaml, where there is one.

    Raises:
        OperatorError: The root, the position or classes.json cannot be used; nothing was indexed.
        StorageError: The disk failed or is full.
    """
    new = not _has_ledger(layout)
    if not new and offset_file is not None:
        raise OperatorError(f"{layout.ledger} has a position already; --offset-file is for a root that has no ledger yet")
    file = offset_file or (layout.offset if layout.offset.exists() else None)
    offset = read_offset(file) if new and file is not None else None
    refuse_start(settings, offset)
    classes = known_classes(layout) if new else frozenset[int]()
    indexed: list[tuple[IndexReport, Model | None]] = []

    def fill(ledger: Ledger) -> None:
        found = index_tree(layout, ledger, frozenset(settings.ingest.image_extensions), classes, sources={}, say=say, clock=clock)
        if offset is not None:
            import_position(ledger, settings.stream.name, offset, f"{file} says {offset}")
        model = existing_model(layout)
        if model is not None:
            ledger.put_current_model(model)
        indexed.append((found, model))

    root = init_root(layout, fill)
    return InitReport(root, *indexed[0], offset=offset) if indexed else InitReport(root)


def _has_ledger(layout: Layout) -> bool:
    try:
        return layout.ledger.exists()
    except OSError as error:
        raise RootError(f"{layout.ledger} cannot be looked at: {error.strerror}. Check its owner and mode.") from error


def known_classes(layout: Layout) -> AbstractSet[int]:
    """The class ids that stand for a class; all that there can be while the operator has not put classes.json there.

    Raises:
        ConfigError: It is there and cannot be used.
    """
    return load_classes(layout.classes).known if layout.classes.exists() else frozenset(range(SLOTS))


def refuse_start(settings: Settings, offset: int | None) -> None:
    """Refuse to promise that a stream is read from its beginning when the settings say otherwise.

    Raises:
        OperatorError: They do; nothing was made yet.
    """
    start = settings.stream.start_from
    if offset == 0 and start not in ("beginning", 0):
        raise OperatorError(
            f"message 0 is the beginning of the stream, but stream.start_from says {start}, and that counts while there is no position. "
            "Set stream.start_from to beginning first"
        )


def import_position(ledger: Ledger, stream: str, offset: int, why: str, *, base: int = 0) -> None:
    """Let a stream be read from an offset on: as if the message before had been consumed, though nobody has seen it."""
    if offset > 0:
        entry = AuditEntry(f"stream {stream}", "position imported", "operator", why)
        ledger.commit_batch(stream, Position(offset - 1, _UNSEEN, base), (), [entry])
