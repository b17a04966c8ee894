"""What a dataset would hold: pure, from the ledger's rows to entries, exclusions and counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.counts import Counts, count
from azaion_daemon.dataset.entries import Entry, Exclusion, Reason
from azaion_daemon.dataset.split import Side, assign_sides
from azaion_daemon.dataset.units import Units, find_units
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.store.labels import Fault, LabelFault, read_label
from azaion_daemon.store.records import Annotation

_REASONS = {
    Fault.UNREADABLE: Reason.UNREADABLE,
    Fault.NOT_FINITE: Reason.NOT_FINITE,
    Fault.OUTSIDE: Reason.OUTSIDE,
    Fault.UNKNOWN_CLASS: Reason.UNKNOWN_CLASS,
}


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """What a dataset would hold. Whether it can be trained on is `readiness.judge`'s to say."""

    entries: tuple[Entry, ...]
    """By name."""
    excluded: Mapping[str, Exclusion]
    """By name."""
    new_sides: Mapping[str, Side]
    """Of what is kept together and had none."""
    counts: Counts

    def without(self, excluded: Mapping[str, Exclusion], classes: Classes) -> "DatasetPlan":
        """What is left when some more cannot be had."""
        if not excluded:
            return self
        kept = tuple(entry for entry in self.entries if entry.annotation.name not in excluded)
        everything = {**self.excluded, **excluded}
        return DatasetPlan(kept, everything, self.new_sides, count(kept, everything.values(), classes))


def plan_dataset(
    rows: Sequence[Annotation], sides: Mapping[str, Side], classes: Classes, settings: DatasetSettings, *, key: str
) -> DatasetPlan:
    """Decide about every validated annotation. `sides` are those that are recorded; `key` orders media that have none."""
    units = find_units(rows, sides, settings.split_by)
    excluded: dict[str, Exclusion] = {}
    kept: list[tuple[Annotation, str, tuple[int, ...]]] = []
    for row in sorted(rows, key=lambda row: row.name):
        match _judge(row, classes, units):
            case Exclusion() as exclusion:
                excluded[row.name] = exclusion
            case class_ids:
                kept.append((row, units.of[row.name], class_ids))
    images = Counter(unit for _, unit, _ in kept)
    decided = {unit: side for unit, side in units.sides.items() if unit in images}
    new = decided | assign_sides(images, {**sides, **decided}, settings.split, key=key)
    known = {**sides, **new}
    entries = tuple(Entry(row, unit, known[unit], ids) for row, unit, ids in kept)
    return DatasetPlan(entries, excluded, new, count(entries, excluded.values(), classes))


def _judge(row: Annotation, classes: Classes, units: Units) -> tuple[int, ...] | Exclusion:
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
    if row.name in units.conflicts:
        own, other = units.conflicts[row.name]
        return Exclusion(Reason.SIDE_CONFLICT, f"it was on the side {own} before its media, which is on {other}, was known")
    return tuple(detection.class_id for detection in read)
