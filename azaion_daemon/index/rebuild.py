"""A ledger that was lost or is damaged, made anew from what is left: the tree, the datasets, the models, the last status."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from azaion_daemon.dataset.units import MEDIA
from azaion_daemon.errors import OperatorError
from azaion_daemon.index.build import IndexReport, index_tree
from azaion_daemon.index.judged import newest_judged, restore_judged
from azaion_daemon.index.records import read_datasets, read_models
from azaion_daemon.index.releases import read_releases
from azaion_daemon.index.rows import Source
from azaion_daemon.index.takeover import import_position, known_classes, refuse_start
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import is_locked
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import UNKNOWN_MEDIA
from azaion_daemon.store.root import install_ledger, lock_root, open_root
from azaion_daemon.training.jobs import JobDirectory

NOT_RESTORED = (
    "the history of jobs, except which dataset was trained on last; releases that were not begun; and the audit",
    "which messages were applied before: a Created that the producer sends once more counts as new",
    "who drew an annotation and when, and its place in its media",
    "the media of annotations that no dataset holds; beside media that have sides of the split, they go to train",
)
"""What stands in the ledger alone."""


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What the new ledger holds."""

    index: IndexReport
    offset: int
    """The message that is taken first."""
    media: int
    """Media whose side of the split is known."""
    models: int
    current: str | None
    """The SHA-256 of the current model."""
    releases: int
    """Releases whose serial numbers are not given again."""
    trained_on: str | None
    """The dataset that the trigger counts from; None when no dataset of any model is left, so that everything counts as changed."""
    changed_since: int | None
    """How many annotations differ from it."""
    contradictions: list[str]
    """Sides that a later dataset gives otherwise than an earlier one, whose side counts."""
    unreadable: list[str]
    """Records that say nothing more."""
    old_ledger: str | None
    """Where the ledger from before lies now."""


def rebuild(
    settings: Settings, layout: Layout, *, offset: int | None, say: Callable[[str], None], clock: Callable[[], float] = time.time
) -> RebuildReport:
    """Make the ledger anew; the one from before is renamed. Blocks; `say` tells how far it is.

    `offset` is the message that is to be taken first; by default what the last status says that was done.

    Raises:
        OperatorError: The root cannot be used, is in use by a daemon or a worker, or the position is not known.
        StorageError: The disk failed or is full; the ledger from before is where it was.
    """
    open_root(layout)
    with lock_root(layout):
        _refuse_workers(layout)
        first, base = _where_to_go_on(layout) if offset is None else (offset, 0)
        refuse_start(settings, first)
        classes = known_classes(layout)
        say("Reading datasets and models")
        datasets, (models, unreadable) = read_datasets(layout), read_models(layout)
        judged, not_read = newest_judged(layout, models)
        releases, unread_releases = read_releases(layout, models)
        reports: list[IndexReport] = []
        changed: list[int] = []

        def fill(ledger: Ledger) -> None:
            extensions = frozenset(settings.ingest.image_extensions)
            # Where media have sides, what no dataset mentions may be a frame of one of them.
            otherwise = Source(media=UNKNOWN_MEDIA if any(unit.startswith(MEDIA) for unit in datasets.sides) else "")
            found = index_tree(layout, ledger, extensions, classes, sources=datasets.sources, otherwise=otherwise, say=say, clock=clock)
            reports.append(found)
            last = max(first - 1 + base, 0)
            ledger.date_annotations(last)
            ledger.add_sides(datasets.sides)
            for model in models:
                ledger.put_model(model)
            import_position(ledger, settings.stream.name, first, "the ledger was made anew", base=base)
            ledger.serials.restore(releases)
            if judged is not None:
                changed.append(restore_judged(ledger, judged, last))

        old: Path | None = install_ledger(layout, fill)
    return RebuildReport(
        index=reports[0],
        offset=first,
        media=len(datasets.sides),
        models=len(models),
        current=next((model.sha256 for model in models if model.current), None),
        releases=len(releases),
        contradictions=datasets.contradictions,
        trained_on=None if judged is None else judged.dataset,
        changed_since=changed[0] if changed else None,
        unreadable=[*datasets.unreadable, *unreadable, *not_read, *unread_releases],
        old_ledger=None if old is None else str(old),
    )


def _refuse_workers(layout: Layout) -> None:
    """A new ledger does not know their jobs: the next training would be started beside them, and what they make would be lost."""
    working = [path.name for path in sorted(layout.jobs.glob("*")) if path.is_dir() and is_locked(JobDirectory(path).lock)]
    if working:
        raise OperatorError(
            f"a training worker of {layout.root} is alive: job {', '.join(working)}. Its job would be lost. Wait for its end, or end it: "
            f"fuser -k {JobDirectory(layout.jobs / working[0]).lock}"
        )


def _where_to_go_on(layout: Layout) -> tuple[int, int]:
    """The offset after the last message that was done for sure, since the status is written after that is in the tree; and the base."""
    try:
        stream = json.loads(layout.status.read_bytes())["stream"]
        position, offset = stream["position"], stream.get("offset", stream["position"])
    except (OSError, ValueError, KeyError, TypeError):
        position = offset = None
    if not isinstance(position, int) or not isinstance(offset, int):
        raise OperatorError(
            f"{layout.status} does not say how far the stream was consumed. Name the message to go on with: --offset N (0 is the first)"
        )
    return offset + 1, position - offset
