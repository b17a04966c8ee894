"""Comparing rows with files: what differs, from a row and from a file. Blocks; nothing is changed."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping

from azaion_daemon.index.findings import Difference, Finding, stray
from azaion_daemon.index.rows import read_whole
from azaion_daemon.index.scan import PRECEDENCE, Kind, TreeFile, directory_of
from azaion_daemon.store.digests import file_digest
from azaion_daemon.store.durable import storage
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation, Outline


class Judge:
    """Compares the rows of one root with its files."""

    def __init__(self, layout: Layout, *, deep: bool) -> None:
        """`deep` compares the digests of images, too."""
        self._directories = {(home, kind): f"{directory_of(layout, home, kind)}/" for home in Home for kind in Kind}
        self._deep = deep

    def files(self, files: Iterable[TreeFile], rows: Mapping[str, Outline]) -> list[Difference]:
        """What is wrong with files, given the rows of their annotations. A file that is gone by now is not looked at."""
        with storage("comparing the tree with the ledger"):
            return [found for file in files if (found := self._file(file, rows.get(file.name))) and self._there(file)]

    def rows(self, rows: Iterable[Annotation]) -> list[Difference]:
        """What is wrong with the files that rows ask for."""
        with storage("comparing the ledger with the tree"):
            return [found for row in rows for found in self._row(row)]

    def _file(self, file: TreeFile, row: Outline | None) -> Difference | None:
        if row is None:
            return Difference(Finding.NO_ROW, file)
        if file.kind is Kind.LABEL:
            if file.home is row.home:
                return None if row.labelled else Difference(Finding.LABEL_FOUND, file)
            pending = file.home is Home.SEED and row.home is Home.VALIDATED and row.has_pending
            return None if pending else stray(file)
        if not row.has_image:
            return Difference(Finding.IMAGE_FOUND, file)
        if file.extension == row.extension and (file.home is row.home or self._keeper(row) is file.home):
            return None  # in another home it is the row's difference
        return stray(file)

    def _row(self, row: Annotation) -> Iterator[Difference]:
        if row.labelled:
            yield from self._label(TreeFile(row.home, Kind.LABEL, row.name), row.label)
        if row.home is Home.VALIDATED and row.pending is not None:
            yield from self._label(TreeFile(Home.SEED, Kind.LABEL, row.name), row.pending)
        if row.image is None:
            return
        image = TreeFile(row.home, Kind.IMAGE, row.name, row.extension)
        if not self._there(image):
            keeper = self._keeper(row)
            if keeper is None:
                yield Difference(Finding.IMAGE_MISSING, image)
            else:
                yield Difference(Finding.IMAGE_ELSEWHERE, TreeFile(keeper, Kind.IMAGE, row.name, row.extension))
        elif self._deep and row.image != UNKNOWN_DIGEST and file_digest(self._path(image)) != row.image:
            yield Difference(Finding.IMAGE_DIFFERS, image)

    def _label(self, file: TreeFile, text: str) -> Iterator[Difference]:
        try:
            content = _content(self._path(file))
        except FileNotFoundError:
            yield Difference(Finding.LABEL_MISSING, file)
        else:
            if content != text.encode():
                yield Difference(Finding.LABEL_DIFFERS, file)

    def _keeper(self, row: Annotation | Outline) -> Home | None:
        """The home that has the image which the row's own home lacks."""
        homes = (row.home, *PRECEDENCE)
        found = next((home for home in homes if self._there(TreeFile(home, Kind.IMAGE, row.name, row.extension))), None)
        return None if found is row.home else found

    def _there(self, file: TreeFile) -> bool:
        return os.path.lexists(self._path(file))

    def _path(self, file: TreeFile) -> str:
        return self._directories[file.home, file.kind] + file.filename


def _content(path: str) -> bytes | None:
    """The bytes of a regular file that this process may read; None of anything else by that name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EACCES}:
            return None
        raise
    try:
        found = os.fstat(descriptor)
        return read_whole(descriptor, found.st_size) if stat.S_ISREG(found.st_mode) else None
    finally:
        os.close(descriptor)
