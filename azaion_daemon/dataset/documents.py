"""What a dataset says of itself, as bytes: manifest, exclusions, data.yaml and the rest. The same content gives the same bytes anywhere."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from azaion_daemon.dataset.classes import Classes, classes_digest_input
from azaion_daemon.dataset.counts import Counts, counts_document
from azaion_daemon.dataset.entries import Entry, Exclusion
from azaion_daemon.dataset.manifest import Content
from azaion_daemon.dataset.readiness import Finding
from azaion_daemon.dataset.units import MEDIA
from azaion_daemon.sections import DatasetSettings


def manifest_line(entry: Entry, suffix: str, resized: str | None) -> bytes:
    """What the manifest says of an image: `suffix` is that in the dataset, the digest that of the annotation's own image."""
    row = entry.annotation
    content = Content.of(row)
    document = {
        "name": row.name,
        "extension": suffix.removeprefix("."),
        "media": entry.media,
        "split": entry.side,
        "image": content.image,
        "label": content.label,
    }
    if row.media and not entry.media.startswith(MEDIA):
        document["of"] = row.media  # it was divided
    if resized is not None:
        document["resized"] = resized
    return _line(document)


def dataset_id(manifest: bytes, classes: Classes) -> str:
    """The SHA-256 of what is trained on."""
    digest = hashlib.sha256(manifest)
    digest.update(classes_digest_input(classes))
    return digest.hexdigest()


def exclusions(excluded: Mapping[str, Exclusion]) -> bytes:
    """excluded.jsonl."""
    return b"".join(_line({"name": name, "reason": one.reason, "detail": one.detail}) for name, one in sorted(excluded.items()))


def data_yaml(path: Path, classes: Classes) -> bytes:
    """What Ultralytics is given; `path` is absolute, since it would look for a relative one in a directory of its own."""
    document = {
        "path": str(path.absolute()),
        "train": "train/images",
        "val": "valid/images",
        "test": "test/images",
        "names": dict(enumerate(classes.names)),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()


def description(
    id_: str,
    name: str,
    counts: Counts,
    classes: Classes,
    settings: DatasetSettings,
    *,
    position: int | None,
    created: datetime,
    remarks: Iterable[Finding],
) -> bytes:
    """dataset.json: the rest, none of which belongs to the identity."""
    document = {
        "id": id_,
        "name": name,
        "position": position,
        "created": created.isoformat(),
        **counts_document(counts, classes),
        "remarks": [remark._asdict() for remark in remarks],
        "settings": settings.model_dump(mode="json"),
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
