"""Where the images of a dataset come from when large ones are resized: the tree, or the cache of resized images."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from azaion_daemon.dataset.entries import Entry, Exclusion, Reason
from azaion_daemon.dataset.linking import ImageSource
from azaion_daemon.dataset.reduction import Kind, Outcome, Reduction
from azaion_daemon.dataset.resized_cache import cached, cached_digests
from azaion_daemon.dataset.resizing import Work
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Annotation


class ResizedSources:
    """Knows what became of every image that was looked at while one dataset is formed."""

    def __init__(self, layout: Layout, reduction: Reduction) -> None:
        """Reads the cache's directories."""
        self._layout = layout
        self._reduction = reduction
        self._cached = cached_digests(layout.resized, reduction)
        self._outcomes: dict[tuple[str, str | None], Outcome] = {}

    def work(self, entries: Iterable[Entry]) -> list[Work]:
        """The images that were not looked at, or were not where the ledger had them."""
        return [
            Work(row.name, str(self._in_tree(row)), row.image)
            for row in (entry.annotation for entry in entries)
            if row.image is not None and self._concerned(row) and row.image not in self._cached and self._open(row)
        ]

    def settle(self, work: Iterable[Work], outcomes: Mapping[str, Outcome]) -> None:
        """Note what became of them."""
        for name, _, digest in work:
            outcome = outcomes[name]
            self._outcomes[name, digest] = outcome
            if outcome.kind is Kind.REDUCED:
                self._cached.add(digest)

    def unusable(self, entries: Iterable[Entry]) -> dict[str, Exclusion]:
        """Those that cannot be trained on, by name."""
        found = {}
        for row in (entry.annotation for entry in entries):
            match self._outcomes.get((row.name, row.image)):
                case Outcome(kind=Kind.UNUSABLE, why=why):
                    found[row.name] = Exclusion(Reason.IMAGE_UNUSABLE, why)
                case Outcome(kind=Kind.REPLACED) if row.image not in self._cached:
                    why = "its image in the tree is not the one that was taken in; see: azaion-daemon index check --deep"
                    found[row.name] = Exclusion(Reason.IMAGE_UNUSABLE, why)
                case _:
                    pass
        return found

    def of(self, row: Annotation) -> ImageSource:
        """The file that stands for an annotation's image."""
        if row.image in self._cached and self._concerned(row):
            return ImageSource(cached(self._layout.resized, row.image, self._reduction), str(self._reduction))
        return ImageSource(self._in_tree(row))

    def _concerned(self, row: Annotation) -> bool:
        """Whether it may have to be reduced, as one of unknown size may."""
        return row.width is None or row.height is None or max(row.width, row.height) > self._reduction.size

    def _open(self, row: Annotation) -> bool:
        outcome = self._outcomes.get((row.name, row.image))
        return outcome is None or outcome.kind in {Kind.GONE, Kind.REPLACED}

    def _in_tree(self, row: Annotation) -> Path:
        return self._layout.image(Home.VALIDATED, row.name, row.extension)
