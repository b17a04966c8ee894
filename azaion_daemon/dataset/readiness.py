"""Everything that would waste a GPU, found before one is taken: named, with what to do about it."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from pydantic import ByteSize

from azaion_daemon.dataset.classes import Classes, base_of
from azaion_daemon.dataset.counts import Counts
from azaion_daemon.dataset.disk import Disk
from azaion_daemon.dataset.split import Side
from azaion_daemon.sections import DatasetSettings

_TOLERANCE = 2.0
"""Points of per cent by which a side may miss its share without a word."""
_CONSIDERABLE = 0.05
"""From this share of the annotations on it is said how many are left out."""
_NAMED = 10
"""How many of a kind are named in a sentence."""


class Code(StrEnum):
    """The kinds of findings."""

    NO_IMAGES = "no_images"
    TOO_FEW_IMAGES = "too_few_images"
    TOO_FEW_OBJECTS = "too_few_objects"
    EMPTY_SIDE = "empty_side"
    NO_OBJECTS = "no_objects"
    CLASS_WITHOUT_INSTANCE = "class_without_instance"
    CLASS_NOT_IN_TRAIN = "class_not_in_train"
    UNKNOWN_CLASSES = "unknown_classes"
    MUCH_EXCLUDED = "much_excluded"
    SHARES_MISSED = "shares_missed"
    TORN_MEDIA = "torn_media"
    TOO_LITTLE_DISK = "too_little_disk"


class Finding(NamedTuple):
    """Something that is wrong with a dataset, or worth a word."""

    code: Code
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.code}: {self.what}. {self.remedy}"


class Readiness(NamedTuple):
    """Whether a dataset can be trained on."""

    problems: tuple[Finding, ...]
    """Any of these forbids it."""
    remarks: tuple[Finding, ...]
    """These do not."""


def judge(counts: Counts, classes: Classes, settings: DatasetSettings, disk: Disk | None = None) -> Readiness:
    """Look at what a dataset would hold, and at the disk that it and its training need."""
    undrawn = [*_undrawn(counts, classes)]
    problems = [*_amounts(counts, settings), *_sides(counts), *(undrawn if settings.require_every_class else ()), *_space(disk)]
    remarks = [
        *(() if settings.require_every_class else undrawn),
        *_unlearnable(counts, classes),
        *_left_out(counts),
        *_shares(counts, settings),
        *_torn(counts, settings),
    ]
    return Readiness(tuple(problems), tuple(remarks))


def _amounts(counts: Counts, settings: DatasetSettings) -> Iterator[Finding]:
    images, objects = sum(counts.images.values()), sum(counts.objects.values())
    if not images:
        left_out = f", {sum(counts.excluded.values())} are left out ({_reasons(counts)})" if counts.excluded else ""
        yield Finding(Code.NO_IMAGES, f"no validated annotation can be used{left_out}", "Annotate and validate images")
        return
    if images < settings.min_images:
        yield Finding(
            Code.TOO_FEW_IMAGES,
            f"{images} images can be used, {settings.min_images} are needed at least",
            "Annotate and validate more, or lower dataset.min_images",
        )
    if objects < settings.min_objects:
        yield Finding(
            Code.TOO_FEW_OBJECTS,
            f"{objects} objects are labelled, {settings.min_objects} are needed at least",
            "Annotate and validate more, or lower dataset.min_objects",
        )


def _sides(counts: Counts) -> Iterator[Finding]:
    if not any(counts.images.values()):
        return
    for side in Side:
        if not counts.images[side]:
            yield Finding(
                Code.EMPTY_SIDE,
                f"no image for {side}: all {sum(counts.images.values())} are of {sum(counts.media.values())} media, which are not divided",
                "Annotate images of more media, or set dataset.split_by to name where frames of one media do not resemble each other",
            )
        elif not counts.objects[side]:
            yield Finding(
                Code.NO_OBJECTS,
                f"no labelled object in {side}: its {counts.images[side]} images are all background",
                "Annotate objects in images of more media",
            )


def _undrawn(counts: Counts, classes: Classes) -> Iterator[Finding]:
    drawn = {base_of(id_) for id_, tally in counts.classes.items() if any(tally.objects.values())}
    missing = sorted({base_of(id_) for id_ in classes.known} - drawn)
    if missing:
        yield Finding(
            Code.CLASS_WITHOUT_INSTANCE,
            f"no instance of {len(missing)} classes of classes.json: {_some([classes.names[id_] for id_ in missing])}",
            "The model will not find them: annotate some",
        )


def _unlearnable(counts: Counts, classes: Classes) -> Iterator[Finding]:
    """Of slots, not of classes: what was only ever seen in summer is not learned for the winter."""
    found = [id_ for id_, tally in counts.classes.items() if any(tally.objects.values()) and not tally.objects[Side.TRAIN]]
    if found:
        yield Finding(
            Code.CLASS_NOT_IN_TRAIN,
            f"{len(found)} classes have instances, but none in train: {_some([classes.names[id_] for id_ in found])}",
            "The model will not find them: annotate some in further media",
        )


def _left_out(counts: Counts) -> Iterator[Finding]:
    if counts.unknown_classes:
        ids = [f"{id_} ({number} annotations)" for id_, number in sorted(counts.unknown_classes.items(), key=lambda item: -item[1])]
        yield Finding(Code.UNKNOWN_CLASSES, f"ids that no class has are left out: {_some(ids)}", "Bring classes.json up to date")
    left_out = sum(counts.excluded.values())
    total = left_out + sum(counts.images.values())
    if left_out > _CONSIDERABLE * total:
        yield Finding(
            Code.MUCH_EXCLUDED,
            f"{left_out} of {total} validated annotations are left out: {_reasons(counts)}",
            "See excluded.jsonl of the dataset for each",
        )


def _shares(counts: Counts, settings: DatasetSettings) -> Iterator[Finding]:
    reached = counts.shares()
    if any(counts.images.values()) and any(abs(share - getattr(settings.split, side)) > _TOLERANCE for side, share in reached.items()):
        wanted = "/".join(str(getattr(settings.split, side)) for side in Side)
        yield Finding(
            Code.SHARES_MISSED,
            f"the split is {'/'.join(f'{share:.1f}' for share in reached.values())} by images instead of {wanted}",
            "Media stay whole and keep their sides, so only new media bring it closer",
        )


def _torn(counts: Counts, settings: DatasetSettings) -> Iterator[Finding]:
    if settings.split_by == "media" and counts.torn_media:
        yield Finding(
            Code.TORN_MEDIA,
            f"frames of {counts.torn_media} media stand on several sides, since they were once split by name; figures of these flatter",
            "They keep their sides; what is new of them goes to train",
        )


def _space(disk: Disk | None) -> Iterator[Finding]:
    if disk is None:
        return
    if disk.free_bytes < disk.needed_bytes + disk.reserve_bytes:
        yield Finding(
            Code.TOO_LITTLE_DISK,
            f"{_size(disk.free_bytes)} are free below {disk.where}; the dataset and its training take about {_size(disk.needed_bytes)}, "
            f"and {_size(disk.reserve_bytes)} must stay free",
            "Free some space, or lower dataset.min_free_disk",
        )
    if disk.free_inodes is not None and disk.free_inodes < disk.needed_inodes:
        yield Finding(
            Code.TOO_LITTLE_DISK,
            f"{disk.free_inodes} files can still be made below {disk.where}, {disk.needed_inodes} are needed",
            "Remove files, such as old datasets",
        )


def _reasons(counts: Counts) -> str:
    return ", ".join(f"{reason} {number}" for reason, number in sorted(counts.excluded.items(), key=lambda item: -item[1]))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _size(number: int) -> str:
    return ByteSize(number).human_readable(separator=" ")
