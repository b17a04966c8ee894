"""Rows of the ledger from files of the tree: labels are read, images are neither opened nor decoded."""

import os
import stat
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from azaion_daemon.index.scan import Kind, TreeFile, directory_of
from azaion_daemon.index.settle import Held, Settled
from azaion_daemon.store.labels import label_problem
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import NO_LABEL, UNKNOWN_DIGEST, Annotation

_MAX_LABEL_BYTES = 16 << 20
_NO_FILE = "", NO_LABEL + "its file is missing", None


@dataclass(frozen=True, slots=True)
class Source:
    """What other records say of an annotation."""

    media: str = ""
    digest: str = UNKNOWN_DIGEST
    inode: int | None = None
    """Of the file that has this digest."""

    def digest_of(self, image: os.stat_result) -> str:
        """The digest of an image, if it is the same file."""
        return self.digest if image.st_ino == self.inode else UNKNOWN_DIGEST


@dataclass(slots=True)
class RowsRead:
    """What became of some annotations."""

    rows: list[Annotation] = field(default_factory=list)
    aside: list[TreeFile] = field(default_factory=list)
    """Files that are no label whatever their name says."""
    unreadable: list[str] = field(default_factory=list)
    """Files that this process may not read, with the reason."""


class RowReader:
    """Makes rows; its methods block and may run on several threads at once."""

    def __init__(self, layout: Layout, known_classes: AbstractSet[int], *, now: float) -> None:
        self._directories = {(home, kind): f"{directory_of(layout, home, kind)}/" for home in Home for kind in Kind}
        self._known_classes = known_classes
        self._now = now
        self._euid = os.geteuid()

    def read(self, settled: Iterable[tuple[Settled, Source]]) -> RowsRead:
        """The rows of these annotations. A file that has vanished meanwhile is missing."""
        read = RowsRead()
        for one, source in settled:
            read.rows.append(self._row(one, source, read))
        return read

    def newest_first(self, home: Home, name: str, extensions: Iterable[str]) -> tuple[str, ...]:
        """The extensions of an annotation's images in one home, that of the newest image first."""

        def age(extension: str) -> tuple[float, str]:
            found = _stat(self._path(TreeFile(home, Kind.IMAGE, name, extension)))
            return (-found.st_mtime if found else 0.0, extension)

        return tuple(sorted(extensions, key=age))

    def held(self, name: str, extensions: AbstractSet[str]) -> dict[Home, Held]:
        """What the homes hold of one annotation, looked up file by file; extensions in lower case only."""
        found = {}
        for home in Home:
            label = _stat(self._path(TreeFile(home, Kind.LABEL, name))) is not None
            images = [one for one in extensions if _stat(self._path(TreeFile(home, Kind.IMAGE, name, one))) is not None]
            if label or images:
                found[home] = Held(label, self.newest_first(home, name, images))
        return found

    def _path(self, file: TreeFile) -> str:
        return self._directories[file.home, file.kind] + file.filename

    def _row(self, settled: Settled, source: Source, read: RowsRead) -> Annotation:
        name, home = settled.name, settled.home
        text, problem, labelled_at = self.label(TreeFile(home, Kind.LABEL, name), read) if settled.labelled else _NO_FILE
        pending = None
        if settled.pending:
            revision, revision_problem, _ = self.label(TreeFile(Home.SEED, Kind.LABEL, name), read)
            pending = None if revision_problem and revision_problem.startswith(NO_LABEL) else revision
        image = settled.image
        found = None if image is None else self._image(image, read)
        created = found.st_mtime if found else labelled_at
        return Annotation(
            name=name,
            home=home,
            extension=image.extension if found and image else "",
            label=text,
            pending=pending,
            image=source.digest_of(found) if found else None,
            validated_position=0 if home is Home.VALIDATED else None,
            media=source.media,
            created_at=created,
            image_missing=not found,
            label_problem=problem,
            first_seen=self._now,
            changed=labelled_at or created or self._now,
        )

    def label(self, file: TreeFile, read: RowsRead) -> tuple[str, str | None, float | None]:
        """The text of a label file, what is wrong with it, and the time when it was written."""
        path = self._path(file)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return _NO_FILE
        except OSError as error:
            read.unreadable.append(f"{path}: {error.strerror}")
            return "", NO_LABEL + "its file cannot be read", None
        try:
            found = os.fstat(descriptor)
            content = read_whole(descriptor, found.st_size) if found.st_size <= _MAX_LABEL_BYTES else None
        except OSError as error:
            read.unreadable.append(f"{path}: {error.strerror}")
            return "", NO_LABEL + "its file cannot be read", None
        finally:
            os.close(descriptor)
        if content is None:
            read.aside.append(file)
            return "", f"{NO_LABEL}its file has {found.st_size} bytes, more than a label may have", None
        try:
            text = content.decode()
        except UnicodeDecodeError:
            read.aside.append(file)
            return "", NO_LABEL + "its file is not UTF-8", None
        return text, label_problem(text, self._known_classes), found.st_mtime

    def _image(self, file: TreeFile, read: RowsRead) -> os.stat_result | None:
        path = self._path(file)
        found = _stat(path)
        if found is not None and found.st_uid != self._euid and not os.access(path, os.R_OK):
            read.unreadable.append(f"{path}: Permission denied")
        return found


def _stat(path: str) -> os.stat_result | None:
    """A regular file's numbers; None when there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def read_whole(descriptor: int, size: int) -> bytes:
    """The content of an open file of that size."""
    content = os.read(descriptor, size + 1)
    while len(content) < size and (more := os.read(descriptor, size)):
        content += more
    return content
