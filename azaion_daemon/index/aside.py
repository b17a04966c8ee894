"""Files that have no place in the tree: moved to {root}/quarantine/tree/{home}/{images,labels}/, never deleted."""

import os
from collections.abc import Iterable
from pathlib import Path

from azaion_daemon.index.scan import TreeFile
from azaion_daemon.store.durable import storage
from azaion_daemon.store.layout import Layout


def move_aside(layout: Layout, files: Iterable[TreeFile]) -> list[str]:
    """Move files out of the tree: where each lies now, below the root. One that is gone already is not named. Not durable before a sync.

    Raises:
        StorageError: The disk failed or is full; calling again goes on.
    """
    moved = []
    with storage("moving files aside"):
        for file in files:
            source = file.path(layout)
            directory = layout.quarantined_tree / file.home / file.kind
            directory.mkdir(parents=True, exist_ok=True)
            target = _free(directory / source.name)
            try:
                source.rename(target)
            except FileNotFoundError:
                source.parent.stat()  # raises when it is the directory that is gone
            else:
                moved.append(str(target.relative_to(layout.root)))
    return moved


def _free(path: Path) -> Path:
    """The path, or one beside it, that nothing has: what was moved there before stays."""
    number = 1
    candidate = path
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate
