"""A row of the ledger into the tree of files, from the row alone.

Bringing a row into the tree twice is the same as once, so this is the recovery too: after a crash the rows that are marked dirty are placed
again, whatever had been done of it. No file is ever changed in place: new content is a new file renamed over the old one, so a hard link to
a file is a snapshot of it.

Order matters, since a trainer takes an image without a label for background: a label appears before its image and disappears after it.
"""

import errno
import os
import stat
from collections.abc import Iterable

from azaion_daemon.store.digests import file_digest
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Annotation

_LABEL_BYTES = 4096
"""What is read of a label at a time: nearly always all of it."""


class Tree:
    """The annotation directories of one root.

    Called ten thousand times a second, so it asks the filesystem no more than it must, and is best run on one thread: renames between
    directories wait for each other in the kernel anyway, and threads for the interpreter.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._images = {home: str(layout.images(home)) + "/" for home in Home}
        self._labels = {home: str(layout.labels(home)) + "/" for home in Home}
        self._others = {home: tuple(other for other in Home if other is not home) for home in Home}
        self._incoming = str(layout.incoming) + "/"

    def place(self, row: Annotation) -> bool:
        """Make the files of an annotation match its row. False when the image that the row names is nowhere.

        Raises:
            OSError: The disk failed or is full; calling again goes on.
        """
        others = self._others[row.home]
        if row.labelled:
            self._place_label(row.home, row.name, row.label, sources=others)
        pending_home = Home.SEED if row.home is Home.VALIDATED and row.pending is not None else None
        found = self._place_image(row, others)
        if row.stale_extensions:
            self._clear_stale(row, others if found else ())
        for home in others:
            if home is not pending_home:
                _unlink(f"{self._labels[home]}{row.name}.txt")
        if pending_home and row.pending is not None:
            self._place_label(pending_home, row.name, row.pending, sources=())
        return found

    def place_all(self, rows: Iterable[Annotation]) -> list[Annotation]:
        """Place rows; those whose image is nowhere."""
        return [row for row in rows if not self.place(row)]

    def _see_directories(self) -> None:
        """An image is nowhere only when all the places for it are there: a directory that was moved away must not become a loss."""
        for directory in (self._incoming, *self._images.values()):
            os.stat(directory)  # noqa: PTH116 - raises what it finds

    def _place_label(self, home: Home, name: str, text: str, *, sources: Iterable[Home]) -> None:
        target, content = f"{self._labels[home]}{name}.txt", text.encode()
        there = _read(target)
        if there == content:
            return
        temporary = f"{self._incoming}{name}.txt"
        # The same bytes may be in another home already: a link is cheaper than a file.
        source = next((path for other in sources if _read(path := f"{self._labels[other]}{name}.txt") == content), None)
        if source is None:
            _write_new(temporary, content)
        elif there is None:
            os.link(source, target)
            return
        else:
            _unlink(temporary)
            os.link(source, temporary)
        os.replace(temporary, target)  # noqa: PTH105 - a hot path

    def _place_image(self, row: Annotation, others: Iterable[Home]) -> bool:
        """The image where it belongs and nowhere else; what lies elsewhere is kept while the one that should be here is nowhere."""
        if not row.extension:
            return True
        file = f"{row.name}.{row.extension}"
        target = self._images[row.home] + file
        elsewhere = [path for home in others if _is_there(path := self._images[home] + file)]
        if row.image is not None and not self._take_staged(row, target) and not _is_there(target):
            # A crash may have left more than one: only the digest can tell.
            source = next((path for path in elsewhere if len(elsewhere) == 1 or file_digest(path) == row.image), None)
            if source is None:
                self._see_directories()
                return False
            os.replace(source, target)  # noqa: PTH105 - a hot path
            elsewhere.remove(source)
        for path in elsewhere:
            _unlink(path)
        return True

    def _take_staged(self, row: Annotation, target: str) -> bool:
        if row.staged is None:
            return False
        try:
            os.replace(self._incoming + row.staged, target)  # noqa: PTH105 - a hot path
        except FileNotFoundError:
            if _is_there(self._incoming + row.staged):
                raise  # the image is there, its directory is not
            return False
        return True

    def _clear_stale(self, row: Annotation, others: Iterable[Home]) -> None:
        """Images under extensions that the annotation had before."""
        for extension in row.stale_extensions.split("/"):
            if extension and extension != row.extension:
                for home in (*others, row.home):
                    _unlink(f"{self._images[home]}{row.name}.{extension}")


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe must not hold us up
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileExistsError(errno.EEXIST, "it is no file, and stands where one belongs; move it away", path)
        content = os.read(descriptor, _LABEL_BYTES)
        while len(content) % _LABEL_BYTES == 0 and (more := os.read(descriptor, _LABEL_BYTES)):
            content += more
        return content
    finally:
        os.close(descriptor)


def _write_new(path: str, content: bytes) -> None:
    """Never into a file that is there: it may be a link to somebody's label."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o640)
    except FileExistsError:  # left by a step that failed
        os.unlink(path)  # noqa: PTH108 - a hot path
        descriptor = os.open(path, flags, 0o640)
    try:
        written = os.write(descriptor, content)
        while written < len(content):
            written += os.write(descriptor, content[written:])
    finally:
        os.close(descriptor)


def _is_there(path: str) -> bool:
    """Unlike `os.path.lexists` it does not take a disk that failed for an absence."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _unlink(path: str) -> None:
    try:  # noqa: SIM105 - a hot path
        os.unlink(path)  # noqa: PTH108 - a hot path
    except FileNotFoundError:
        pass
