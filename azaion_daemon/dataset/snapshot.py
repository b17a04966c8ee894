"""A snapshot of the validated annotations: a dataset that can be named and repeated, and that nothing changes afterwards.

It is formed under a temporary name, synced, and renamed when it is complete. Its files are hard links: no file of the tree is ever changed
in place, so later edits and deletes do not reach into it.
"""

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from azaion_daemon.dataset.classes import Classes, classes_digest_input
from azaion_daemon.dataset.plan import DatasetPlan, Entry
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import DatasetError
from azaion_daemon.settings import DatasetSettings
from azaion_daemon.store.durable import FilesystemSync, fsync_directory, storage, write_new
from azaion_daemon.store.layout import Home, Layout

_FORMING = ".forming-"
_NO_LINKS = {errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A complete dataset: what the dataset stage hands on."""

    id: str
    """The SHA-256 of its manifest and classes: the same content has the same id on any machine."""
    path: Path
    position: int | None
    """The stream position that it shows."""
    images: Mapping[Side, int]
    objects: Mapping[Side, int]
    class_names: tuple[str, ...]
    excluded: Mapping[str, int]
    """Reason to count."""

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
) -> Snapshot:
    """Form a dataset on disk. The tree must not change meanwhile. Blocks, for seconds with many annotations.

    `record_sides` makes the sides of new media durable; it is called before the dataset gets its name.

    Raises:
        DatasetError: It could not be trained on; every problem is named, and nothing is left.
        StorageError: The disk failed or is full; nothing is left.
    """
    _refuse_untrainable(plan)
    final = _free_name(layout.datasets, f"azaion-{now:%Y-%m-%d}")
    forming = layout.datasets / (_FORMING + final.name)
    try:
        with storage("forming a dataset"):
            excluded = dict(plan.excluded)
            kept = DatasetPlan(tuple(_fill(forming, plan, layout, excluded)), excluded, {})
            _refuse_untrainable(kept)
            snapshot = _describe(forming, final, kept, classes, settings, position, now)
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


def _fill(forming: Path, plan: DatasetPlan, layout: Layout, excluded: dict[str, str]) -> list[Entry]:
    for side in Side:
        (forming / side / "images").mkdir(parents=True)
        (forming / side / "labels").mkdir()
    entries = []
    for entry in plan.entries:
        row = entry.annotation
        image = f"{row.name}.{row.extension}"
        try:
            _link(layout.images(Home.VALIDATED) / image, forming / entry.side / "images" / image)
            _link(layout.label(Home.VALIDATED, row.name), forming / entry.side / "labels" / f"{row.name}.txt")
        except FileNotFoundError as error:
            (forming / entry.side / "images" / image).unlink(missing_ok=True)
            excluded[row.name] = f"the tree lacks its {'label' if str(error.filename).endswith('.txt') else 'image'}"
        else:
            entries.append(entry)
    return entries


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except PermissionError as error:
        raise DatasetError(
            f"{source} cannot be linked: it belongs to another user, and fs.protected_hardlinks forbids that. Give all files of the "
            "annotation tree to the user that the daemon runs as."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)


def _describe(
    forming: Path,
    final: Path,
    kept: DatasetPlan,
    classes: Classes,
    settings: DatasetSettings,
    position: int | None,
    now: datetime,
) -> Snapshot:
    manifest = b"".join(_line(_manifest_entry(entry)) for entry in kept.entries)
    id_ = hashlib.sha256(manifest + classes_digest_input(classes)).hexdigest()
    reasons = Counter(kept.excluded.values())
    snapshot = Snapshot(id_, final, position, kept.images(), kept.objects(), classes.names, reasons)
    write_new(forming / "manifest.jsonl", manifest)
    write_new(forming / "excluded.jsonl", b"".join(_line({"name": name, "reason": why}) for name, why in sorted(kept.excluded.items())))
    write_new(forming / "data.yaml", yaml.safe_dump(_data_yaml(final, classes), sort_keys=False, allow_unicode=True).encode())
    document = {
        "id": id_,
        "name": final.name,
        "position": position,
        "created": now.isoformat(),
        "images": snapshot.images,
        "objects": snapshot.objects,
        "excluded": reasons,
        "settings": settings.model_dump(mode="json"),
    }
    write_new(forming / "dataset.json", json.dumps(document, indent=1).encode())
    return snapshot


def _manifest_entry(entry: Entry) -> dict[str, Any]:
    row = entry.annotation
    return {
        "name": row.name,
        "extension": row.extension,
        "media": entry.media,
        "split": entry.side,
        "image": row.image,
        "label": hashlib.sha256(row.label.encode()).hexdigest(),
    }


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
