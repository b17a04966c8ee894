"""What the benchmarks of ingest publish, and the roots on which it is consumed."""

import asyncio
import hashlib
import random
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from azaion_daemon.sandbox.annotations import Author, Message, Role
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenes import Box, Scene, draw_scene
from azaion_daemon.store.durable import write_new
from azaion_daemon.store.labels import Detection, format_label
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Annotation, Position

INDEXED = 360_000
"""The annotations of a server that has been in use for years."""
BULK_NAMES = 1000
_AUTHORS = (Author("operator@example.org", Role.OPERATOR), Author("validator@example.org", Role.VALIDATOR))
_FRAMES_A_MEDIA = 50
_STEP = 11  # pixels from one frame to the next; no multiple of a JPEG's blocks
_ROWS_A_COMMIT = 60_000  # sorted, they fill one page of the ledger after the other
_LABELS = 100  # distinct ones of what is seeded


@dataclass(frozen=True)
class Photo:
    """What a camera's JPEG is like: pixels, noise, and the quality that brings it to the size wanted."""

    width: int
    height: int
    grain: float
    quality: int


PHOTO_300K = Photo(1280, 960, 4.0, 91)
PHOTO_2M = Photo(3840, 2160, 2.3, 95)


@dataclass(frozen=True)
class Workload:
    """Messages on a stream of their own. Those before `first_offset` are history; the `seeded` annotations are there already."""

    name: str
    stream: str
    messages: int
    first_offset: int = 0
    seeded: int = 0
    images: Path | None = None
    """The directory of the distinct JPEGs that its messages bring."""


def names(count: int, key: str) -> list[str]:
    """As the platform makes them: UUIDs; the same for the same key."""
    chance = random.Random(key)
    return [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(count)]


def take_photos(directory: Path, photo: Photo, count: int) -> None:
    """Write so many distinct JPEGs: frames of a flight over one landscape."""
    directory.mkdir(parents=True)
    land = _landscape(photo.width + count * _STEP, photo.height + count * _STEP, photo.grain)
    for number in range(count):
        left = top = number * _STEP
        frame = Image.fromarray(land[top : top + photo.height, left : left + photo.width])
        frame.save(directory / f"{number:03}.jpg", quality=photo.quality)


def read_photos(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(directory.iterdir())]


def _landscape(width: int, height: int, grain: float) -> NDArray[np.uint8]:
    """Light and colour at every scale, the finer the weaker, as photographs have them; then the noise of a sensor."""
    chance = np.random.default_rng(0)
    light = np.zeros((height, width, 3), np.float32)
    cells, strength = 4, 60.0
    while cells <= width // 2:
        coarse = chance.normal(0, 1, (max(cells * height // width, 1), cells, 3)).astype(np.float32)
        coarse = 1.2 * coarse.mean(axis=2, keepdims=True) + 0.35 * coarse
        for channel in range(3):
            plane = Image.fromarray(coarse[:, :, channel]).resize((width, height), Image.Resampling.BICUBIC)
            light[:, :, channel] += strength * np.asarray(plane)
        cells, strength = cells * 2, strength * 0.6
    light += chance.standard_normal((height, width, 1), np.float32) * grain
    return np.clip(light + 115, 0, 255).astype(np.uint8)


def boxes(seed: int) -> tuple[Box, ...]:
    """One to five detections."""
    chance = random.Random(seed)
    return tuple(
        Box(chance.randrange(3), *(round(chance.uniform(low, high), 6) for low, high in ((0.2, 0.8), (0.2, 0.8), (0.02, 0.3), (0.02, 0.3))))
        for _ in range(chance.randint(1, 5))
    )


@lru_cache
def label_text(seed: int) -> str:
    return format_label(Detection(box.class_id, box.cx, box.cy, box.width, box.height) for box in boxes(seed))


def created_messages(workload: Workload) -> Iterator[Message]:
    """Every second one by a validator."""
    assert workload.images is not None
    photos = read_photos(workload.images)
    for number, name in enumerate(names(workload.messages, f"{workload.name}, created")):
        scene = Scene(photos[number % len(photos)], boxes(number))
        yield _AUTHORS[number % 2].created(name, scene, media=_media(number), time_ticks=number * 400_000)


def edited_messages(workload: Workload) -> Iterator[Message]:
    """An operator draws other boxes on one annotation after the other."""
    yield _history(workload)
    seeded = names(workload.seeded, workload.name)
    for number in range(workload.messages):
        yield _AUTHORS[0].edited(seeded[number % len(seeded)], boxes(number + 1))


def validated_messages(workload: Workload) -> Iterator[Message]:
    """A validator goes through all of them, in an order of their own."""
    yield _history(workload)
    seeded = names(workload.seeded, workload.name)
    random.Random(workload.name).shuffle(seeded)
    for start in range(0, len(seeded), BULK_NAMES):
        yield _AUTHORS[1].validated(seeded[start : start + BULK_NAMES])


def idle_messages(workload: Workload) -> Iterator[Message]:
    """Nothing but what was consumed long ago."""
    yield _history(workload)


def publish(broker: Broker, stream: str, messages: Iterable[Message]) -> None:
    """Put messages on a stream, in gzip sub-entries."""
    asyncio.run(Annotator(broker, stream).publish(messages))


def seed_tree(layout: Layout, workload: Workload) -> None:
    """The files of annotations that wait for validation."""
    image = _seed_image()
    for number, name in enumerate(names(workload.seeded, workload.name)):
        write_new(layout.label(Home.SEED, name), label_text(number % _LABELS).encode())
        write_new(layout.image(Home.SEED, name, "jpg"), image)


def seed_ledger(layout: Layout, workload: Workload, *, validated: float = 0.0) -> None:
    """The rows of the seeded annotations, a share `validated` of them validated, consumed from the message before `first_offset`."""
    ledger = Ledger(layout.ledger)
    consumed = Position(workload.first_offset - 1, hashlib.sha256(_history(workload).body).digest())
    digest = hashlib.sha256(_seed_image()).hexdigest()
    seeded = names(workload.seeded, workload.name)
    chance = random.Random(workload.name)
    numbered = list(enumerate(seeded))  # as the tree's files are: a row says what its label file holds
    for start in range(0, len(seeded), _ROWS_A_COMMIT):
        rows = [
            _row(number, name, digest, Home.VALIDATED if chance.random() < validated else Home.SEED)
            for number, name in sorted(numbered[start : start + _ROWS_A_COMMIT], key=itemgetter(1))
        ]
        ledger.commit_batch(workload.stream, consumed, rows)
    ledger.close()


def _row(number: int, name: str, digest: str, home: Home) -> Annotation:
    return Annotation(
        name=name,
        home=home,
        extension="jpg",
        label=label_text(number % _LABELS),
        image=digest,
        validated_position=0 if home is Home.VALIDATED else None,
        seen=hashlib.sha256(name.encode()).digest(),
        media=_media(number),
        time_ticks=number * 400_000,
        created_at=1.78e9 + number,
        creator_role=int(Role.OPERATOR),
        creator_email=_AUTHORS[0].email,
        source=1,
        width=128,
        height=128,
        first_seen=1.78e9 + number,
        changed=1.78e9 + number,
    )


def _media(number: int) -> str:
    return f"flight-{number // _FRAMES_A_MEDIA:05}.mp4"


def _history(workload: Workload) -> Message:
    """The message at offset 0 of a stream whose annotations are seeded: the daemon resumes at it."""
    return _AUTHORS[0].created(names(1, workload.name)[0], _seed_scene())


def _seed_image() -> bytes:
    return _seed_scene().image_jpeg


def _seed_scene() -> Scene:
    return draw_scene(0)
