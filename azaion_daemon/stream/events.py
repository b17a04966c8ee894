"""What arrives on the stream, typed: the values that the stream stage hands on."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum


class Status(IntEnum):
    """What a message says about its annotations: the application property `AnnotationStatus`."""

    CREATED = 10
    EDITED = 20
    VALIDATED = 30
    DELETED = 40


class Role(IntEnum):
    """The platform's roles. It may add more: every value that is not named here counts as non-validating."""

    NONE = 0
    OPERATOR = 10
    VALIDATOR = 20
    COMPANION_PC = 30
    ADMIN = 40
    RESOURCE_UPLOADER = 50
    SERVICE = 60
    API_ADMIN = 1000


VALIDATING_ROLES = frozenset({Role.VALIDATOR, Role.ADMIN, Role.API_ADMIN})


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message as the broker delivered it."""

    offset: int
    """Where it stands in the stream. Grows, with gaps."""
    data: bytes
    """The encoded AMQP 1.0 message."""
    base: int = 0
    """What is added to the offsets of this stream so that positions go on growing when a stream is followed by another one."""

    @property
    def position(self) -> int:
        """Where it stands in everything that this root has ever consumed: what the ledger counts in."""
        return self.base + self.offset


@dataclass(frozen=True, slots=True)
class AnnotationEvent:
    """One annotation was created or edited."""

    position: int
    digest: bytes
    """SHA-256 of the payload: the same message sent twice has the same."""
    status: Status
    """CREATED or EDITED."""
    name: str
    label: str
    """The detections in the text form of a label file."""
    extension: str
    """Of the image: lower case, without the dot; empty when the message names none."""
    image: bytes | None
    role: int
    email: str
    media: str
    """The original media's name; empty when unknown."""
    time_ticks: int | None
    """Where in the media, in units of 100 ns."""
    created: datetime | None
    source: int | None

    @property
    def validating(self) -> bool:
        """Whether its author's word is enough for the annotation to be trained on."""
        return self.role in VALIDATING_ROLES


@dataclass(frozen=True, slots=True)
class BulkEvent:
    """Many annotations were validated or deleted."""

    position: int
    digest: bytes
    status: Status
    """VALIDATED or DELETED."""
    names: tuple[str, ...]
    email: str


Event = AnnotationEvent | BulkEvent


class Fault(StrEnum):
    """What is wrong with a message that goes to the quarantine, by the part of it; the sentence is in `Decoded.rejection`."""

    ENVELOPE = "envelope"  # no AMQP, or its properties do not say what it is about
    PAYLOAD = "payload"  # no msgpack, or of another shape
    NAME = "name"  # one that cannot be a file's
    FIELD = "field"
    DETECTIONS = "detections"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A message after decoding. Both are set when only some names of a bulk message are valid."""

    position: int
    digest: bytes
    event: Event | None
    rejection: str | None
    """Why the message, or a part of it, goes to the quarantine."""
    fault: Fault | None = None
    """The same, coarsely; given whenever `rejection` is."""
