"""A row of the ledger into the tree of files, from the row alone.

Bringing a row into the tree twice is the same as once, so this is the recovery too: after a crash the rows that are marked dirty are placed
again, whatever had been done of it. No file is ever changed in place: new content is a new file renamed over the old one, so a hard link to
a file is a snapshot of it.

Order matters, since a trainer takes an image without a label for background: a label appears before its image and disappears after it.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from azaion_daemon.store.durable import write_new
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Annotation


class Tree:
    """The annotation directories of one root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._images = {home: str(layout.images(home)) + "/" for home in Home}
        self._labels = {home: str(layout.labels(home)) + "/" for home in Home}
        self._incoming = str(layout.incoming) + "/"

    def place(self, row: Annotation) -> bool:
        """Make the files of an annotation match its row. False when the image that the row names is nowhere.

        Raises:
            OSError: The disk failed or is full; calling again goes on.
        """
        others = [home for home in Home if home is not row.home]
        self._place_label(row.home, row.name, row.label, sources=others)
        pending_home = Home.SEED if row.home is Home.VALIDATED and row.pending is not None else None
        found = row.image is None or self._place_image(row, others)
        for home in others:
            for extension in self._extensions(row):
                _unlink(f"{self._images[home]}{row.name}.{extension}")
            if home is not pending_home:
                _unlink(f"{self._labels[home]}{row.name}.txt")
        for extension in row.stale_extensions.split("/"):
            if extension and extension != row.extension:
                _unlink(f"{self._images[row.home]}{row.name}.{extension}")
        if pending_home and row.pending is not None:
            self._place_label(pending_home, row.name, row.pending, sources=())
        return found

    def place_all(self, rows: Iterable[Annotation]) -> list[str]:
        """Place rows; the names of those whose image is nowhere."""
        return [row.name for row in rows if not self.place(row)]

    def _see_directories(self) -> None:
        """An image is nowhere only when all the places for it are there: a directory that was moved away must not become a loss."""
        for directory in (self._incoming, *self._images.values()):
            os.stat(directory)  # noqa: PTH116 - raises what it finds

    def _extensions(self, row: Annotation) -> list[str]:
        return [extension for extension in {row.extension, *row.stale_extensions.split("/")} if extension]

    def _place_label(self, home: Home, name: str, text: str, *, sources: Iterable[Home]) -> None:
        target = f"{self._labels[home]}{name}.txt"
        content = text.encode()
        if _read(target) == content:
            return
        temporary = f"{self._incoming}{name}.txt"
        for source in sources:
            path = f"{self._labels[source]}{name}.txt"
            if _read(path) == content:
                _unlink(temporary)
                os.link(path, temporary)  # the same bytes are there already: a link is cheaper than a file
                break
        else:
            write_new(Path(temporary), content)
        os.replace(temporary, target)  # noqa: PTH105 - a hot path
        _unlink(temporary)  # renaming one link of a file over another does nothing

    def _place_image(self, row: Annotation, others: list[Home]) -> bool:
        target = f"{self._images[row.home]}{row.name}.{row.extension}"
        if row.staged is not None:
            try:
                os.replace(self._incoming + row.staged, target)  # noqa: PTH105 - a hot path
            except FileNotFoundError:
                if os.path.lexists(self._incoming + row.staged):
                    raise  # the image is there, its directory is not
            else:
                return True
        candidates = [path for home in others if os.path.lexists(path := f"{self._images[home]}{row.name}.{row.extension}")]
        if os.path.lexists(target):
            return True
        if len(candidates) > 1:  # a crash left more than one: only the digest can tell
            candidates = [path for path in candidates if _sha256(path) == row.image]
        if not candidates:
            self._see_directories()
            return False
        os.replace(candidates[0], target)  # noqa: PTH105 - a hot path
        return True


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return file.read()


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - a hot path


def _sha256(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - a hot path
        return hashlib.file_digest(file, "sha256").hexdigest()
