"""What there is on disk. Directories that are not ours are not seen: other names, links, those without a dataset.json."""

import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from azaion_daemon.errors import TrainingError
from azaion_daemon.retention.rules import DatasetOnDisk, Worker
from azaion_daemon.store.durable import is_locked
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.jobs import JobDirectory

_DATASET_NAME = re.compile(r"azaion-\d{4}-\d{2}-\d{2}(-[1-9]\d*)?")


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The datasets, the job directories and the directories of models that there are."""

    datasets: Sequence[DatasetOnDisk]
    unreadable: Sequence[str]
    """Of those that are named like a dataset and have a dataset.json, what cannot be read; they are left alone."""
    job_directories: Collection[str]
    model_directories: Collection[str]


def look_at_disk(layout: Layout) -> OnDisk:
    """What is on disk. To be read before the ledger, so that whatever is seen here has its job there.

    Raises:
        OSError: The directories cannot be listed.
    """
    datasets: list[DatasetOnDisk] = []
    unreadable: list[str] = []
    for path in _directories(layout.datasets):
        if not _DATASET_NAME.fullmatch(path.name):
            continue
        try:
            datasets.append(_dataset(path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            unreadable.append(f"{path / 'dataset.json'} cannot be read: {type(error).__name__}: {error}")
    jobs, models = (frozenset(path.name for path in _directories(parent)) for parent in (layout.jobs, layout.models))
    return OnDisk(datasets, unreadable, jobs, models)


def living_workers(layout: Layout, job_directories: Iterable[str]) -> list[Worker]:
    """Those jobs whose lock is held."""
    return [Worker(name, _dataset_of(job)) for name in job_directories if is_locked((job := JobDirectory(layout.jobs / name)).lock)]


def _dataset_of(job: JobDirectory) -> str | None:
    try:
        return job.read_spec().dataset_name
    except TrainingError:
        return None


def _directories(parent: Path) -> list[Path]:
    with os.scandir(parent) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."))


def _dataset(path: Path) -> DatasetOnDisk:
    document = json.loads((path / "dataset.json").read_bytes())
    if document["name"] != path.name:
        raise ValueError(f"it is that of {document['name']}")
    position = document["position"]
    return DatasetOnDisk(
        path.name,
        str(document["id"]),
        datetime.fromisoformat(document["created"]).timestamp(),
        None if position is None else int(position),
    )
