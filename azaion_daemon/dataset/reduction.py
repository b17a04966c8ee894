"""What becomes of an image that is larger than what is trained on. Imports next to nothing: resizers are small and start at once."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Reduction:
    """How images are reduced. The same image reduced in the same way has the same name, so it is made once."""

    size: int
    """Pixels of the longer side at the most."""
    quality: int
    """Of the JPEG."""

    def __str__(self) -> str:
        return f"{self.size} px, JPEG quality {self.quality}"

    @property
    def suffix(self) -> str:
        """How the name of a file that was made so ends."""
        return f"-{self.size}-q{self.quality}.jpg"

    def file(self, digest: str) -> str:
        """The name of what is made of the image with that digest."""
        return digest + self.suffix


def reduced_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height that the trainer's loader would reduce an image to, so that it has nothing left to do.

    The formula is that of `BaseDataset.load_image` in ultralytics/data/base.py.
    """
    ratio = size / max(width, height)
    return min(math.ceil(width * ratio), size), min(math.ceil(height * ratio), size)


class Kind(StrEnum):
    """What became of an image."""

    REDUCED = "reduced"
    """It is in the cache, as a file of `bytes`."""
    KEPT = "kept"
    """It is small enough, or of a kind that only the trainer's own decoder does justice to: it stays as it is."""
    UNUSABLE = "unusable"
    """It cannot be trained on; see `why`."""
    GONE = "gone"
    """It is not where it was."""
    REPLACED = "replaced"
    """Another one is there: the ledger has changed meanwhile, or the tree is damaged."""
    DISK_FULL = "disk_full"
    DISK_FAILED = "disk_failed"


class Outcome(NamedTuple):
    """What became of an image. A tuple of what JSON knows, since it comes from another process."""

    kind: Kind
    why: str = ""
    bytes: int = 0
    width: int | None = None
    height: int | None = None
    """Pixels of the original, where it was opened."""
