"""Which side of the split a media goes to: train, valid or test.

The unit is the media that an annotation comes from, so that frames of one video, which are nearly the same image, never stand on both
sides. A media's side is recorded when it is first used and never changes.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum

from azaion_daemon.settings import SplitSettings


class Side(StrEnum):
    """A part of a dataset, named as its directory."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


def assign_sides(images: Mapping[str, int], sides: Mapping[str, Side], shares: SplitSettings, *, key: str) -> dict[str, Side]:
    """The sides of those media that have none yet.

    `images` is the number of images of every media. New media, in the order of a hash keyed with `key`, go to the side that is furthest
    below its share, so the outcome depends on nothing but the arguments.
    """
    total = sum(images.values())
    wanted = {side: getattr(shares, side) * total / 100 for side in Side}
    have = dict.fromkeys(Side, 0)
    for media, side in sides.items():
        have[side] += images.get(media, 0)
    new: dict[str, Side] = {}
    for media in sorted(images.keys() - sides.keys(), key=lambda media: _hash(key, media)):
        side = max(Side, key=lambda side: wanted[side] - have[side])
        new[media] = side
        have[side] += images[media]
    return new


def _hash(key: str, media: str) -> bytes:
    return hashlib.blake2b(media.encode(), key=hashlib.sha256(key.encode()).digest()).digest()
