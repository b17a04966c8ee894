"""From the bytes of a message to an event, or to the reason why there is none.

The producer's contract leaves some spellings open, so what is accepted is liberal: payloads as msgpack arrays or int-keyed maps, the
routing property under a `str` or `bytes` key and as name, digits or number, detection keys without regard to case. What would have to be
guessed is refused: a refused message is kept whole in the quarantine and can be replayed.

Nothing but a `Decoded` ever comes out, whatever the bytes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgpack

from azaion_daemon.store.labels import Detection, format_label
from azaion_daemon.stream.amqp import AmqpError, parse_message
from azaion_daemon.stream.events import AnnotationEvent, BulkEvent, Decoded, Event, Fault, RawMessage, Role, Status

MAX_NAME_BYTES = 200
MAX_BULK_NAMES = 1_000_000
_MAX_INTEGER = 2**63 - 1
"""What the ledger's integers hold."""
_NAMED_IN_REASON = 20
_MAX_FIELDS = 1000
_MAX_CONTAINERS = 10_000

_DETECTION_KEYS = {
    "class_id": ("cls", "class", "classnum", "class_num", "classnumber"),
    "cx": ("x", "centerx", "center_x", "cx"),
    "cy": ("y", "centery", "center_y", "cy"),
    "w": ("w", "width"),
    "h": ("h", "height"),
}


class _RejectedError(Exception):
    """The message is refused; the text says why."""

    def __init__(self, why: str, fault: Fault = Fault.FIELD) -> None:
        super().__init__(why)
        self.fault = fault


def decode(message: RawMessage, *, extensions: frozenset[str], max_image_bytes: int) -> Decoded:
    """Decode one message.

    `extensions` are those that an image may have; `max_image_bytes` is the largest image taken.
    """
    try:
        amqp = parse_message(message.data)
    except AmqpError as error:
        whole = hashlib.sha256(message.data).digest()
        return Decoded(message.position, whole, None, f"not an AMQP 1.0 message: {error}", Fault.ENVELOPE)
    payload = amqp.data
    if payload is None:
        return Decoded(
            message.position, hashlib.sha256(message.data).digest(), None, "the AMQP message has no data section", Fault.ENVELOPE
        )
    digest = hashlib.sha256(payload).digest()
    try:
        properties = amqp.properties
        status = _status(properties)
        fields = _fields(payload)
        if status in {Status.VALIDATED, Status.DELETED}:
            event, rejection = _bulk(message.position, digest, status, fields, properties)
            return Decoded(message.position, digest, event, rejection, None if rejection is None else Fault.NAME)
        event = _annotation(message.position, digest, status, fields, properties, extensions, max_image_bytes)
    except _RejectedError as error:
        return Decoded(message.position, digest, None, str(error), error.fault)
    return Decoded(message.position, digest, event, None)


def message_digest(message: RawMessage) -> bytes:
    """What `decode` gives as the message's digest."""
    return decode(message, extensions=frozenset(), max_image_bytes=0).digest


def name_problem(name: object) -> str | None:  # noqa: PLR0911 - one return a rule reads best
    """Why a name cannot become a file's name; None when it can."""
    if not isinstance(name, str):
        return f"is not a text but {_kind(name)}"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if not name:
        return "is empty"
    if size > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if name.startswith("."):
        return "starts with a dot"
    if "/" in name or "\\" in name:
        return "contains a path separator"
    if not name.isprintable():
        return "contains unprintable characters"
    return None


def _short(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _status(properties: Mapping[str, object]) -> Status:
    if "AnnotationStatus" not in properties:
        raise _RejectedError("the application property AnnotationStatus is missing", Fault.ENVELOPE)
    value = properties["AnnotationStatus"]
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return Status(value)
        text = _text(value).strip()
        return Status(int(text)) if text.isdecimal() and len(text) < 10 else Status[text.upper()]  # noqa: PLR2004
    except (ValueError, KeyError):
        raise _RejectedError(f"the AnnotationStatus {_text(value)[:40]!r} is unknown", Fault.ENVELOPE) from None


def _unpack(payload: bytes | memoryview) -> Any:
    """What a payload holds. A byte of it can become a list of 56 bytes, so lists, maps and their elements are counted while they grow."""
    left = {"containers": _MAX_CONTAINERS, "elements": 2 * MAX_BULK_NAMES}

    def count(container: Any) -> Any:
        left["containers"] -= 1
        left["elements"] -= len(container)
        if min(left.values()) < 0:
            raise ValueError("it holds more lists, maps or elements than any message has")
        return container

    return msgpack.unpackb(
        payload,
        strict_map_key=False,
        timestamp=0,
        raw=False,
        list_hook=count,
        object_hook=count,
        max_array_len=MAX_BULK_NAMES,
        max_map_len=_MAX_FIELDS,
    )


def _fields(payload: bytes | memoryview) -> Callable[[int], Any]:
    """Access to the payload's fields by position; None for those that are missing."""
    try:
        data = _unpack(payload)
    except Exception as error:  # noqa: BLE001 - what the C extension raises is not one family
        raise _RejectedError(f"the payload is not msgpack: {_short(error)}", Fault.PAYLOAD) from None
    if isinstance(data, list):
        return lambda position: data[position] if position < len(data) else None
    if isinstance(data, dict):
        return data.get
    raise _RejectedError(f"the payload is neither an array nor a map but {_kind(data)}", Fault.PAYLOAD)


def _bulk(
    position: int, digest: bytes, status: Status, field: Callable[[int], Any], properties: Mapping[str, object]
) -> tuple[Event | None, str | None]:
    names = field(0)
    if not isinstance(names, list):
        raise _RejectedError(f"position 0 (names) is not a list but {_kind(names)}", Fault.PAYLOAD)
    if len(names) > MAX_BULK_NAMES:
        raise _RejectedError(f"more than {MAX_BULK_NAMES} names", Fault.PAYLOAD)
    problems = {index: problem for index, name in enumerate(names) if (problem := name_problem(name))}
    valid = tuple(dict.fromkeys(name for index, name in enumerate(names) if index not in problems))
    rejection = None
    if problems:
        named = "; ".join(f"{_shown(names[index])} {problem}" for index, problem in list(problems.items())[:_NAMED_IN_REASON])
        more = f"; and {len(problems) - _NAMED_IN_REASON} more" if len(problems) > _NAMED_IN_REASON else ""
        rejection = f"{len(problems)} of {len(names)} names cannot be used, the others were applied: {named}{more}"
    email = _text(properties.get("Email", ""))[:MAX_NAME_BYTES]
    return (BulkEvent(position, digest, status, valid, email) if valid or not problems else None), rejection


def _shown(value: object) -> str:
    """A value of a hostile message, short; what is no text may be nested without end."""
    if not isinstance(value, str):
        return f"({_kind(value)})"
    return repr(value if len(value) <= 60 else f"{value[:60]}…")  # noqa: PLR2004


def _annotation(
    position: int,
    digest: bytes,
    status: Status,
    field: Callable[[int], Any],
    properties: Mapping[str, object],
    extensions: frozenset[str],
    max_image_bytes: int,
) -> AnnotationEvent:
    name = field(1)
    if problem := name_problem(name):
        raise _RejectedError(f"the name {_shown(name)} {problem}", Fault.NAME)
    image = _image(field(6), max_image_bytes)
    extension = _extension(field(4))
    if image is not None and extension not in extensions:
        raise _RejectedError(f"the image extension {_shown(extension)} is not one of {', '.join(sorted(extensions))}", Fault.IMAGE)
    return AnnotationEvent(
        position=position,
        digest=digest,
        status=status,
        name=name,
        label=format_label(_detections(field(5))),
        extension=extension if extension in extensions else "",
        image=image,
        role=_role(field(7)),
        email=_optional_text(field(8), "8 (createdEmail)") or _text(properties.get("Email", ""))[:MAX_NAME_BYTES],
        media=_optional_text(field(2), "2 (originalMediaName)"),
        time_ticks=_optional_integer(field(3), "3 (time)"),
        created=_created(field(0)),
        source=_optional_integer(field(9), "9 (source)"),
    )


def _image(value: object, max_bytes: int) -> bytes | None:
    if value is None or value == b"":
        return None
    if not isinstance(value, bytes):
        raise _RejectedError(f"position 6 (image) is not bytes but {_kind(value)}", Fault.IMAGE)
    if len(value) > max_bytes:
        raise _RejectedError(
            f"the image has {len(value)} bytes, more than the {max_bytes} that are taken (ingest.max_image_bytes)", Fault.IMAGE
        )
    return value


def _extension(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _RejectedError(f"position 4 (imageExtension) is not a text but {_kind(value)}", Fault.IMAGE)
    return value.removeprefix(".").lower()[:MAX_NAME_BYTES]


def _role(value: object) -> int:
    if isinstance(value, str):
        spelled = value.strip().replace("_", "").upper()
        by_name = {role.name.replace("_", ""): role for role in Role}
        if spelled in by_name:
            return by_name[spelled]
        return int(spelled) if spelled.isdecimal() and len(spelled) < 10 else -1  # noqa: PLR2004
    number = _optional_integer(value, "7 (createdRole)")
    return Role.NONE if number is None else number


def _optional_text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _RejectedError(f"position {where} is not a text but {_kind(value)}")
    return value.encode(errors="replace").decode()[:4096]


def _optional_integer(value: object, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RejectedError(f"position {where} is not an integer but {_kind(value)}")
    if abs(value) > _MAX_INTEGER:
        raise _RejectedError(f"position {where} is out of range")
    return value


def _created(value: object) -> datetime | None:
    try:
        match value:
            case None:
                return None
            case msgpack.Timestamp():
                moment: datetime = value.to_datetime()
                return moment
            case str():
                read = datetime.fromisoformat(value)
                return read if read.tzinfo else read.replace(tzinfo=UTC)
            case _:
                raise _RejectedError(f"position 0 (createdDate) is not a timestamp but {_kind(value)}")
    except (ValueError, OverflowError):
        raise _RejectedError("position 0 (createdDate) is no date") from None


def _detections(value: object) -> list[Detection]:
    if not isinstance(value, str):
        raise _RejectedError(f"position 5 (detections) is not a JSON text but {_kind(value)}", Fault.DETECTIONS)
    try:
        entries = json.loads(value)
    except (ValueError, RecursionError):
        raise _RejectedError("position 5 (detections) is not JSON", Fault.DETECTIONS) from None
    if not isinstance(entries, list):
        raise _RejectedError(f"position 5 (detections) is not a JSON list but {_kind(entries)}", Fault.DETECTIONS)
    return [_detection(entry, number) for number, entry in enumerate(entries, 1)]


def _detection(entry: object, number: int) -> Detection:
    if not isinstance(entry, dict):
        raise _RejectedError(f"detection {number} is not an object but {_kind(entry)}", Fault.DETECTIONS)
    lowered = {key.lower(): value for key, value in entry.items()}
    values: dict[str, float] = {}
    for field, spellings in _DETECTION_KEYS.items():
        value = next((lowered[key] for key in spellings if key in lowered), None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _RejectedError(f"detection {number} has no number for {' or '.join(spellings)}", Fault.DETECTIONS)
        values[field] = value
    class_id = values.pop("class_id")
    if class_id != class_id or class_id in {float("inf"), float("-inf")} or class_id != int(class_id):  # noqa: PLR0124
        raise _RejectedError(f"detection {number} has a class that is not an integer", Fault.DETECTIONS)
    try:
        box = {field: float(value) for field, value in values.items()}
    except OverflowError:
        raise _RejectedError(f"detection {number} has a number that is out of range", Fault.DETECTIONS) from None
    return Detection(int(class_id), **box)
