"""Removing a directory so that a crash never leaves half of one under its name: renamed aside, durably, and only then emptied."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from azaion_daemon.store.durable import fsync_directory, storage

_ASIDE = ".removing-"
_AT_ONCE = 500
"""Names that go between two pauses: some milliseconds of work."""


def set_aside(directory: Path, parent: Path) -> Path:
    """Take a directory's name from it, durably; where it lies now, below `parent`.

    Raises:
        OSError: It cannot be renamed; all is as it was.
        StorageError: The disk failed: whether it has its name after a power cut is unknown, so it must not be emptied.
    """
    relative = "-".join(directory.relative_to(parent).parts)
    number = 1
    while (aside := parent / f"{_ASIDE}{relative}{'' if number == 1 else f'-{number}'}").exists():
        number += 1
    directory.rename(aside)
    with storage("removing", syncing=True):
        fsync_directory(directory.parent)
        fsync_directory(parent)
    return aside


def set_aside_before(parent: Path) -> list[Path]:
    """What was set aside by a process that came no further."""
    return sorted(parent.glob(_ASIDE + "*"))


def name_of(aside: Path) -> str:
    """What was set aside, as far as its name tells."""
    return aside.name.removeprefix(_ASIDE)


def remove(directory: Path) -> Iterator[int]:
    """Remove a directory and all in it, without following links. Between portions it yields how many bytes that has freed.

    Bytes count when the last name of a file goes; those that other directories share by hard links are freed by nobody.

    Raises:
        OSError: Something cannot be removed; the rest stays, and can be removed later.
    """
    freed = names = 0
    for _, directories, files, descriptor in os.fwalk(directory, topdown=False, onerror=_give_up):
        for name in (*files, *directories):
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(name, dir_fd=descriptor)
            else:
                os.unlink(name, dir_fd=descriptor)
                freed += own_bytes(found)
            names += 1
            if names % _AT_ONCE == 0:
                yield freed
                freed = 0
    directory.rmdir()
    yield freed


def _give_up(error: OSError) -> NoReturn:
    raise error


def bytes_of_its_own(directory: Path) -> int:
    """What would be freed if a directory went: the size of all files in it that have no other name."""
    return sum(
        own_bytes(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
        for _, _, files, descriptor in os.fwalk(directory, onerror=_give_up)
        for name in files
    )


def own_bytes(found: os.stat_result) -> int:
    """What the disk has for a file, in bytes, if it has no other name."""
    return found.st_blocks * 512 if found.st_nlink == 1 else 0
