"""classes.json: the platform's class names, and the 80 slots that a model is trained on.

A class id on the wire is a base id plus the offset of its mode (season or light). How many base classes there are changes over time, so
the slots are fixed: what no class stands for is `Class-N`.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from azaion_daemon.errors import ConfigError

SLOTS = 80
_MODE_WIDTH = 20


class Mode(StrEnum):
    """The season or light of an image, as the platform names it. A class is another one in each."""

    NORM = "Norm"
    WINT = "Wint"
    NIGHT = "Night"


MODES = {Mode.NORM: 0, Mode.WINT: 20, Mode.NIGHT: 40}
"""What each mode adds to a class id."""
_BY_TWENTIES = sorted(MODES, key=lambda mode: MODES[mode])


class _Entry(BaseModel):
    """One element of classes.json; what else it holds is the annotators' business."""

    model_config = ConfigDict(extra="ignore")

    id: int = Field(alias="Id", ge=0, lt=_MODE_WIDTH)
    name: str = Field(alias="Name", min_length=1)


@dataclass(frozen=True)
class Classes:
    """The names of all slots, and the ids that stand for a class."""

    names: tuple[str, ...]
    known: frozenset[int]


def load_classes(path: Path) -> Classes:
    """Read classes.json.

    Raises:
        ConfigError: It is missing, empty, no JSON, or names an id twice or one that leaves no room for the modes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Put the platform's class list there; without it no label can be understood.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not text.strip():
        text = "[]"
    try:
        entries = TypeAdapter(list[_Entry]).validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ConfigError(f'{path} is not a list of {{"Id": 0..{_MODE_WIDTH - 1}, "Name": text}}: {where} {fault["msg"]}') from None
    if not entries:
        raise ConfigError(f"{path} is empty. Put the platform's class list there; without it no label can be understood.")
    return _slots({entry.id: entry.name for entry in entries}, entries=len(entries), path=path)


def _slots(base: dict[int, str], *, entries: int, path: Path) -> Classes:
    if len(base) != entries:
        raise ConfigError(f"{path} names an Id more than once")
    named = {offset + id_: name if mode is Mode.NORM else f"{name}({mode})" for mode, offset in MODES.items() for id_, name in base.items()}
    return Classes(tuple(named.get(slot, f"Class-{slot}") for slot in range(SLOTS)), frozenset(named))


def mode_of(class_id: int) -> Mode:
    """The mode that a known class id stands in."""
    return _BY_TWENTIES[class_id // _MODE_WIDTH]


def base_of(class_id: int) -> int:
    """The id in classes.json of a known class id, whatever its mode."""
    return class_id % _MODE_WIDTH


def classes_digest_input(classes: Classes) -> bytes:
    """The part of a dataset's identity that its classes are."""
    return json.dumps(classes.names, ensure_ascii=False, separators=(",", ":")).encode()
