"""Making the annotations' table from the tree: for a server that is taken over, and for a ledger that was lost.

The tree is changed last, when everything was read and the new ledger is complete but for its name, and only by moving files. So a crash
at any moment leaves a tree that can be indexed again, and no ledger that says less than the tree.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from azaion_daemon.errors import RootError
from azaion_daemon.index.aside import move_aside
from azaion_daemon.index.rows import RowReader, RowsRead, Source
from azaion_daemon.index.scan import PRECEDENCE, Scan, Stranger, TreeFile, scan_tree
from azaion_daemon.index.settle import Held, Settled, settle
from azaion_daemon.store.durable import FilesystemSync, storage
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import UNKNOWN_MEDIA, Annotation

_T = TypeVar("_T")

_NAMES_A_TASK = 1000
_TASKS_A_TRANSACTION = 20
_THREADS = 4
NAMED = 20
"""How many of a kind an error or a report names."""
_NOTHING = Source()
_LABEL_ALONE = Held(label=True, extensions=())


@dataclass(slots=True)
class IndexReport:
    """What was found in a tree."""

    annotations: dict[Home, int] = field(default_factory=lambda: dict.fromkeys(Home, 0))
    pending: int = 0
    """Revisions that nobody has validated yet."""
    flagged: Counter[str] = field(default_factory=Counter)
    """What keeps annotations out of datasets, and how many of them."""
    left_alone: list[Stranger] = field(default_factory=list)
    moved_aside: list[str] = field(default_factory=list)
    """Files that had no place any more, by where they lie now."""
    media_lost: int = 0
    """Annotations whose media was known to a ledger that was lost."""
    moved_home: int = 0
    """Images that lay in another home than their annotation."""
    seconds: float = 0.0

    def count(self, row: Annotation) -> None:
        """Take a row into account."""
        self.annotations[row.home] += 1
        self.pending += row.pending is not None
        self.media_lost += row.media == UNKNOWN_MEDIA
        if row.image is None:
            self.flagged["image is missing"] += 1
        if row.label_problem is not None:
            self.flagged["label cannot be trained on" if row.labelled else "label is missing"] += 1


def index_tree(
    layout: Layout,
    ledger: Ledger,
    extensions: AbstractSet[str],
    known_classes: AbstractSet[int],
    *,
    sources: Mapping[str, Source],
    otherwise: Source = _NOTHING,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.time,
) -> IndexReport:
    """Fill an empty ledger with the annotations of the tree, then move what has no place there. Blocks; `say` tells how far it is.

    `extensions` are those that an image may have; `sources` is what other records say, by name, and `otherwise`
    what holds of those that they do not mention.

    Raises:
        RootError: Files cannot be read by this user; the tree is as it was.
        StorageError: The disk failed or is full.
    """
    started = time.monotonic()
    report = IndexReport()
    with storage("indexing the tree"):
        say("Reading the names of all files")
        scan = scan_tree(layout, extensions)
        names = scan.names()
        reader = RowReader(layout, known_classes, now=clock())
        report.left_alone = scan.strangers
        misplaced: list[Settled] = []
        aside: list[TreeFile] = []
        unreadable: list[str] = []
        rows: list[Annotation] = []

        def read(part: Sequence[str]) -> tuple[RowsRead, list[Settled]]:
            settled = [_settle(name, scan, reader) for name in part]
            return reader.read((one, sources.get(one.name, otherwise)) for one in settled), [one for one in settled if one.misplaced]

        for number, (done, settled) in enumerate(_in_order(read, names), 1):
            rows += done.rows
            aside += done.aside
            unreadable += done.unreadable
            misplaced += settled
            for row in done.rows:
                report.count(row)
            if number % _TASKS_A_TRANSACTION == 0:
                ledger.add_annotations(rows)
                rows.clear()
                say(f"{min(number * _NAMES_A_TASK, len(names)):,} of {len(names):,} annotations are indexed")
        ledger.add_annotations(rows)
    if unreadable:
        _refuse(unreadable)
    _move(layout, misplaced, aside, report)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _settle(name: str, scan: Scan, reader: RowReader) -> Settled:
    held = {}
    for home in PRECEDENCE:
        files = scan.homes[home]
        label, first = name in files.labels, files.images.get(name)
        if first is None:
            if label:
                held[home] = _LABEL_ALONE
        elif name in files.more_images:
            held[home] = Held(label, reader.newest_first(home, name, (first, *files.more_images[name])))
        else:
            held[home] = Held(label, (first,))
    return settle(name, held)


def _in_order(work: Callable[[Sequence[str]], _T], names: Sequence[str]) -> Iterator[_T]:
    """Parts of the names through a function on a few threads, which wait for the disk; as many results wait as there are threads."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="index") as pool:
        under_way: deque[Future[_T]] = deque()
        for start in range(0, len(names), _NAMES_A_TASK):
            if len(under_way) > _THREADS:
                yield under_way.popleft().result()
            under_way.append(pool.submit(work, names[start : start + _NAMES_A_TASK]))
        while under_way:
            yield under_way.popleft().result()


def _refuse(unreadable: list[str]) -> NoReturn:
    more = f"\n  and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    raise RootError(
        f"{len(unreadable)} files cannot be read by the user {os.geteuid()}; nothing was changed. Give all files of the annotation tree "
        "to the user that the daemon runs as:\n" + "\n".join(f"  {file}" for file in unreadable[:NAMED]) + more
    )


def _move(layout: Layout, misplaced: list[Settled], aside: list[TreeFile], report: IndexReport) -> None:
    report.moved_aside = move_aside(layout, [*aside, *(file for one in misplaced for file in one.aside)])
    with storage("moving images to their annotations"):
        for one in misplaced:
            if one.image is not None and one.image.home is not one.home:
                one.image.path(layout).rename(layout.image(one.home, one.name, one.image.extension))
                report.moved_home += 1
    if report.moved_aside or report.moved_home:
        sync = FilesystemSync(layout.root)
        try:
            with storage("syncing the tree", syncing=True):
                sync()
        finally:
            sync.close()
