"""What two models are compared on: test images that neither has been trained on.

A test image counts as seen when the train or valid side of what a model was trained on has its name, its media, or its image (by digest,
so the same image under another name too). The candidate's own dataset is asked as well: one image may have come in under two names.

Which of them are taken, where there are more than are wanted, follows from a hash of the image alone: whatever else is annotated or left
out, mostly the same ones are taken, and an evaluation that was made before is found again.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

SEEN_BY_CANDIDATE = "were trained on under another name"
SEEN_BY_RIVAL = "may have been seen by the current model"
BEYOND_MAXIMUM = "are beyond gate.max_images"


class Entry(NamedTuple):
    """A line of a manifest: an annotation in a dataset."""

    name: str
    file: str
    """The image's name in the dataset."""
    unit: str
    """What is kept together on one side of the split: a media, or the annotation itself."""
    media: str
    """The media that it comes from where that was divided, as a unit; else empty."""
    image: str | None
    """The digest; None where nobody knows it."""
    content: str
    """What an evaluation depends on: image, label and what was made of the image; unique where that is not known."""


class Selection(NamedTuple):
    """Which images to evaluate on: file names in order, what stands for their content, and what was left out and why."""

    images: tuple[str, ...]
    digest: str
    left_out: dict[str, int]


class TestImages:
    """The test side of a candidate's dataset, and who has seen what of it."""

    __test__ = False  # for pytest, which takes it for tests

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self._names = {entry.name: place for place, entry in enumerate(self.entries)}
        self._units: dict[str, list[int]] = {}
        self._media: dict[str, list[int]] = {}
        self._images: dict[str, list[int]] = {}
        for place, entry in enumerate(self.entries):
            self._units.setdefault(entry.unit, []).append(place)
            if entry.media:
                self._media.setdefault(entry.media, []).append(place)
            if entry.image is not None:
                self._images.setdefault(entry.image, []).append(place)
        self._why: dict[int, str] = {}

    def seen_in(self, trained_on: Iterable[Entry], why: str) -> None:
        """Leave out what a model has seen in what it was trained on: the train and valid sides of a dataset, in any order."""
        for one in trained_on:
            if (place := self._names.get(one.name)) is not None:
                self._why.setdefault(place, why)
            # Frames of one video that an operator has divided by name may stand on both sides; of a whole one none may.
            for index, key in ((self._units, one.unit), (self._units, one.media), (self._media, one.unit), (self._images, one.image)):
                for place in index.get(key, ()) if key else ():
                    self._why.setdefault(place, why)

    def seen(self, was_seen: Callable[[Entry], bool], why: str) -> None:
        """Leave out what a model has seen, as far as is known of one whose dataset is gone."""
        for place, entry in enumerate(self.entries):
            if was_seen(entry):
                self._why.setdefault(place, why)

    def select(self, most: int) -> Selection:
        """Those that nobody named so far has seen, at most so many."""
        left = [entry for place, entry in enumerate(self.entries) if place not in self._why]
        chosen = sorted(left, key=_rank)[:most]
        left_out = Counter(self._why.values())
        if len(left) > most:
            left_out[BEYOND_MAXIMUM] = len(left) - most
        return Selection(tuple(sorted(entry.file for entry in chosen)), digest_of(chosen), dict(left_out))


def digest_of(entries: Sequence[Entry]) -> str:
    """What stands for images and labels together, whatever order they come in."""
    digest = hashlib.sha256()
    for content in sorted(entry.content for entry in entries):
        digest.update(content.encode() + b"\n")
    return digest.hexdigest()


def _rank(entry: Entry) -> tuple[bytes, str]:
    return hashlib.blake2b((entry.image or entry.name).encode()).digest(), entry.name
