"""The quarantine for operators: what lies there, and having it applied after all."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import msgpack

from azaion_daemon.errors import OperatorError
from azaion_daemon.ops.requests import ask
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.stream.amqp import AmqpError, parse_message

_WAIT_S = 60.0
_SHOWN_BYTES = 200


def describe(layout: Layout, position: int) -> dict[str, Any]:
    """Why a message is in the quarantine, its properties and, where it can be read, its payload; images as their size.

    Raises:
        OperatorError: There is none of that position.
    """
    found = Quarantine(layout.quarantine).get(position)
    if found is None:
        raise OperatorError(f"there is no message {position} in the quarantine; see: azaion-daemon quarantine list")
    entry, content = found
    document: dict[str, Any] = asdict(entry)
    try:
        message = parse_message(content)
    except AmqpError as error:
        return {**document, "amqp": f"cannot be read: {error}"}
    document["properties"] = {key: _shown(value) for key, value in message.properties.items()}
    if message.data is not None:
        document["payload"] = _payload(message.data)
    return document


def replay(layout: Layout, positions: Sequence[int], *, as_new: bool) -> Iterator[tuple[int, str, bool]]:
    """Have messages applied, all when none is named: each position, what became of it, and whether it is settled or ordered."""
    for position in positions or [entry.position for entry in Quarantine(layout.quarantine).entries()]:
        answer = ask(layout, "replay", {"position": position, "as_new": as_new}, wait_s=_WAIT_S)
        if answer is None:
            yield position, "no daemon is running; it is replayed at the next start", True
        elif not answer["ok"]:
            yield position, f"stays: {answer['error']}", False
        elif answer["refused"]:
            yield position, "; ".join(f"{name} is left alone: {why}" for name, why in answer["refused"].items()), False
        else:
            yield position, "applied", True


def _payload(data: bytes | memoryview) -> Any:
    try:
        unpacked = msgpack.unpackb(data, strict_map_key=False, timestamp=0, raw=False)
    except Exception as error:  # noqa: BLE001 - what the C extension raises on hostile bytes is not one family
        return f"{len(data)} bytes that are no msgpack: {type(error).__name__}: {str(error)[:120]}"
    match unpacked:
        case list():
            return [_shown(value) for value in unpacked]
        case dict():
            return {str(key)[:_SHOWN_BYTES]: _shown(value) for key, value in unpacked.items()}
        case _:
            return _shown(unpacked)


def _shown(value: Any) -> Any:
    match value:
        case bytes():
            return f"({len(value)} bytes)"
        case str() if len(value) > _SHOWN_BYTES:
            return f"{value[:_SHOWN_BYTES]}… ({len(value)} characters)"
        case str() | int() | float() | None:
            return value
        case msgpack.Timestamp():
            return f"timestamp {value.seconds}"
        case list() | dict():
            return f"({type(value).__name__} of {len(value)})"
        case _:
            return f"({type(value).__name__})"
