"""The text form of a label: one line a detection, `class_id cx cy w h`, space-separated; no detections is an empty text.

Coordinates are shares of the image's width and height, 0..1, centre first. This is the form that Ultralytics reads.
"""

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Detection:
    """One box: class id, centre and size as shares of the image."""

    class_id: int
    cx: float
    cy: float
    w: float
    h: float


def format_label(detections: Iterable[Detection]) -> str:
    """The text of a label file. Numbers keep every digit that they came with."""
    return "".join(f"{d.class_id} {d.cx!r} {d.cy!r} {d.w!r} {d.h!r}\n" for d in detections)


def parse_label(text: str) -> list[Detection]:
    """The detections of a label file.

    Raises:
        ValueError: A line is not five numbers, the first an integer.
    """
    detections = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            class_id, cx, cy, w, h = fields
            detections.append(Detection(int(class_id), float(cx), float(cy), float(w), float(h)))
        except ValueError:
            raise ValueError(f"line {number} is not five numbers") from None
    return detections


class Fault(StrEnum):
    """What can be wrong with a label."""

    UNREADABLE = "unreadable"
    NOT_FINITE = "not_finite"
    OUTSIDE = "outside"
    UNKNOWN_CLASS = "unknown_class"


class LabelFault(NamedTuple):
    """Why a label cannot be trained on."""

    fault: Fault
    text: str
    """In a few words."""
    class_id: int | None = None
    """The id that is unknown."""


def read_label(text: str, known_classes: AbstractSet[int]) -> list[Detection] | LabelFault:
    """The detections of a label that can be trained on, or the first fault that it has."""
    try:
        detections = parse_label(text)
    except ValueError as error:
        return LabelFault(Fault.UNREADABLE, str(error))
    for number, d in enumerate(detections, 1):
        if not (0 <= d.cx <= 1 and 0 <= d.cy <= 1 and 0 <= d.w <= 1 and 0 <= d.h <= 1):
            if all(math.isfinite(value) for value in (d.cx, d.cy, d.w, d.h)):
                return LabelFault(Fault.OUTSIDE, f"detection {number} lies outside 0..1")
            return LabelFault(Fault.NOT_FINITE, f"detection {number} has a number that is not finite")
        if d.class_id not in known_classes:
            return LabelFault(Fault.UNKNOWN_CLASS, f"detection {number} has the unknown class {d.class_id}", d.class_id)
    return detections


def label_problem(text: str, known_classes: AbstractSet[int]) -> str | None:
    """Why a label cannot be trained on, in a few words; None when it can. The first fault is named."""
    read = read_label(text, known_classes)
    return read.text if isinstance(read, LabelFault) else None
