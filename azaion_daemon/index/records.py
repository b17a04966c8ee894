"""What other files than the ledger still know.

Datasets name the media and the digest of annotations, and the sides of the split; models and jobs have their results beside them.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from azaion_daemon.dataset.manifest import read_manifest
from azaion_daemon.dataset.split import Side
from azaion_daemon.dataset.units import MEDIA
from azaion_daemon.errors import TrainingError
from azaion_daemon.index.models import existing_model
from azaion_daemon.index.rows import Source
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import UNKNOWN_DIGEST, Model
from azaion_daemon.training.jobs import JobDirectory, JobResult

_NAME = re.compile(r"azaion-(?P<date>\d{4}-\d{2}-\d{2})(-(?P<number>\d+))?")
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class FromDatasets:
    """What the manifests of all datasets say, the newest last."""

    sources: dict[str, Source] = field(default_factory=dict)
    sides: dict[str, str] = field(default_factory=dict)
    """Of what is kept together; where datasets contradict each other, what the earliest says."""
    contradictions: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def read_datasets(layout: Layout) -> FromDatasets:
    """Read every manifest. One that is damaged says what it can."""
    found = FromDatasets()
    contradicted: set[tuple[str, str]] = set()
    complete = [path.parent for path in layout.datasets.glob("*/manifest.jsonl") if not path.parent.name.startswith(".")]
    for directory in sorted(complete, key=_age):
        try:
            inodes = _inodes(directory)
            for entry in read_manifest(directory):
                name, media, extension = entry["name"], entry["media"], entry["extension"]
                side = Side(entry["split"]).value
                if (first := found.sides.setdefault(media, side)) != side and (media, side) not in contradicted:
                    contradicted.add((media, side))
                    found.contradictions.append(f"{directory.name}: {media} is on the side {side}, in an earlier dataset on {first}")
                found.sources[name] = Source(
                    media=media.removeprefix(MEDIA) if media.startswith(MEDIA) else entry.get("of", ""),
                    digest=entry["image"] or UNKNOWN_DIGEST,
                    inode=inodes.get(f"{name}.{extension}"),
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            found.unreadable.append(f"{directory.name}/manifest.jsonl: {type(error).__name__}: {error}")
    return found


def read_models(layout: Layout) -> tuple[list[Model], list[str]]:
    """The models that were kept, the current one last; and what cannot be read."""
    models: dict[str, Model] = {}
    unreadable: list[str] = []
    jobs = {result.onnx.sha256: directory.name for directory, result in _results(layout.jobs, unreadable) if result.onnx}
    for directory, result in _results(layout.models, unreadable):
        if result.onnx is not None and result.metrics is not None:
            digest = result.onnx.sha256
            metrics = result.metrics.model_dump(mode="json")
            path = str(directory / layout.onnx.name)
            models[digest] = Model(
                digest, jobs.get(digest), result.dataset_id, metrics, path, current=False, created=result.finished.timestamp()
            )
    current = existing_model(layout, known=models)
    others = [model for model in models.values() if current is None or model.sha256 != current.sha256]
    return [*sorted(others, key=lambda model: model.created), *([current] if current else [])], unreadable


def _results(parent: Path, unreadable: list[str]) -> Iterator[tuple[Path, JobResult]]:
    for directory in sorted(path.parent for path in parent.glob("[!.]*/result.json")):
        try:
            result = JobDirectory(directory).read_result()
        except (TrainingError, OSError) as error:
            unreadable.append(str(error))
        else:
            if result is not None:
                yield directory, result


def _age(directory: Path) -> tuple[datetime, int, str]:
    """What sorts datasets by their age: what they say of it, else the date and number in the name, else as the newest."""
    named = _NAME.fullmatch(directory.name)
    number = int(named["number"] or 1) if named else 1
    try:
        created = datetime.fromisoformat(json.loads((directory / "dataset.json").read_bytes())["created"])
    except (OSError, ValueError, KeyError, TypeError):
        try:
            created = datetime.fromisoformat(named["date"]) if named else _NEVER
        except ValueError:
            created = _NEVER
    return created if created.tzinfo else created.replace(tzinfo=UTC), number, directory.name


def _inodes(dataset: Path) -> dict[str, int]:
    """The inode of each image: the same inode is the same bytes, since no file is changed in place."""
    return {entry.name: entry.inode() for side in Side for entry in os.scandir(dataset / side / "images")}
