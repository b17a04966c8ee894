"""How much there is in a dataset: counted once, for the log, `dataset.json`, the checks before a training, and those who look at it."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from azaion_daemon.dataset.classes import Classes, Mode, mode_of
from azaion_daemon.dataset.entries import Entry, Exclusion, Reason
from azaion_daemon.dataset.split import Side
from azaion_daemon.store.records import UNKNOWN_MEDIA

T = TypeVar("T")
PerSide = Mapping[Side, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many objects there are of something, and in how many images."""

    images: PerSide
    objects: PerSide


@dataclass(frozen=True, slots=True)
class Counts:
    """What a dataset holds and what it leaves out."""

    images: PerSide
    objects: PerSide
    backgrounds: PerSide
    """Images without an object."""
    media: PerSide
    """What is kept together on one side: a media, or an annotation that stands for itself."""
    torn_media: int
    """Media that have annotations on more than one side."""
    classes: Mapping[int, Tally]
    """By the id of each class that there is, also of those without any instance."""
    modes: Mapping[Mode, Tally]
    """An image counts in every mode that it has an object of."""
    excluded: Mapping[Reason, int]
    unknown_classes: Mapping[int, int]
    """Annotations that were left out for an id that no class has, by the first such id."""

    def shares(self) -> dict[Side, float]:
        """Per cent of the images that each side has; 0 of none."""
        total = sum(self.images.values())
        return {side: 100 * count / total if total else 0.0 for side, count in self.images.items()}


def count(entries: Collection[Entry], excluded: Iterable[Exclusion], classes: Classes) -> Counts:
    """Count what a dataset would hold."""
    sides = {side: [entry for entry in entries if entry.side is side] for side in Side}
    objects = {side: Counter(chain.from_iterable(entry.class_ids for entry in found)) for side, found in sides.items()}
    images = {side: Counter(chain.from_iterable({*entry.class_ids} for entry in found)) for side, found in sides.items()}
    in_modes = {
        side: Counter(chain.from_iterable({mode_of(class_id) for class_id in entry.class_ids} for entry in found))
        for side, found in sides.items()
    }
    left_out = [*excluded]
    return Counts(
        images={side: len(found) for side, found in sides.items()},
        objects={side: counter.total() for side, counter in objects.items()},
        backgrounds={side: sum(not entry.class_ids for entry in found) for side, found in sides.items()},
        media={side: len({entry.media for entry in found}) for side, found in sides.items()},
        torn_media=_torn(entries),
        classes={id_: Tally(_of(images, id_), _of(objects, id_)) for id_ in sorted(classes.known)},
        modes={
            mode: Tally(
                _of(in_modes, mode),
                {side: sum(number for id_, number in counter.items() if mode_of(id_) is mode) for side, counter in objects.items()},
            )
            for mode in Mode
        },
        excluded=Counter(one.reason for one in left_out),
        unknown_classes=Counter(one.class_id for one in left_out if one.class_id is not None),
    )


def counts_document(counts: Counts, classes: Classes) -> dict[str, Any]:
    """The counts as plain data."""
    return {
        "images": dict(counts.images),
        "objects": dict(counts.objects),
        "backgrounds": dict(counts.backgrounds),
        "media": dict(counts.media),
        "torn_media": counts.torn_media,
        "shares": {side: round(share, 2) for side, share in counts.shares().items()},
        "classes": [{"id": id_, "name": classes.names[id_], **_tally(tally)} for id_, tally in counts.classes.items()],
        "modes": {mode: _tally(tally) for mode, tally in counts.modes.items()},
        "excluded": {reason: counts.excluded[reason] for reason in Reason if counts.excluded.get(reason)},
        "unknown_classes": {str(id_): number for id_, number in sorted(counts.unknown_classes.items())},
    }


def _torn(entries: Iterable[Entry]) -> int:
    sides: dict[str, Side] = {}
    torn: set[str] = set()
    for entry in entries:
        media = entry.annotation.media
        if media not in {"", UNKNOWN_MEDIA} and sides.setdefault(media, entry.side) is not entry.side:
            torn.add(media)
    return len(torn)


def _of(counters: Mapping[Side, Mapping[T, int]], what: T) -> PerSide:
    return {side: counter.get(what, 0) for side, counter in counters.items()}


def _tally(tally: Tally) -> dict[str, Any]:
    return {"images": dict(tally.images), "objects": dict(tally.objects)}
