"""How much disk a dataset and its training need, and how much there is."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from azaion_daemon.dataset.entries import Entry
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.store.durable import storage
from azaion_daemon.store.layout import Home, Layout

_WEIGHTS_WRITTEN = 40
"""What a training writes, in times of the weights that it starts from (16 bits a number; a checkpoint also has the optimizer's state, so it
is three times as large): last and best in the run, in two pairs that are kept and in one that is being made, which is 8 checkpoints or 24;
the model in 32 bits for ONNX while it is exported and simplified, its copies in models/, and the encrypted parts."""
_ENTRY_BYTES = 2048
"""Of each image: two names in directories, lines of manifest and label cache."""


class Disk(NamedTuple):
    """What is known of the filesystem that a dataset is formed on."""

    where: Path
    free_bytes: int
    needed_bytes: int
    reserve_bytes: int
    """What must stay free."""
    free_inodes: int | None = None
    """None where the filesystem does not count them."""
    needed_inodes: int = 0


def training_bytes(weights: Path) -> int:
    """About how much a training writes that starts from these weights; 0 when they are no file, as with an architecture."""
    try:
        return _WEIGHTS_WRITTEN * weights.stat().st_size
    except OSError:
        return 0


def measure_disk(layout: Layout, entries: Collection[Entry], settings: DatasetSettings, training: int) -> Disk:
    """Look at the disk; `training` is what the training writes beside. Looks at every file where links are not possible.

    Raises:
        StorageError: The filesystem does not answer.
    """
    with storage("looking at the free space of"):
        found = os.statvfs(layout.datasets)
        device = layout.datasets.stat().st_dev
        copied = [
            directory for directory in (layout.images(Home.VALIDATED), layout.labels(Home.VALIDATED)) if directory.stat().st_dev != device
        ]
    sizes = _sizes(layout, entries) if copied else 0
    return Disk(
        where=layout.datasets,
        free_bytes=found.f_bavail * found.f_frsize,
        needed_bytes=_ENTRY_BYTES * len(entries) + sizes + training,
        reserve_bytes=settings.min_free_disk,
        free_inodes=found.f_favail if found.f_files else None,
        needed_inodes=len(entries) * len(copied) + 20,
    )


def _sizes(layout: Layout, entries: Collection[Entry]) -> int:
    images, labels = layout.images(Home.VALIDATED), layout.labels(Home.VALIDATED)
    wanted = {f"{entry.annotation.name}.{entry.annotation.extension}" for entry in entries}
    with storage("measuring the annotations"):
        return sum(file.stat().st_size for file in os.scandir(images) if file.name in wanted) + sum(
            file.stat().st_size for file in os.scandir(labels)
        )
