"""The ledger's rows as values."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from azaion_daemon.store.layout import Home

UNKNOWN_DIGEST = "?"
"""Stands for the digest of an image that is in the tree, but that nobody has read yet: the tree was there before the ledger."""
UNKNOWN_MEDIA = "?"
"""Stands for a media that was known to a ledger that was lost, and that may have a side of the split."""
NO_LABEL = "no label: "
"""How `Annotation.label_problem` begins where there is no label at all."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream has been consumed: the offset of the last message and its digest."""

    offset: int
    digest: bytes
    """Empty when the position was imported: nobody here has seen the message there."""
    base: int = 0
    """What is added to the stream's offsets; see `RawMessage.base`."""

    @property
    def position(self) -> int:
        """The last message's place in everything that was ever consumed. What annotations and jobs refer to."""
        return self.base + self.offset


class Annotation(NamedTuple):
    """One annotation's row: everything that its files in the tree follow from. Times are seconds since the epoch.

    A tuple in the order of the ledger's columns, since there are ten thousand a second: it goes into SQLite as it is, and `_replace` takes
    a fifth of the time of `dataclasses.replace`.
    """

    name: str
    home: Home
    extension: str
    label: str
    pending: str | None = None
    """The text of a revision that nobody has validated yet."""
    image: str | None = None
    """The SHA-256 of the image, in hexadecimal, or `UNKNOWN_DIGEST`; None while there is none."""
    staged: str | None = None
    """The file in `incoming` that has the image until it is placed."""
    stale_extensions: str = ""
    """Extensions under which an older image may still lie in the tree, each followed by a slash."""
    dirty: int | None = None
    """The position since which the tree may not show this row; None when it surely does."""
    position: int = 0
    validated_position: int | None = None
    """Where it last changed what is trained on: entered, left or altered the validated set."""
    seen: bytes = b""
    """The digests of the Created messages that were applied, 32 bytes each."""
    media: str = ""
    time_ticks: int | None = None
    created_at: float | None = None
    creator_role: int = 0
    creator_email: str = ""
    source: int | None = None
    width: int | None = None
    height: int | None = None
    image_missing: bool = False
    image_conflict: bool = False
    label_problem: str | None = None
    first_seen: float = 0.0
    changed: float = 0.0

    @property
    def labelled(self) -> bool:
        """Whether it has a label. Where it has none the text is empty and the tree has no file: not the same as no detections."""
        return _labelled(self.label_problem)


def _labelled(label_problem: str | None) -> bool:
    return label_problem is None or not label_problem.startswith(NO_LABEL)


class Outline(NamedTuple):
    """What an annotation's row says of its files, without their content."""

    name: str
    home: Home
    extension: str
    has_image: bool
    has_pending: bool
    label_problem: str | None
    dirty: int | None

    @property
    def labelled(self) -> bool:
        """As an annotation's."""
        return _labelled(self.label_problem)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who or what changed a state, when and why."""

    subject: str
    action: str
    actor: str
    why: str


class Blame(StrEnum):
    """What a job failed for, and so what must change before it may go better."""

    DATA = "data"
    SETTINGS = "settings"
    INFRASTRUCTURE = "infrastructure"  # the machine, the disk, a kill: it may pass by itself


@dataclass(frozen=True, slots=True)
class Job:
    """A training job as the ledger knows it."""

    id: str
    state: str
    reason: str
    """What made it due."""
    created: float
    changed: float
    why: str | None = None
    """Why it is in its state, where that needs a word."""
    dataset: str | None = None
    position: int | None = None
    """The stream position of its snapshot."""
    judged: bool = False
    """Whether its data counts as trained on: the trigger counts from there."""
    result: dict[str, Any] | None = None
    audit: int | None = None
    """The newest audit entry when its snapshot was taken: with the position it says what has changed since."""
    settings: str | None = None
    """The digest of the settings that it was formed with."""
    blame: str | None = None
    """Why it failed, as a `Blame`."""
    ended: float | None = None
    """When its training ended; what follows (a release) may take longer."""
    trial: bool = False
    """Whether it only tries whether everything works: never judged nor released."""
    epochs: int | None = None
    """How many an operator asked for; None for those of the settings."""
    asked: bool = False
    """Whether an operator asked for it."""
    verdict: dict[str, Any] | None = None
    """What was decided about its model, why, by whom, and on which numbers."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was judged good enough to be kept."""

    sha256: str
    job: str | None
    dataset_id: str | None
    metrics: dict[str, Any]
    path: str
    current: bool
    created: float
    current_since: float | None = None
    """When it last became the current one, in seconds since the epoch; None when it never did."""


ReleaseState = Literal["waiting", "published", "superseded"]


@dataclass(frozen=True, slots=True)
class Release:
    """One publication of a model; serials only grow."""

    serial: int
    model_sha256: str
    state: ReleaseState
    created: float
    changed: float
    why: str | None = None
    details: dict[str, Any] | None = None
