"""The messages of the annotation stream, built as the platform's producer builds them.

Written from the platform's documents alone, like `formulas`: the numbers and the layout stand here a second time on purpose.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import Any, Literal

import msgpack
from rstream import AMQPMessage

from azaion_daemon.sandbox.scenes import Box, Scene

_CREATED_AT = datetime(2026, 4, 1, 12, tzinfo=UTC)


class Status(IntEnum):
    """What a message says of its annotation."""

    CREATED = 10
    EDITED = 20
    VALIDATED = 30
    DELETED = 40


class Role(IntEnum):
    """Who annotates. Validators, admins and API admins validate by what they do."""

    OPERATOR = 10
    VALIDATOR = 20
    COMPANION_PC = 30
    ADMIN = 40
    API_ADMIN = 1000


class Source(IntEnum):
    """Where the boxes come from."""

    AI = 0
    MANUAL = 1


class Spelling(Enum):
    """How the application property AnnotationStatus is written; the documents leave it open."""

    NAME = "name"
    BYTES = "bytes"
    DIGITS = "digits"
    NUMBER = "number"

    def of(self, status: Status) -> str | bytes | int:
        """The property's value."""
        match self:
            case Spelling.NAME:
                return status.name.capitalize()
            case Spelling.BYTES:
                return status.name.capitalize().encode()
            case Spelling.DIGITS:
                return str(int(status))
            case Spelling.NUMBER:
                return int(status)


@dataclass(frozen=True)
class Dialect:
    """What the platform's documents leave open about a message's form."""

    spelling: Spelling = Spelling.NAME
    payload: Literal["array", "map"] = "array"
    extension: str = "jpg"
    detection_keys: tuple[str, str, str, str, str] = ("classNum", "x", "y", "width", "height")


@dataclass(frozen=True)
class Message:
    """A message before it is published: its status, its msgpack body, its application properties."""

    status: Status
    body: bytes
    properties: dict[str, str | bytes | int]

    def amqp(self) -> AMQPMessage:
        """The AMQP 1.0 message, as the producer hands it to the stream."""
        return AMQPMessage(body=self.body, application_properties=dict(self.properties))


@dataclass(frozen=True)
class Author:
    """Somebody who annotates, and the dialect that their application speaks. Every method makes a message and sends nothing."""

    email: str
    role: Role
    dialect: Dialect = Dialect()

    def created(
        self,
        name: str,
        scene: Scene,
        *,
        media: str = "",
        time_ticks: int = 0,
        source: Source = Source.MANUAL,
        at: datetime = _CREATED_AT,
    ) -> Message:
        """A new annotation with its image; `time_ticks` is its place in the media, in units of 100 ns."""
        return self._annotation(Status.CREATED, name, scene.boxes, scene.image_jpeg, media, time_ticks, source, at)

    def edited(
        self,
        name: str,
        boxes: Sequence[Box],
        *,
        media: str = "",
        time_ticks: int = 0,
        source: Source = Source.MANUAL,
        at: datetime = _CREATED_AT,
        image: bytes | None = b"",
    ) -> Message:
        """New boxes for an annotation, without its image."""
        return self._annotation(Status.EDITED, name, boxes, image, media, time_ticks, source, at)

    def validated(self, names: Iterable[str]) -> Message:
        """Annotations that are right as they are."""
        return self._bulk(Status.VALIDATED, names)

    def deleted(self, names: Iterable[str]) -> Message:
        """Annotations that are to go."""
        return self._bulk(Status.DELETED, names)

    def _annotation(
        self,
        status: Status,
        name: str,
        boxes: Sequence[Box],
        image: bytes | None,
        media: str,
        time_ticks: int,
        source: Source,
        at: datetime,
    ) -> Message:
        keys = self.dialect.detection_keys
        detections = [dict(zip(keys, (b.class_id, b.cx, b.cy, b.width, b.height), strict=True)) for b in boxes]
        fields = [
            msgpack.Timestamp.from_datetime(at),
            name,
            media,
            time_ticks,
            self.dialect.extension,
            json.dumps(detections),
            image,
            int(self.role),
            self.email,
            int(source),
            int(status),
        ]
        return self._message(status, fields)

    def _bulk(self, status: Status, names: Iterable[str]) -> Message:
        return self._message(status, [list(names), int(status)])

    def _message(self, status: Status, fields: list[Any]) -> Message:
        body: bytes = msgpack.packb(fields if self.dialect.payload == "array" else dict(enumerate(fields)))
        return Message(status, body, {"AnnotationStatus": self.dialect.spelling.of(status), "Email": self.email})
