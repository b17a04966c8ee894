"""What a dataset would hold: pure, from the ledger's rows to entries, exclusions and problems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.counts import Counts, count
from azaion_daemon.dataset.entries import Entry, Exclusion, Reason
from azaion_daemon.dataset.split import Side, assign_sides
from azaion_daemon.settings import DatasetSettings
from azaion_daemon.store.labels import Fault, LabelFault, read_label
from azaion_daemon.store.records import Annotation

_REASONS = {
    Fault.UNREADABLE: Reason.UNREADABLE,
    Fault.NOT_FINITE: Reason.NOT_FINITE,
    Fault.OUTSIDE: Reason.OUTSIDE,
    Fault.UNKNOWN_CLASS: Reason.UNKNOWN_CLASS,
}


@dataclass(frozen=True)
class DatasetPlan:
    """What a dataset would hold."""

    entries: tuple[Entry, ...]
    """By name."""
    excluded: Mapping[str, Exclusion]
    """By name."""
    new_sides: Mapping[str, Side]
    """Of media that had none."""
    classes: Classes

    @cached_property
    def counts(self) -> Counts:
        """How much there is."""
        return count(self.entries, self.excluded.values(), self.classes)

    def without(self, excluded: Mapping[str, Exclusion]) -> "DatasetPlan":
        """What is left when some more cannot be had."""
        if not excluded:
            return self
        kept = tuple(entry for entry in self.entries if entry.annotation.name not in excluded)
        return replace(self, entries=kept, excluded={**self.excluded, **excluded})

    def problems(self) -> list[str]:
        """Why it could not be trained on, a sentence each; empty when it can."""
        images, objects = self.counts.images, self.counts.objects
        found = [
            f"no image for {side}: annotations of more media are needed, or set dataset.split_by to name"
            for side in Side
            if not images[side]
        ]
        found += [f"no labelled object in {side}" for side in (Side.TRAIN, Side.VALID) if images[side] and not objects[side]]
        return found


def plan_dataset(
    rows: Sequence[Annotation], sides: Mapping[str, Side], classes: Classes, settings: DatasetSettings, *, key: str
) -> DatasetPlan:
    """Decide about every validated annotation. `sides` are those that media have already; `key` orders new media."""
    excluded: dict[str, Exclusion] = {}
    kept: list[tuple[Annotation, str, tuple[int, ...]]] = []
    for row in sorted(rows, key=lambda row: row.name):
        match _judge(row, classes):
            case Exclusion() as exclusion:
                excluded[row.name] = exclusion
            case class_ids:
                kept.append((row, _media(row, settings), class_ids))
    new = assign_sides(Counter(media for _, media, _ in kept), sides, settings.split, key=key)
    known = {**sides, **new}
    return DatasetPlan(tuple(Entry(row, media, known[media], ids) for row, media, ids in kept), excluded, new, classes)


def _judge(row: Annotation, classes: Classes) -> tuple[int, ...] | Exclusion:
    """Why an annotation is left out, or the class ids of its objects."""
    if row.image is None:
        return Exclusion(Reason.IMAGE_MISSING, "its image is missing")
    if row.image_conflict and row.pending is None:
        return Exclusion(Reason.IMAGE_CONFLICT, "its label was drawn on another image than the one that is stored")
    if not row.labelled:
        return Exclusion(Reason.NO_LABEL, str(row.label_problem))
    read = read_label(row.label, classes.known)  # anew: classes.json may have changed since the label came
    if isinstance(read, LabelFault):
        return Exclusion(_REASONS[read.fault], read.text, read.class_id)
    return tuple(detection.class_id for detection in read)


def _media(row: Annotation, settings: DatasetSettings) -> str:
    """What is kept together; prefixed so that a name is never taken for a media."""
    by_media = settings.split_by == "media" and row.media
    return f"media:{row.media}" if by_media else f"name:{row.name}"
