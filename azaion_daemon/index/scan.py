"""What lies in the annotation directories: names only. No file is opened, and no symbolic link is followed.

What cannot be an annotation's file is left alone and named: hidden files, other extensions, subdirectories, links, names that no message
could have.
"""

import os
from collections.abc import Generator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.stream.wire import name_problem

PRECEDENCE = (Home.VALIDATED, Home.SEED, Home.DELETED)
"""Which home an annotation belongs to whose files lie in several: what people have looked at wins, and what is deleted wins last."""
_LABEL_SUFFIX = ".txt"


class Kind(StrEnum):
    """What a file is to its annotation, named as its directory."""

    IMAGE = "images"
    LABEL = "labels"


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of an annotation. An image's extension is as it is spelled on disk; a label has none."""

    home: Home
    kind: Kind
    name: str
    extension: str = ""

    @property
    def filename(self) -> str:
        """Its name in its directory."""
        return f"{self.name}{_LABEL_SUFFIX}" if self.kind is Kind.LABEL else f"{self.name}.{self.extension}"

    def path(self, layout: Layout) -> Path:
        """Where it lies."""
        return directory_of(layout, self.home, self.kind) / self.filename


@dataclass(frozen=True, slots=True)
class Stranger:
    """Something that is left alone, and why. Its path is below the root, in a form that can be printed."""

    path: str
    why: str


@dataclass(slots=True)
class HomeFiles:
    """The names in one home. An annotation may have several images there, each of another extension."""

    labels: set[str] = field(default_factory=set)
    images: dict[str, str] = field(default_factory=dict)
    """Name to extension, of the first image found."""
    more_images: dict[str, list[str]] = field(default_factory=dict)
    """Name to the other extensions."""

    def extensions(self, name: str) -> list[str]:
        """The extensions of an annotation's images."""
        first = self.images.get(name)
        return [] if first is None else [first, *self.more_images.get(name, ())]


@dataclass(slots=True)
class Scan:
    """All names in the tree."""

    homes: dict[Home, HomeFiles] = field(default_factory=lambda: {home: HomeFiles() for home in Home})
    strangers: list[Stranger] = field(default_factory=list)

    def names(self) -> list[str]:
        """The names of all annotations, in order."""
        found: set[str] = set()
        for files in self.homes.values():
            found |= files.labels
            found |= files.images.keys()
        return sorted(found)


def scan_tree(layout: Layout, extensions: AbstractSet[str]) -> Scan:
    """Read the names in all annotation directories; `extensions` are those that an image may have, in lower case.

    Raises:
        OSError: A directory cannot be read.
    """
    scan = Scan()
    for home in Home:
        files = scan.homes[home]
        for kind in Kind:
            for found in scan_directory(layout, home, kind, extensions):
                match found:
                    case Stranger():
                        scan.strangers.append(found)
                    case TreeFile(kind=Kind.LABEL, name=name):
                        files.labels.add(name)
                    case TreeFile(name=name, extension=extension):
                        if files.images.setdefault(name, extension) != extension:
                            files.more_images.setdefault(name, []).append(extension)
    return scan


def scan_directory(layout: Layout, home: Home, kind: Kind, extensions: AbstractSet[str]) -> Generator[TreeFile | Stranger, None, None]:
    """What lies in one annotation directory, in the order of the filesystem."""
    directory = directory_of(layout, home, kind)
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False):
                yield Stranger(_printable(layout, directory, entry.name), _what(entry))
                continue
            found = annotation_file(home, kind, entry.name, extensions)
            yield Stranger(_printable(layout, directory, entry.name), found) if isinstance(found, str) else found


def annotation_file(home: Home, kind: Kind, filename: str, extensions: AbstractSet[str]) -> TreeFile | str:
    """Whose file this is by its name, or why it is nobody's."""
    if filename.startswith("."):
        return "is hidden"
    if kind is Kind.LABEL:
        name, extension = filename.removesuffix(_LABEL_SUFFIX), ""
        if name == filename:
            return "is not a .txt file"
    else:
        name, dot, extension = filename.rpartition(".")
        if not dot or extension.lower() not in extensions:
            return "has an extension that images may not have"
    if problem := name_problem(name):
        return f"has a name that {problem}"
    return TreeFile(home, kind, name, extension)


def directory_of(layout: Layout, home: Home, kind: Kind) -> Path:
    """The directory of a home's files of one kind."""
    return layout.images(home) if kind is Kind.IMAGE else layout.labels(home)


def _what(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "is a symbolic link"
    return "is a directory" if entry.is_dir(follow_symlinks=False) else "is no regular file"


def _printable(layout: Layout, directory: Path, filename: str) -> str:
    path = f"{directory.relative_to(layout.root)}/{filename}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in path)
