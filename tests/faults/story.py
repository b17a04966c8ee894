"""What annotators do, at random but reproducibly, and what must have come of it.

A `Story` invents acts: annotations are created, drawn again with another image, corrected, validated, revised after their validation,
deleted and drawn anew; messages come twice, copies come late, some are bad. `Truth` is what a root must hold after the messages of a
stream, by the table's model and nothing of the product's.
"""

import hashlib
import random
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from azaion_daemon.sandbox.annotations import Author, Dialect, Message, Role
from azaion_daemon.sandbox.annotations import Status as Wire
from azaion_daemon.sandbox.scenes import Box, Scene, draw_scene
from azaion_daemon.stream.events import Status
from tests.harness import label_text
from tests.model import Model

HOMES = {"validated": "data", "seed": "data-seed", "deleted": "data_deleted"}
_EXTENSIONS = ("jpg", "jpeg")
_BASE_IMAGES = 8
_MAX_BALLAST = 8_000
_RECENT = 24
"""So many annotations are worked on at a time, so that each sees many events."""
_START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Act:
    """A message and what it means. `image` is the number of an image in `Images`; a bad message means nothing but itself."""

    message: Message
    status: Status | None
    names: tuple[str, ...] = ()
    role: int = 0
    label: str = ""
    image: int | None = None
    bad: bool = False
    """It goes to the quarantine; what it means for `names` is applied all the same."""


class Images:
    """Small JPEGs, each unlike every other, by their number; the extension belongs to the image."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def content(self, number: int) -> bytes:
        """A real image that has its number, and some bytes more, in a comment."""
        base = _base_image(number % _BASE_IMAGES)
        chance = random.Random(f"{self._seed} {number}")
        comment = f"{self._seed} {number} ".encode() + chance.randbytes(chance.randrange(_MAX_BALLAST))
        return base[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + base[2:]

    def extension(self, number: int) -> str:
        """The extension that it is sent with."""
        return _EXTENSIONS[number % 7 == 0]

    @cache  # noqa: B019 - a story lives as long as its test
    def digest(self, number: int) -> str:
        """The SHA-256 of its content."""
        return hashlib.sha256(self.content(number)).hexdigest()


@cache
def _base_image(number: int) -> bytes:
    return draw_scene(number, 64).image_jpeg


class Story:
    """Endless acts; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.images = Images(seed)
        self._chance = random.Random(seed)
        self._names: deque[str] = deque(maxlen=_RECENT)
        self._created: deque[Act] = deque(maxlen=2 * _RECENT)
        self._drawn = 0
        self._acts = 0

    def __iter__(self) -> Iterator[Act]:
        plots: dict[Callable[[], Act], int] = {
            self._create: 30,
            self._draw_again: 5,
            self._copy_late: 4,
            self._edit: 18,
            self._edit_unknown: 1,
            self._validate: 14,
            self._delete: 5,
            self._spoil: 3,
            self._spoil_in_part: 2,
        }
        yield self._create()
        while True:
            (plot,) = self._chance.choices(list(plots), list(plots.values()))
            act = plot()
            for _ in range(1 + (self._chance.random() < 0.1)):
                yield act

    def take(self, count: int) -> list[Act]:
        """The next acts."""
        acts = iter(self)
        return [next(acts) for _ in range(count)]

    def ending(self) -> Act:
        """An act that changes nothing, and is like no other: after it, everything before has been heard."""
        return Act(self._author().deleted([str(uuid.UUID(int=self._chance.getrandbits(128), version=4))]), Status.DELETED)

    def _author(self, extension: str = "jpg") -> Author:
        role = self._chance.choices([Role.OPERATOR, Role.VALIDATOR, Role.COMPANION_PC, Role.API_ADMIN], [6, 2, 1, 1])[0]
        return Author(f"{role.name.lower()}@example.org", role, Dialect(extension=extension))

    def _now(self) -> datetime:
        self._acts += 1
        return _START + timedelta(seconds=self._acts)

    def _boxes(self) -> tuple[Box, ...]:
        def number() -> float:
            return round(self._chance.uniform(0.2, 0.8), 6)

        return tuple(Box(self._chance.randrange(4), number(), number(), 0.1, 0.2) for _ in range(self._chance.randrange(4)))

    def _name(self) -> str:
        return self._chance.choice(self._names)

    def _new_name(self) -> str:
        self._names.append(str(uuid.UUID(int=self._chance.getrandbits(128), version=4)))
        return self._names[-1]

    def _create(self) -> Act:
        return self._draw(self._new_name())

    def _draw_again(self) -> Act:
        return self._draw(self._name())

    def _draw(self, name: str) -> Act:
        image = None if self._chance.random() < 0.05 else self._drawn
        self._drawn += 1
        author = self._author("jpg" if image is None else self.images.extension(image))
        boxes = self._boxes()
        scene = Scene(b"" if image is None else self.images.content(image), boxes)
        message = author.created(name, scene, media=f"flight-{self._drawn // 5}.mp4", time_ticks=self._drawn, at=self._now())
        act = Act(message, Status.CREATED, (name,), author.role, label_text(boxes).decode(), image)
        self._created.append(act)
        return act

    def _copy_late(self) -> Act:
        return self._chance.choice(self._created)

    def _edit(self) -> Act:
        return self._correct(self._name())

    def _edit_unknown(self) -> Act:
        return self._correct(self._new_name())

    def _correct(self, name: str) -> Act:
        author, boxes = self._author(), self._boxes()
        return Act(author.edited(name, boxes, at=self._now()), Status.EDITED, (name,), author.role, label_text(boxes).decode())

    def _some(self, most: int) -> tuple[str, ...]:
        names = self._chance.sample(list(self._names), k=min(len(self._names), self._chance.randint(1, most)))
        return (*names, "nobody-knows-it") if self._chance.random() < 0.1 else tuple(names)

    def _validate(self) -> Act:
        names = self._some(8)
        return Act(self._author().validated(names), Status.VALIDATED, names)

    def _delete(self) -> Act:
        names = self._some(3)
        return Act(self._author().deleted(names), Status.DELETED, names)

    def _spoil(self) -> Act:
        whole = self._draw(self._name())
        self._created.pop()
        if whole.image is None or self._chance.random() < 0.5:
            return Act(Message(Wire.CREATED, self._chance.randbytes(100), whole.message.properties), None, bad=True)
        half = self.images.content(whole.image)
        scene = Scene(half[: -len(_base_image(whole.image % _BASE_IMAGES)) // 2], ())
        return Act(self._author().created(whole.names[0], scene, at=self._now()), None, bad=True)

    def _spoil_in_part(self) -> Act:
        names = self._some(4)
        return Act(self._author().validated([*names, "../escape"]), Status.VALIDATED, names, bad=True)


@dataclass
class Truth:
    """What a root must hold after the messages heard so far."""

    images: Images
    annotations: dict[str, Model] = field(default_factory=dict)
    quarantined: dict[int, bytes] = field(default_factory=dict)
    """The bodies of the bad messages by their offset."""
    position: int | None = None
    _seen: set[tuple[str, bytes]] = field(default_factory=set)

    def hear(self, offset: int, act: Act) -> None:
        """Apply the next message of the stream."""
        self.position = offset
        if act.bad:
            self.quarantined[offset] = act.message.body
        for name in act.names:
            match act.status:
                case Status.CREATED | Status.EDITED as status:
                    if (name, act.message.body) not in self._seen:
                        self.annotations.setdefault(name, Model()).annotate(status, act.role, act.label, act.image)
                    if status is Status.CREATED:
                        self._seen.add((name, act.message.body))
                case Status.VALIDATED if name in self.annotations:
                    self.annotations[name].validate()
                case Status.DELETED if name in self.annotations:
                    self.annotations[name].delete()

    def tree(self) -> dict[str, str]:
        """Every file of the annotation tree and its SHA-256."""
        files: dict[str, str] = {}
        for name, one in self.annotations.items():
            home = HOMES[one.home]
            files[f"{home}/labels/{name}.txt"] = hashlib.sha256((one.label or "").encode()).hexdigest()
            if one.home == "validated" and one.pending is not None:
                files[f"data-seed/labels/{name}.txt"] = hashlib.sha256(one.pending.encode()).hexdigest()
            if one.image is not None:
                files[f"{home}/images/{name}.{self.images.extension(one.image)}"] = self.images.digest(one.image)
        return files

    def rows(self) -> dict[str, tuple[object, ...]]:
        """Of each annotation: home, label, pending label, image digest, image_missing, image_conflict."""
        return {
            name: (
                one.home,
                one.label,
                one.pending,
                None if one.image is None else self.images.digest(one.image),
                one.image is None,
                one.conflict,
            )
            for name, one in self.annotations.items()
        }
