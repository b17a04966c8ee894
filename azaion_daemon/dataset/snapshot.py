"""A snapshot of the validated annotations: a dataset that can be named and repeated, and that nothing changes afterwards.

It is formed under a temporary name, synced, and renamed when it is complete. Its files are hard links: no file of the tree is ever changed
in place, so later edits and deletes do not reach into it.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from azaion_daemon.dataset.classes import Classes, classes_digest_input
from azaion_daemon.dataset.counts import Counts, counts_document
from azaion_daemon.dataset.entries import Entry, Exclusion, Reason
from azaion_daemon.dataset.linking import ImageSource, link
from azaion_daemon.dataset.plan import DatasetPlan
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import DatasetError
from azaion_daemon.settings import DatasetSettings
from azaion_daemon.store.durable import FilesystemSync, fsync_directory, storage, write_new
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Annotation

_FORMING = ".forming-"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A complete dataset: what the dataset stage hands on."""

    id: str
    """The SHA-256 of its manifest and classes: the same content has the same id on any machine."""
    path: Path
    position: int | None
    """The stream position that it shows."""
    counts: Counts
    class_names: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its directory's name."""
        return self.path.name

    @property
    def data_yaml(self) -> Path:
        """The file that a trainer is given."""
        return self.path / "data.yaml"


def remove_debris(layout: Layout) -> list[str]:
    """Remove datasets that a crash left unfinished; their names."""
    debris = sorted(layout.datasets.glob(_FORMING + "*"))
    with storage("removing unfinished datasets"):
        for directory in debris:
            shutil.rmtree(directory)
    return [directory.name.removeprefix(_FORMING) for directory in debris]


def form_snapshot(
    plan: DatasetPlan,
    layout: Layout,
    classes: Classes,
    settings: DatasetSettings,
    *,
    position: int | None,
    now: datetime,
    record_sides: Callable[[Mapping[str, Side]], None],
    image_of: Callable[[Annotation], ImageSource] | None = None,
) -> Snapshot:
    """Form a dataset on disk. The tree must not change meanwhile. Blocks, for seconds with many annotations.

    `record_sides` makes the sides of new media durable; it is called before the dataset gets its name. `image_of` says which file stands
    for an annotation's image; by default that in the tree.

    Raises:
        DatasetError: It could not be trained on; every problem is named, and nothing is left.
        StorageError: The disk failed or is full; nothing is left.
    """
    _refuse_untrainable(plan)
    final = _free_name(layout.datasets, f"azaion-{now:%Y-%m-%d}")
    forming = layout.datasets / (_FORMING + final.name)
    try:
        with storage("forming a dataset"):
            placed, missing = _fill(forming, plan, layout, image_of or _in_tree(layout))
            kept = plan.without(missing)
            _refuse_untrainable(kept)
            manifest = b"".join(_line(_manifest_entry(entry, image)) for entry, image in placed)
            snapshot = _describe(forming, final, kept, manifest, classes, settings, position, now)
            sync = FilesystemSync(layout.root)
            try:
                sync()
            finally:
                sync.close()
            record_sides(plan.new_sides)
            forming.rename(final)
            fsync_directory(layout.datasets)
    except BaseException:
        shutil.rmtree(forming, ignore_errors=True)
        raise
    return snapshot


def _refuse_untrainable(plan: DatasetPlan) -> None:
    if problems := plan.problems():
        raise DatasetError("the annotations cannot be trained on:\n" + "\n".join(f"  {problem}" for problem in problems))


def _free_name(datasets: Path, name: str) -> Path:
    number = 1
    while (path := datasets / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def _in_tree(layout: Layout) -> Callable[[Annotation], ImageSource]:
    return lambda row: ImageSource(layout.image(Home.VALIDATED, row.name, row.extension))


def _fill(
    forming: Path, plan: DatasetPlan, layout: Layout, image_of: Callable[[Annotation], ImageSource]
) -> tuple[list[tuple[Entry, ImageSource]], dict[str, Exclusion]]:
    """Put every annotation's files in their place; what was placed, and what the tree lacks."""
    for side in Side:
        (forming / side / "images").mkdir(parents=True)
        (forming / side / "labels").mkdir()
    placed: list[tuple[Entry, ImageSource]] = []
    missing: dict[str, Exclusion] = {}
    for entry in plan.entries:
        name, image = entry.annotation.name, image_of(entry.annotation)
        target = forming / entry.side / "images" / (name + image.path.suffix)
        try:
            link(image.path, target)
            link(layout.label(Home.VALIDATED, name), forming / entry.side / "labels" / f"{name}.txt")
        except FileNotFoundError as error:
            target.unlink(missing_ok=True)
            what = "label" if str(error.filename).endswith(".txt") else "image"
            missing[name] = Exclusion(Reason.NOT_IN_TREE, f"the tree lacks its {what}")
        else:
            placed.append((entry, image))
    return placed, missing


def _describe(
    forming: Path,
    final: Path,
    kept: DatasetPlan,
    manifest: bytes,
    classes: Classes,
    settings: DatasetSettings,
    position: int | None,
    now: datetime,
) -> Snapshot:
    id_ = hashlib.sha256(manifest + classes_digest_input(classes)).hexdigest()
    snapshot = Snapshot(id_, final, position, kept.counts, classes.names)
    write_new(forming / "manifest.jsonl", manifest)
    write_new(forming / "excluded.jsonl", b"".join(_line(_exclusion_entry(*item)) for item in sorted(kept.excluded.items())))
    write_new(forming / "data.yaml", yaml.safe_dump(_data_yaml(final, classes), sort_keys=False, allow_unicode=True).encode())
    document = {
        "id": id_,
        "name": final.name,
        "position": position,
        "created": now.isoformat(),
        **counts_document(kept.counts, classes),
        "settings": settings.model_dump(mode="json"),
    }
    write_new(forming / "dataset.json", json.dumps(document, indent=1).encode())
    return snapshot


def _manifest_entry(entry: Entry, image: ImageSource) -> dict[str, Any]:
    """A line of the manifest: `extension` is that in the dataset, `image` the digest of the annotation's own image."""
    row = entry.annotation
    document = {
        "name": row.name,
        "extension": image.path.suffix.removeprefix("."),
        "media": entry.media,
        "split": entry.side,
        "image": row.image,
        "label": hashlib.sha256(row.label.encode()).hexdigest(),
    }
    return document if image.resized is None else {**document, "resized": image.resized}


def _exclusion_entry(name: str, exclusion: Exclusion) -> dict[str, Any]:
    return {"name": name, "reason": exclusion.reason, "detail": exclusion.detail}


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _data_yaml(path: Path, classes: Classes) -> dict[str, Any]:
    return {
        "path": str(path),
        "train": "train/images",
        "val": "valid/images",
        "test": "test/images",
        "names": dict(enumerate(classes.names)),
    }
