"""Applying a quarantined message after all: what of it may still be applied, long after its place in the stream has passed.

An annotation may have seen newer messages since. Then an old one may only supply an image or a label that is missing; anything else
would undo what people did later, and is refused unless the operator says that it is to count as new.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from azaion_daemon.ingest.rules import StagedImage, apply_annotation, apply_deleted, apply_validated
from azaion_daemon.store.labels import label_problem
from azaion_daemon.store.layout import Home
from azaion_daemon.store.records import Annotation
from azaion_daemon.stream.events import AnnotationEvent, BulkEvent, Event, Status


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay makes of the ledger, and why it does not apply to some annotations."""

    rows: Mapping[str, Annotation]
    refused: Mapping[str, str]


def replay(
    event: Event,
    image: StagedImage | None,
    rows: Mapping[str, Annotation],
    *,
    passed_over: Mapping[str, str],
    position: int,
    as_new: bool,
    known_classes: AbstractSet[int],
    now: float,
) -> Replayed:
    """Apply a message out of its order. `position` is the ledger's: what changes counts from there, as it happens now.

    `passed_over` says what was asked, after the message, of annotations that were unknown: to bring such a one to life would undo that.
    """
    changed: dict[str, Annotation] = {}
    refused: dict[str, str] = {}
    for name in (event.name,) if isinstance(event, AnnotationEvent) else event.names:
        row = rows.get(name)
        if name in passed_over:
            refused[name] = f"since then it was {passed_over[name]}; replay it as new if this message is right"
            continue
        newer = row is not None and row.position > event.position and not as_new
        if newer and row is not None:
            supplied = _supply(row, event, image, position=position, known_classes=known_classes, now=now)
            if supplied is None:
                refused[name] = f"it has changed since, at {row.position}; replay it as new if this message is right"
            else:
                changed[name] = supplied
            continue
        match event:
            case AnnotationEvent():
                change = apply_annotation(row, replace(event, position=position), image, known_classes=known_classes, now=now)
            case BulkEvent(status=Status.VALIDATED):
                change = apply_validated(row, position, known_classes=known_classes, now=now)
            case _:
                change = apply_deleted(row, position, known_classes=known_classes, now=now)
        if change.ignored is not None:
            refused[name] = change.ignored
        elif change.row is not None:
            changed[name] = change.row
    return Replayed(changed, refused)


def _supply(
    row: Annotation, event: Event, image: StagedImage | None, *, position: int, known_classes: AbstractSet[int], now: float
) -> Annotation | None:
    """The row with what it lacks and the message has; None when that is nothing."""
    if not isinstance(event, AnnotationEvent):
        return None
    after = row
    if image is not None and row.image is None:
        after = after._replace(
            image=image.sha256,
            staged=image.file,
            extension=event.extension,
            width=image.width,
            height=image.height,
            image_missing=False,
        )
    if not row.labelled:
        after = after._replace(label=event.label, label_problem=label_problem(event.label, known_classes))
    if after is row:
        return None
    trained_on = position if row.home is Home.VALIDATED else row.validated_position
    return after._replace(dirty=position, position=position, validated_position=trained_on, changed=now)
