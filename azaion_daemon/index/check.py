"""The differences between tree and ledger, and their repair: the tree follows the ledger through the code that places a batch.

The check runs beside a working daemon. It compares without holding anything up, and only what looks different is looked at again while
nothing is written, which takes milliseconds. Files come first, rows second: placing a row removes its files from other homes, so what has
no place must have been moved aside by then.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, closing
from functools import partial
from itertools import islice
from typing import ParamSpec, TypeVar

from azaion_daemon.health import beat
from azaion_daemon.index.aside import move_aside
from azaion_daemon.index.findings import CheckReport, Difference, Finding
from azaion_daemon.index.judge import Judge
from azaion_daemon.index.rows import RowReader, RowsRead, Source
from azaion_daemon.index.scan import Kind, Stranger, TreeFile, scan_directory
from azaion_daemon.index.settle import settle
from azaion_daemon.ingest.writer import Writer
from azaion_daemon.store.durable import storage
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation, AuditEntry, Outline

P = ParamSpec("P")
T = TypeVar("T")

_AT_A_TIME = 2000
_AT_A_TIME_DEEP = 64
_THREADS = 4
_ROUNDS = 8
"""How often what was repaired is looked at again: an annotation may have several files too many."""
_ASIDE_FIRST = frozenset({Finding.LABEL_DIFFERS, Finding.IMAGE_DIFFERS, Finding.STRAY_LABEL, Finding.STRAY_IMAGE})
_STRAYS = frozenset({Finding.STRAY_LABEL, Finding.STRAY_IMAGE})


class Checker:
    """One check of one root."""

    def __init__(
        self,
        layout: Layout,
        ledger: LedgerThread,
        writer: Writer,
        rest: Callable[[], AbstractAsyncContextManager[None]],
        *,
        extensions: AbstractSet[str],
        known_classes: AbstractSet[int],
        deep: bool,
        repair: bool,
        offline: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """In the context that `rest` gives, ledger and tree agree as far as they ever will, and nothing is written.

        `offline`: no daemon runs, so rows that are marked dirty may not be in the tree yet, and a staged file is not under way.
        """
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._writer = writer
        self._rest = rest
        self._extensions = extensions
        self._repair = repair
        self._offline = offline
        self._at_a_time = _AT_A_TIME_DEEP if deep else _AT_A_TIME
        self._clock = clock
        self._judge = Judge(layout, deep=deep)
        self._reader = RowReader(layout, known_classes, now=clock())
        self._report = CheckReport()

    async def run(self) -> CheckReport:
        """Compare everything, and repair it where that was asked for.

        Raises:
            StorageError: The disk failed or is full, or a directory is gone.
        """
        started = time.monotonic()
        for home in Home:
            for kind in Kind:
                await self._check_directory(home, kind)
        await self._check_rows()
        if self._offline:
            await self._check_staged()
        self._report.seconds = round(time.monotonic() - started, 3)
        return self._report

    async def _check_directory(self, home: Home, kind: Kind) -> None:
        with closing(scan_directory(self._layout, home, kind, self._extensions)) as entries:
            while found := await _to_end(_next_of, entries):
                files = [file for file in found if isinstance(file, TreeFile)]
                self._report.files += len(files)
                self._report.left_alone += [one for one in found if isinstance(one, Stranger)]
                if suspects := await self._judge_files(files):
                    await self._look_again(partial(self._judge_files, [one.file for one in suspects]))

    async def _check_rows(self) -> None:
        name = ""
        while rows := await self._call(self._ledger.annotations_after, name, self._at_a_time):
            name = rows[-1].name
            self._report.annotations += len(rows)
            self._report.unplaced += sum(self._unplaced(row) for row in rows)
            if suspects := await self._judge_rows(rows):
                await self._look_again(partial(self._judge_names, [one.file.name for one in suspects]))

    def _unplaced(self, row: Annotation | Outline | None) -> bool:
        return self._offline and row is not None and row.dirty is not None

    async def _judge_files(self, files: Sequence[TreeFile]) -> list[Difference]:
        rows = await self._call(self._ledger.outlines, list({file.name for file in files}))
        return await _to_end(self._judge.files, [file for file in files if not self._unplaced(rows.get(file.name))], rows)

    async def _judge_names(self, names: Sequence[str]) -> list[Difference]:
        return await self._judge_rows((await self._call(self._ledger.annotations, list(dict.fromkeys(names)))).values())

    async def _judge_rows(self, rows: Iterable[Annotation]) -> list[Difference]:
        placed = [row for row in rows if not self._unplaced(row)]
        share = -(-len(placed) // _THREADS) or 1
        parts = (placed[start : start + share] for start in range(0, len(placed), share))  # labels wait for the disk
        return [found for part in await asyncio.gather(*(_to_end(self._judge.rows, part) for part in parts)) for found in part]

    async def _check_staged(self) -> None:
        named = await self._call(self._ledger.staged_files)
        with storage("looking at staged images"):
            self._report.staged = sorted({path.name for path in self._layout.incoming.iterdir()} - named)

    async def _look_again(self, judge: Callable[[], Awaitable[list[Difference]]]) -> None:
        """What still looks different while nothing is written is different."""
        async with self._rest():
            differences = await judge()
            for one in differences:
                self._report.add(one)
            before = len(differences)
            for _ in range(_ROUNDS if self._repair else 0):
                if differences:
                    await self._mend({one.file.name: one for one in reversed(differences)})
                    differences = await judge()
            self._report.repaired += max(before - len(differences), 0)

    async def _mend(self, differences: Mapping[str, Difference]) -> None:
        """Mend one difference of each annotation."""
        position = await self._call(self._ledger.last_position) or 0
        await _to_end(move_aside, self._layout, [one.file for one in differences.values() if one.finding in _ASIDE_FIRST])
        known = await self._call(self._ledger.annotations, list(differences))
        mended = await _to_end(
            lambda: [row for name, one in differences.items() if (row := self._mended(one, known.get(name), position)) is not None]
        )
        audit = [AuditEntry(f"annotation {name}", "repaired", "operator", one.finding) for name, one in differences.items()]
        await self._call(self._ledger.replace_annotations, mended, audit)
        lost = await _to_end(self._writer.place, mended)
        await self._call(self._ledger.flag_image_lost, lost)
        await _to_end(self._writer.sync)
        await self._call(self._ledger.clear_dirty, position)

    def _mended(self, difference: Difference, row: Annotation | None, position: int) -> Annotation | None:
        """The row as it must be for its files to be right, marked to be placed; None when the files alone were wrong."""
        file = difference.file
        if difference.finding in _STRAYS:
            return None
        if row is None:
            row = self._indexed(file)
        elif difference.finding is Finding.LABEL_FOUND:
            row = self._with_label(row, file)
        elif difference.finding is Finding.IMAGE_FOUND:
            row = row._replace(image=UNKNOWN_DIGEST, extension=file.extension, image_missing=False)
        else:
            return row._replace(dirty=position)
        if row is None:
            return None
        trained_on = position if row.home is Home.VALIDATED else row.validated_position
        return row._replace(dirty=position, position=position, validated_position=trained_on, changed=self._clock())

    def _indexed(self, file: TreeFile) -> Annotation | None:
        """A row of an annotation that had none; None when its files cannot be read."""
        settled = settle(file.name, self._reader.held(file.name, self._extensions | ({file.extension} - {""})))
        read = self._reader.read([(settled, Source())])
        if read.unreadable:
            return None
        move_aside(self._layout, [*settled.aside, *read.aside])
        return read.rows[0]

    def _with_label(self, row: Annotation, file: TreeFile) -> Annotation | None:
        read = RowsRead()
        text, problem, _ = self._reader.label(file, read)
        if read.unreadable:
            return None
        move_aside(self._layout, read.aside)
        return row._replace(label=text, label_problem=problem)


def _next_of(entries: Iterator[TreeFile | Stranger]) -> list[TreeFile | Stranger]:
    with storage("reading the names of files"):
        return list(islice(entries, _AT_A_TIME))


async def _to_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function on a thread, and see its end also when this is cancelled: what it does to files must not go on unwatched."""
    beat()
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
