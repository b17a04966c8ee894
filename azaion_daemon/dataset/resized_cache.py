"""Reduced images, made once and linked into datasets from then on: {cache}/{first two digits}/{digest of the original}-{how}.jpg.

A file of the cache is whole, whatever happened when it was made, and it is never changed. How many names a file has says whether a dataset
uses it, so nothing has to be recorded, and nothing can be wrong after a crash.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from azaion_daemon.dataset.reduction import Reduction
from azaion_daemon.health import beat
from azaion_daemon.store.durable import remove_temporaries, storage


class _File(NamedTuple):
    last_used: float
    bytes: int
    path: str


class Pruned(NamedTuple):
    """What was removed."""

    files: int
    bytes: int


def cached(cache: Path, digest: str, reduction: Reduction) -> Path:
    """Where the reduced image of an original is, if it was made."""
    return cache / digest[:2] / reduction.file(digest)


def cached_digests(cache: Path, reduction: Reduction) -> set[str]:
    """The digests of the originals that were reduced so. Reads the directories only: 100,000 in a fifth of a second."""
    with storage("reading the cache of resized images"):
        return {
            entry.name.removesuffix(reduction.suffix)
            for directory in _directories(cache)
            for entry in os.scandir(directory)
            if entry.name.endswith(reduction.suffix) and not entry.name.startswith(".")
        }


def remove_debris(cache: Path) -> None:
    """Remove what killed resizers have left. While none works."""
    with storage("cleaning the cache of resized images"):
        remove_temporaries(*_directories(cache))


def exceeds(cache: Path, bound_bytes: int) -> bool:
    """Whether what no dataset uses takes more."""
    with storage("measuring the cache of resized images"):
        return sum(file.bytes for file in _unused(cache, frozenset())) > bound_bytes


def prune(cache: Path, *, bound_bytes: int, keep: Iterable[str] = ()) -> Pruned:
    """Remove files that no dataset uses, and whose names (with the suffix) are not in `keep`, until those left are within the bound.

    Those that were left by their last dataset first go first: the kernel dates a change in the number of names.
    """
    kept = frozenset(keep)
    with storage("pruning the cache of resized images"):
        unused = sorted(_unused(cache, kept), reverse=True)
        left = sum(file.bytes for file in unused)
        files = bytes_ = 0
        while unused and left - bytes_ > bound_bytes:
            file = unused.pop()
            os.unlink(file.path)  # noqa: PTH108 - there may be a hundred thousand
            beat()
            files += 1
            bytes_ += file.bytes
    return Pruned(files, bytes_)


def _unused(cache: Path, kept: frozenset[str]) -> Iterable[_File]:
    for directory in _directories(cache):
        for entry in os.scandir(directory):
            if entry.name in kept or entry.name.startswith("."):
                continue
            found = entry.stat(follow_symlinks=False)
            if found.st_nlink == 1:
                yield _File(found.st_ctime, found.st_blocks * 512, entry.path)


def _directories(cache: Path) -> list[Path]:
    try:
        return [path for path in cache.iterdir() if path.is_dir()]
    except FileNotFoundError:  # nothing was ever resized
        return []
