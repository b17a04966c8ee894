"""Messages, events, images and roots for unit tests: every argument has a default, so that a test names only what it is about."""

import hashlib
import io
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
from PIL import Image
from pydantic import ByteSize
from rstream import AMQPMessage

from azaion_daemon.ingest.rules import StagedImage
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Annotation
from azaion_daemon.store.root import init_root
from azaion_daemon.stream.events import AnnotationEvent, RawMessage, Role, Status

OPERATOR, VALIDATOR = Role.OPERATOR, Role.VALIDATOR
CLASSES = frozenset(range(5))
BOX = "1 0.5 0.5 0.25 0.25\n"
CREATED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DETECTIONS = [{"cls": 1, "x": 0.5, "y": 0.5, "w": 0.25, "h": 0.25}]


@cache
def picture(number: int = 0, format_: str = "JPEG", size: int = 32) -> bytes:
    """A small real image; each number gives another one."""
    noise = random.Random(number).randbytes(size * size * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", (size, size), noise).save(file, format_)
    return file.getvalue()


def staged(number: int = 0, file: str | None = None) -> StagedImage:
    """What the stager says of `picture(number)`."""
    return StagedImage(file or f"{number}.image", hashlib.sha256(picture(number)).hexdigest(), 32, 32)


def event(
    status: Status = Status.CREATED,
    *,
    name: str = "a",
    role: int = OPERATOR,
    label: str = BOX,
    extension: str = "jpg",
    position: int = 1,
    digest: bytes | None = None,
    **others: Any,
) -> AnnotationEvent:
    """A Created or Edited event; its digest is that of its position, so that each is another message."""
    fields: dict[str, Any] = {
        "image": None, "email": "u@x.io", "media": "", "time_ticks": None, "created": None, "source": None,
    }  # fmt: skip
    return AnnotationEvent(
        position=position,
        digest=hashlib.sha256(str(position).encode()).digest() if digest is None else digest,
        status=status,
        name=name,
        label=label,
        extension=extension,
        role=role,
        **{**fields, **others},
    )


SMALL = DatasetSettings(min_images=1, min_objects=1, min_free_disk=ByteSize(0))
"""How a dataset of a few annotations is formed."""


def row(home: Home = Home.SEED, *, name: str = "a", label: str = BOX, extension: str = "jpg", **others: Any) -> Annotation:
    """A ledger row of an annotation that has the image `picture(0)`."""
    image = hashlib.sha256(picture(0)).hexdigest()
    return Annotation(**{"name": name, "home": home, "extension": extension, "label": label, "image": image, "position": 1, **others})


def payload(
    name: object = "a",
    *,
    detections: object = DETECTIONS,
    image: object = None,
    role: object = OPERATOR,
    extension: object = "jpg",
    **others: object,
) -> list[object]:
    """The fields of an annotation message, in their order."""
    fields: dict[str, object] = {"created": msgpack.Timestamp.from_datetime(CREATED_AT), "media": "v.mp4", "ticks": 7}
    fields |= {"email": "u@x.io", "source": 1, "status": 10, **others}
    text = detections if isinstance(detections, str | bytes | int | None) else json.dumps(detections)
    return [
        fields["created"], name, fields["media"], fields["ticks"], extension, text, image, role, fields["email"], fields["source"],
        fields["status"],
    ]  # fmt: skip


def raw(offset: int, body: object, properties: Mapping[Any, Any] | None = None) -> RawMessage:
    """A message as the broker delivers it; a body that is not bytes is packed."""
    content = body if isinstance(body, bytes) else msgpack.packb(body)
    return RawMessage(offset, bytes(AMQPMessage(body=content, application_properties=dict(properties or {}))))


def created(offset: int, name: str = "a", number: int | None = 0, *, extension: str = "jpg", **others: Any) -> RawMessage:
    """A Created message with the image `picture(number)`; without one if it is None."""
    image = None if number is None else picture(number)
    return raw(offset, payload(name, image=image, extension=extension, **others), {"AnnotationStatus": "Created"})


def edited(offset: int, name: str = "a", **others: Any) -> RawMessage:
    """An Edited message, without an image."""
    return raw(offset, payload(name, **{"status": 20, **others}), {"AnnotationStatus": "Edited"})


def bulk(offset: int, status: Status, names: Iterable[object]) -> RawMessage:
    """A Validated or Deleted message."""
    return raw(offset, [list(names), int(status)], {"AnnotationStatus": status.name.capitalize()})


def boxes(*classes: int) -> list[dict[str, float]]:
    """Detections, one of each class."""
    return [{**DETECTIONS[0], "cls": class_id} for class_id in classes]


def make_root(root: Path) -> Layout:
    """A root as `init` makes it."""
    layout = Layout(root)
    init_root(layout)
    return layout


def tree_of(layout: Layout) -> dict[str, bytes]:
    """Every file of the three homes, by its path below the root."""
    roots = {layout.images(home).parent for home in Home}
    return {str(path.relative_to(layout.root)): path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}


def debris_of(layout: Layout) -> list[str]:
    """What a finished daemon must not leave: staged files and temporary ones."""
    leftovers = [*layout.incoming.iterdir(), *layout.root.rglob("*.tmp")]
    return sorted(str(path.relative_to(layout.root)) for path in leftovers)


def put_files(layout: Layout, *rows: Annotation, images: Sequence[int] = (0,)) -> None:
    """The files that rows stand for, as they are in a tree at rest."""
    for index, one in enumerate(rows):
        layout.label(one.home, one.name).write_text(one.label)
        if one.image is not None:
            layout.image(one.home, one.name, one.extension).write_bytes(picture(images[index % len(images)]))
        if one.home is Home.VALIDATED and one.pending is not None:
            layout.label(Home.SEED, one.name).write_text(one.pending)


def settings_on(layout: Layout, **sections: Mapping[str, Any]) -> Settings:
    """A whole configuration for a root with little in it."""
    document: dict[str, dict[str, Any]] = {
        "api": {"url": "http://127.0.0.1:9", "email": "u@x.io", "password": "p"},
        "stream": {"host": "127.0.0.1", "port": 1, "user": "u", "password": "p", "name": "s"},
        "directories": {"root": layout.root, "data": "data", "data_seed": "data-seed", "data_deleted": "data_deleted"},
        "ingest": {"min_free_disk": 0},
        "dataset": SMALL.model_dump(),
        "training": {"model": "yolo26n.yaml", "epochs": 1, "batch_size": 1, "imgsz": 128, "save_period": 1, "workers": 0},
        "export": {"imgsz": 64},
    }
    return Settings.model_validate({name: {**document.get(name, {}), **sections.get(name, {})} for name in {*document, *sections}})
