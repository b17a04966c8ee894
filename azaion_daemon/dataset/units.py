"""What is kept together on one side of the split, also where that was decided otherwise before.

By media, an annotation belongs to its media, or stands for itself where that is unknown; by name each stands for itself. Sides that were
recorded are never given up, whichever way they came about and whatever `dataset.split_by` says now, for a model was trained on them:

- Whose media has a side goes there, by name too. So a switch from media to name concerns new media only.
- Whose media has none, but itself has one, keeps it. After a switch from name to media, the media gets the side of those, if it is one;
  if they stand on several, what is new of it goes to train: frames of it were judged upon already, and no more should be.
- Who has a side of its own and another one through its media (which became known later, as after `index rebuild`) would leak wherever it
  stands, and is left out.
- Whose media was lost with a ledger (`UNKNOWN_MEDIA`) may be a frame of one that has a side. Without a side of its own it goes to train:
  what models are judged by must hold no frame of what they were trained on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from azaion_daemon.dataset.split import Side
from azaion_daemon.store.records import UNKNOWN_MEDIA, Annotation

MEDIA = "media:"
_NAME = "name:"


@dataclass(frozen=True, slots=True)
class Units:
    """What every annotation belongs to. Prefixed, so that a name is never taken for a media."""

    of: dict[str, str] = field(default_factory=dict)
    """By name of the annotation."""
    sides: dict[str, Side] = field(default_factory=dict)
    """Of those units that have no recorded side, but have no choice either."""
    conflicts: dict[str, tuple[Side, Side]] = field(default_factory=dict)
    """Annotations that have two sides: their own and their media's."""


def find_units(rows: Iterable[Annotation], recorded: Mapping[str, Side], by: Literal["media", "name"]) -> Units:
    """What each annotation is kept together with; `recorded` are the sides that units have."""
    units = Units()
    open_: list[tuple[str, str]] = []
    loners: dict[str, set[Side]] = {}
    for row in rows:
        lost = row.media == UNKNOWN_MEDIA
        own, media = _NAME + row.name, MEDIA + row.media if row.media and not lost else None
        own_side = recorded.get(own)
        media_side = None if media is None else recorded.get(media)
        if media is not None and media_side is not None:
            units.of[row.name] = media
            if own_side is not None and own_side is not media_side:
                units.conflicts[row.name] = own_side, media_side
        elif own_side is not None or media is None or by == "name":
            units.of[row.name] = own
            if own_side is None and lost:
                units.sides[own] = Side.TRAIN
            if own_side is not None and media is not None:
                loners.setdefault(media, set()).add(own_side)
        else:
            open_.append((row.name, media))
    for name, media in open_:
        taken = loners.get(media, set())
        unit = _NAME + name if len(taken) > 1 else media
        units.of[name] = unit
        if taken:
            units.sides[unit] = Side.TRAIN if len(taken) > 1 else next(iter(taken))
    return units
