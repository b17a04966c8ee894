"""How tree and ledger can differ, and what is done about each difference: values, for people and programs."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from azaion_daemon.index.scan import Kind, Stranger, TreeFile

MOST_KEPT = 1000
"""How many differences a report names one by one; all are counted."""


class Finding(StrEnum):
    """A kind of difference."""

    LABEL_MISSING = "label missing"
    LABEL_DIFFERS = "label differs"
    LABEL_FOUND = "row without a label whose label is there"
    IMAGE_MISSING = "image missing"
    IMAGE_ELSEWHERE = "image in another home"
    IMAGE_FOUND = "row marked missing whose image is there"
    IMAGE_DIFFERS = "image differs"
    STRAY_LABEL = "stray label"
    STRAY_IMAGE = "stray image"
    NO_ROW = "file without a row"

    @property
    def remedy(self) -> str:
        """What a repair does."""
        return _REMEDIES[self]


_REMEDIES = {
    Finding.LABEL_MISSING: "it is written from the ledger",
    Finding.LABEL_DIFFERS: "it is moved aside, and written from the ledger",
    Finding.LABEL_FOUND: "it is taken into the ledger",
    Finding.IMAGE_MISSING: "the annotation is flagged and kept out of datasets",
    Finding.IMAGE_ELSEWHERE: "it is moved to its annotation",
    Finding.IMAGE_FOUND: "it is taken into the ledger",
    Finding.IMAGE_DIFFERS: "it is moved aside, and the annotation is flagged",
    Finding.STRAY_LABEL: "it is moved aside",
    Finding.STRAY_IMAGE: "it is moved aside",
    Finding.NO_ROW: "it is indexed, as init does",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: its kind, and the file that it is about."""

    finding: Finding
    file: TreeFile


@dataclass(slots=True)
class CheckReport:
    """What a check has found."""

    annotations: int = 0
    """Rows that were compared."""
    files: int = 0
    """Annotations' files that were looked at."""
    unplaced: int = 0
    """Rows that a crash left between ledger and tree: the next start brings them there."""
    staged: list[str] = field(default_factory=list)
    """Staged images that no row names: every start removes them."""
    counts: Counter[Finding] = field(default_factory=Counter)
    first: list[Difference] = field(default_factory=list)
    repaired: int = 0
    left_alone: list[Stranger] = field(default_factory=list)
    """What is nobody's file, and no difference."""
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Differences that are still there."""
        return sum(self.counts.values()) - self.repaired + len(self.staged)

    def add(self, difference: Difference) -> None:
        """Take a difference into account."""
        self.counts[difference.finding] += 1
        if len(self.first) < MOST_KEPT:
            self.first.append(difference)


def stray(file: TreeFile) -> Difference:
    """A file that its annotation's row has no place for."""
    return Difference(Finding.STRAY_LABEL if file.kind is Kind.LABEL else Finding.STRAY_IMAGE, file)
