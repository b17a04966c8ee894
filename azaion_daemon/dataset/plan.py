"""What a dataset would hold: pure, from the ledger's rows to entries, exclusions and problems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.split import Side, assign_sides
from azaion_daemon.settings import DatasetSettings
from azaion_daemon.store.labels import label_problem, parse_label
from azaion_daemon.store.records import Annotation


@dataclass(frozen=True, slots=True)
class Entry:
    """An annotation in a dataset."""

    annotation: Annotation
    media: str
    side: Side


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """What a dataset would hold."""

    entries: tuple[Entry, ...]
    excluded: Mapping[str, str]
    """Name to reason."""
    new_sides: Mapping[str, Side]

    def images(self) -> dict[Side, int]:
        """How many images each side has."""
        counts = Counter(entry.side for entry in self.entries)
        return {side: counts[side] for side in Side}

    def objects(self) -> dict[Side, int]:
        """How many labelled objects each side has."""
        counts: Counter[Side] = Counter()
        for entry in self.entries:
            counts[entry.side] += len(parse_label(entry.annotation.label))
        return {side: counts[side] for side in Side}

    def problems(self) -> list[str]:
        """Why it could not be trained on, a sentence each; empty when it can."""
        images, objects = self.images(), self.objects()
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
    excluded = {row.name: reason for row in rows if (reason := _exclusion(row, classes))}
    kept = [(row, _media(row, settings)) for row in sorted(rows, key=lambda row: row.name) if row.name not in excluded]
    images = Counter(media for _, media in kept)
    new = assign_sides(images, sides, settings.split, key=key)
    known = {**sides, **new}
    return DatasetPlan(tuple(Entry(row, media, known[media]) for row, media in kept), excluded, new)


def _exclusion(row: Annotation, classes: Classes) -> str | None:
    if row.image is None:
        return "its image is missing"
    if row.image_conflict and row.pending is None:
        return "its label was drawn on another image than the one that is stored"
    if not row.labelled:
        return row.label_problem
    return label_problem(row.label, classes.known)  # anew: classes.json may have changed since the label came


def _media(row: Annotation, settings: DatasetSettings) -> str:
    """What is kept together; prefixed so that a name is never taken for a media."""
    by_media = settings.split_by == "media" and row.media
    return f"media:{row.media}" if by_media else f"name:{row.name}"
