"""A shift of annotators: the messages of some hundred annotations, and what must have become of each.

Operators create most, validators some. Then most are validated, some corrected by either, a few deleted. The truth is known by
construction, not by applying rules to the messages.
"""

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from azaion_daemon.sandbox.annotations import Author, Message, Role
from azaion_daemon.sandbox.scenes import Box, Scene, draw_scene

OPERATOR = Author("operator@sandbox.example", Role.OPERATOR)
VALIDATOR = Author("validator@sandbox.example", Role.VALIDATOR)

_ROUND = 20  # annotations between two bulk messages
_FRAMES = 5  # annotations of one video, at most
_FRAME_TICKS = 10_000_000  # one second


class Fate(Enum):
    """Where an annotation ends."""

    SEED = "seed"
    VALIDATED = "validated"
    DELETED = "deleted"


@dataclass(frozen=True)
class _Life:
    """What happens to an annotation, in the order of the fields; `share` is how many of all have this life."""

    share: float
    creator: Author = OPERATOR
    careless: bool = False  # created with wrong boxes
    corrected_by: Author | None = None
    validated: bool = False
    edited_late: Literal["right", "wrong"] | None = None  # by an operator, after the validation
    validated_again: bool = False
    deleted: bool = False
    fate: Fate = Fate.VALIDATED


_LIVES = (
    _Life(0.52, validated=True),
    _Life(0.12, creator=VALIDATOR),
    _Life(0.10, careless=True, corrected_by=OPERATOR, validated=True),
    _Life(0.05, careless=True, corrected_by=VALIDATOR),
    _Life(0.05, careless=True, validated=True, edited_late="right", validated_again=True),
    _Life(0.04, validated=True, edited_late="wrong"),
    _Life(0.08, fate=Fate.SEED),
    _Life(0.02, deleted=True, fate=Fate.DELETED),
    _Life(0.02, validated=True, deleted=True, fate=Fate.DELETED),
)


@dataclass(frozen=True)
class Truth:
    """What must be true of an annotation after all messages. `pending` are the boxes of an edit that nobody has validated."""

    fate: Fate
    scene: Scene
    boxes: tuple[Box, ...]
    media: str
    pending: tuple[Box, ...] | None = None


@dataclass(frozen=True)
class Scenario:
    """Messages in their order, and the truth of each annotation by its name."""

    messages: list[Message]
    truth: dict[str, Truth]

    def names(self, fate: Fate) -> list[str]:
        """The annotations that end there."""
        return [name for name, truth in self.truth.items() if truth.fate is fate]


def scenario(count: int, seed: int, size: int = 128) -> Scenario:
    """A scenario of `count` annotations with images of `size` pixels; the same for the same arguments."""
    chance = random.Random(seed)
    messages: list[Message] = []
    truth: dict[str, Truth] = {}
    frames = _frames(chance)
    for start in range(0, count, _ROUND):
        names = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(min(_ROUND, count - start))]
        scenes = [draw_scene(seed * 1_000_003 + start + index, size) for index in range(len(names))]
        _work(dict(zip(names, scenes, strict=True)), chance, frames, messages, truth)
    return Scenario(messages, truth)


def _work(
    scenes: dict[str, Scene], chance: random.Random, frames: Iterator[tuple[str, int]], messages: list[Message], truth: dict[str, Truth]
) -> None:
    """One round: everything is created, then corrected, then validated in bulk, then edited again, then some is deleted."""
    lives = dict(zip(scenes, chance.choices(_LIVES, [life.share for life in _LIVES], k=len(scenes)), strict=True))
    corrections: list[Message] = []
    late: list[Message] = []
    for name, scene in scenes.items():
        life = lives[name]
        media, ticks = next(frames)
        wrong = _careless(scene.boxes, chance)
        first = replace(scene, boxes=wrong) if life.careless else scene
        messages.append(life.creator.created(name, first, media=media, time_ticks=ticks))
        if life.corrected_by:
            corrections.append(life.corrected_by.edited(name, scene.boxes, media=media, time_ticks=ticks))
        if life.edited_late:
            late.append(OPERATOR.edited(name, scene.boxes if life.edited_late == "right" else wrong, media=media, time_ticks=ticks))
        truth[name] = Truth(life.fate, scene, scene.boxes, media, pending=wrong if life.edited_late == "wrong" else None)
    messages += corrections
    messages += _bulk(VALIDATOR.validated, [name for name, life in lives.items() if life.validated])
    messages += late
    messages += _bulk(VALIDATOR.validated, [name for name, life in lives.items() if life.validated_again])
    messages += _bulk(OPERATOR.deleted, [name for name, life in lives.items() if life.deleted])


def _bulk(make: Callable[[list[str]], Message], names: list[str]) -> list[Message]:
    return [make(names)] if names else []


def _frames(chance: random.Random) -> Iterator[tuple[str, int]]:
    """Media names and times: videos of one to five frames."""
    while True:
        video = f"flight-{chance.getrandbits(32):08x}.mp4"
        for frame in range(chance.randint(1, _FRAMES)):
            yield video, frame * _FRAME_TICKS


def _careless(boxes: tuple[Box, ...], chance: random.Random) -> tuple[Box, ...]:
    """The same boxes drawn badly: moved and of another class."""
    return tuple(replace(box, class_id=(box.class_id + 1) % 3, cx=round(box.cx + chance.uniform(-0.05, 0.05), 6)) for box in boxes)
