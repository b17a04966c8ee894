"""What a dataset says of an annotation: which side it is on, or why it was left out."""

from enum import StrEnum
from typing import NamedTuple

from azaion_daemon.dataset.split import Side
from azaion_daemon.store.records import Annotation


class Reason(StrEnum):
    """The kinds of reasons to leave an annotation out, by which they are counted."""

    IMAGE_MISSING = "image_missing"
    IMAGE_CONFLICT = "image_conflict"
    NO_LABEL = "no_label"
    UNREADABLE = "label_unreadable"
    NOT_FINITE = "label_not_finite"
    OUTSIDE = "label_outside"
    UNKNOWN_CLASS = "unknown_class"
    SIDE_CONFLICT = "side_conflict"
    NOT_IN_TREE = "not_in_tree"
    IMAGE_UNUSABLE = "image_unusable"


class Exclusion(NamedTuple):
    """Why an annotation was left out."""

    reason: Reason
    detail: str
    class_id: int | None = None
    """The id that no class has."""


class Entry(NamedTuple):
    """An annotation in a dataset."""

    annotation: Annotation
    media: str
    """What is kept together: `media:` and its name, or `name:` and the annotation's."""
    side: Side
    class_ids: tuple[int, ...]
    """The class of each of its objects."""
