"""A dataset's manifest, read again: what it holds, and what has changed since."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from azaion_daemon.dataset.entries import Entry
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation


class Content(NamedTuple):
    """What an annotation is in a dataset: the digests of its image and of its label."""

    image: str | None
    label: str

    @classmethod
    def of(cls, row: Annotation) -> Self:
        """What an annotation is now."""
        return cls(row.image, hashlib.sha256(row.label.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Growth:
    """How many annotations differ between two datasets."""

    since: str
    """The name of the earlier one."""
    new: int
    changed: int
    """Those with another label or another image."""
    gone: int


def read_manifest(dataset: Path) -> Iterator[dict[str, Any]]:
    """The lines of a dataset's manifest, each as it stands there.

    Raises:
        OSError: It cannot be read.
        ValueError: A line is damaged; those before it have come.
    """
    with (dataset / "manifest.jsonl").open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def contents_of_dataset(dataset: Path) -> dict[str, Content]:
    """What a dataset holds, by name; raises as `read_manifest` does."""
    return {line["name"]: Content(line["image"], line["label"]) for line in read_manifest(dataset)}


def contents_of_entries(entries: Iterable[Entry]) -> dict[str, Content]:
    """What a dataset of these entries would hold, by name."""
    return {entry.annotation.name: Content.of(entry.annotation) for entry in entries}


def growth(since: str, before: Mapping[str, Content], after: Mapping[str, Content]) -> Growth:
    """Compare two datasets. An image that nobody has read yet is taken for the one that was there."""
    both = before.keys() & after.keys()
    return Growth(
        since,
        new=len(after) - len(both),
        changed=sum(_differ(before[name], after[name]) for name in both),
        gone=len(before) - len(both),
    )


def differing(before: Mapping[str, Content], after: Mapping[str, Content]) -> set[str]:
    """The names of what is new, changed or gone."""
    return (before.keys() ^ after.keys()) | {name for name in before.keys() & after.keys() if _differ(before[name], after[name])}


def _differ(before: Content, after: Content) -> bool:
    return before.label != after.label or (before.image != after.image and UNKNOWN_DIGEST not in {before.image, after.image})
