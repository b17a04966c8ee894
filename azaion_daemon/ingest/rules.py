"""What an event makes of an annotation: pure, from a row to the next row.

An annotation lives in exactly one home: seed, validated or deleted. A validated one may also have a pending revision, a label alone in
the seed directory, written by an edit that nobody has validated yet; the validated label goes on training until the revision is validated.

===========================================  =================  ===================================================================
event                                        home before        after
===========================================  =================  ===================================================================
Created, already applied to this annotation  any                dropped: the producer's duplicate
Created by a validating role                 any                validated, image and label; a pending revision goes away
Created by another                           none/seed/deleted  seed
Created by another                           validated          stays; the label becomes the pending revision; its image is taken only
                                                                if one is missing, a different one is flagged `image_conflict`
Created without an image                                        as above; flagged `image_missing` unless there is one already
Edited by a validating role                  seed               label written, image moved: validated
Edited by a validating role                  validated          label replaced; a pending revision goes away
Edited by another                            seed               label replaced
Edited by another                            validated          pending revision
Edited                                       none               the role's home, label only, flagged `image_missing`
Edited                                       deleted            stays deleted, its label replaced
Validated                                    seed               validated
Validated                                    validated          a pending revision replaces the label; without one, nothing
Validated                                    none, deleted      an audit entry and one warning, nothing else
Deleted                                      seed, validated    deleted; a pending text stays in the row
Deleted                                      none, deleted      an audit entry, nothing else
===========================================  =================  ===================================================================
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from azaion_daemon.store.labels import label_problem
from azaion_daemon.store.layout import Home
from azaion_daemon.store.records import UNKNOWN_MEDIA, Annotation
from azaion_daemon.stream.events import AnnotationEvent, Status

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class StagedImage:
    """An image that is durable in `incoming` and was decoded in full."""

    file: str
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Change:
    """What an event made of an annotation. `row` is the one before where nothing changed, and None where there is still none."""

    row: Annotation | None
    ignored: str | None = None
    """Why the event changed nothing, for the audit."""
    surprising: bool = False
    """Whether that deserves a warning."""
    moved: bool = False
    """Whether it only went to another home: what its files hold is as before."""


def apply_annotation(
    row: Annotation | None, event: AnnotationEvent, image: StagedImage | None, *, known_classes: AbstractSet[int], now: float
) -> Change:
    """Apply a Created or Edited event. `now` is in seconds since the epoch."""
    if event.status is Status.CREATED and row is not None and _has_seen(row, event.digest):
        return Change(row, "a duplicate of a message that was applied before")
    home = _home_after(row, event)
    base = row or Annotation(name=event.name, home=home, extension=event.extension, label=event.label, first_seen=now)
    pending = _is_revision(row, event)
    after = base._replace(home=home, pending=event.label) if pending else base._replace(home=home, label=event.label, label_problem=None)
    if home is Home.VALIDATED and not pending:
        after = after._replace(pending=None, image_conflict=False)  # its author has seen the image that we have
    if row is not None and row.home is Home.DELETED and home is Home.SEED:
        after = after._replace(pending=None)  # the annotation is drawn anew
    after = _with_image(after, event, image, keep=pending or event.status is Status.EDITED)
    if event.status is Status.CREATED:
        after = _with_creation(after, event)
    return Change(_finish(row, after, event.position, known_classes, now))


def apply_validated(row: Annotation | None, position: int, *, known_classes: AbstractSet[int], now: float) -> Change:
    """Apply a Validated event to one of its names."""
    match row:
        case None:
            return Change(None, "validated, but it is unknown", surprising=True)
        case Annotation(home=Home.DELETED):
            return Change(row, "validated, but it is deleted", surprising=True)
        case Annotation(home=Home.VALIDATED, pending=None):
            return Change(row, "validated already")
        case Annotation(home=Home.VALIDATED, pending=str(text)):
            return Change(_finish(row, row._replace(label=text, label_problem=None, pending=None), position, known_classes, now))
        case _:
            after = _finish(row, row._replace(home=Home.VALIDATED, pending=None), position, known_classes, now)
            return Change(after, moved=row.pending is None)


def apply_deleted(row: Annotation | None, position: int, *, known_classes: AbstractSet[int], now: float) -> Change:
    """Apply a Deleted event to one of its names."""
    if row is None or row.home is Home.DELETED:
        return Change(row, "deleted, but it is unknown" if row is None else "deleted already")
    return Change(_finish(row, row._replace(home=Home.DELETED), position, known_classes, now), moved=True)


def _home_after(row: Annotation | None, event: AnnotationEvent) -> Home:
    if row is not None and row.home is Home.DELETED and event.status is Status.EDITED:
        return Home.DELETED
    if event.validating or (row is not None and row.home is Home.VALIDATED):
        return Home.VALIDATED
    return Home.SEED


def _is_revision(row: Annotation | None, event: AnnotationEvent) -> bool:
    return row is not None and row.home is Home.VALIDATED and not event.validating


def _with_image(row: Annotation, event: AnnotationEvent, image: StagedImage | None, *, keep: bool) -> Annotation:
    """Take the event's image; with `keep` only if the annotation has none."""
    if image is None:
        return row._replace(image_missing=row.image is None, extension=row.extension or event.extension)
    same = image.sha256 == row.image
    if same and (keep or event.extension == row.extension):
        return row._replace(image_conflict=False)  # the label was drawn on the image that we have
    if keep and row.image is not None:
        return row._replace(image_conflict=True)
    stale = set(row.stale_extensions.split("/")) - {"", event.extension}
    if row.image is not None and row.extension != event.extension:
        stale.add(row.extension)
    return row._replace(
        image=image.sha256,
        staged=image.file,
        extension=event.extension,
        stale_extensions="".join(f"{extension}/" for extension in sorted(stale)),
        width=image.width,
        height=image.height,
        image_missing=False,
        image_conflict=False,
    )


def _with_creation(row: Annotation, event: AnnotationEvent) -> Annotation:
    return row._replace(
        seen=row.seen + event.digest,
        media=_media(row, event),
        time_ticks=row.time_ticks if event.time_ticks is None else event.time_ticks,
        created_at=row.created_at if event.created is None else event.created.timestamp(),
        creator_role=event.role,
        creator_email=event.email,
        source=row.source if event.source is None else event.source,
    )


def _media(row: Annotation, event: AnnotationEvent) -> str:
    """The first that is known stays: another one could stand on another side of the split."""
    known = row.media not in {"", UNKNOWN_MEDIA}
    return row.media if known or not event.media else event.media


def _finish(before: Annotation | None, after: Annotation, position: int, known_classes: AbstractSet[int], now: float) -> Annotation:
    problem = after.label_problem
    if before is None or (before.label, before.label_problem) != (after.label, after.label_problem):
        problem = label_problem(after.label, known_classes)
    trained_on = position if _trained_on(before) != _trained_on(after) else after.validated_position
    return after._replace(label_problem=problem, validated_position=trained_on, position=position, dirty=position, changed=now)


def _trained_on(row: Annotation | None) -> tuple[str, bool, str | None, str] | None:
    return (row.label, row.labelled, row.image, row.extension) if row is not None and row.home is Home.VALIDATED else None


def _has_seen(row: Annotation, digest: bytes) -> bool:
    seen = row.seen
    return any(seen[start : start + _DIGEST_BYTES] == digest for start in range(0, len(seen), _DIGEST_BYTES))
