"""Which side of the split a media goes to: train, valid or test.

The unit is the media that an annotation comes from, so that frames of one video, which are nearly the same image, never stand on both
sides. A media's side is recorded when it is first used and never changes.

Media are of very unequal sizes, and that decides about the method. Giving each, in the order of a hash, to the side that is furthest below
its share ends far off when a large one comes late: by 2 to 30 points in most trials with log-normal or Pareto sizes and 20 to 50 media.
The largest first ends closest, but then the test side is made of the shortest videos alone, which says less about a model. So those few
that have more than one per cent of all images go first, to the sides that a short search finds best; the others follow in the order of
the hash, each too small to do harm, and every side gets long and short ones.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from azaion_daemon.sections import SplitSettings

_LARGE = 100
"""A media is placed with care when it has more than one in so many images."""
_CLOSE = 200
"""The search is content with sides that are off by no more than one in so many images."""
_TRIES = 50_000
"""How many placements the search tries at most: a tenth of a second; eleven media are searched to the end."""


class Side(StrEnum):
    """A part of a dataset, named as its directory."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


_SIDES = tuple(Side)


def assign_sides(images: Mapping[str, int], sides: Mapping[str, Side], shares: SplitSettings, *, key: str) -> dict[str, Side]:
    """The sides of those media that have none yet.

    `images` is the number of images of every media, `key` that of the hash. The outcome depends on nothing but the arguments. No side stays
    empty while there are media for it.
    """
    total = sum(images.values())
    short = [getattr(shares, side) * total for side in _SIDES]  # in hundredths of an image, so that all of it is whole numbers
    filled = [False] * len(_SIDES)
    for media in images.keys() & sides.keys():
        place = _SIDES.index(sides[media])
        short[place] -= 100 * images[media]
        filled[place] = True
    new = sorted(images.keys() - sides.keys(), key=lambda media: _hash(key, media))
    large = sorted((media for media in new if images[media] * _LARGE > total), key=lambda media: -images[media])
    small = [media for media in new if images[media] * _LARGE <= total]
    found = _Search([100 * images[media] for media in large], len(small), enough=100 * total // _CLOSE).run(short, filled)
    for media, place in zip(large, found, strict=True):
        short[place] -= 100 * images[media]
        filled[place] = True
    assigned = dict(zip(large, found, strict=True))
    for left, media in zip(range(len(small), 0, -1), small, strict=True):
        place = next(_choices(short, filled, left))
        assigned[media] = place
        short[place] -= 100 * images[media]
        filled[place] = True
    return {media: _SIDES[place] for media, place in assigned.items()}


class _Search:
    """Sides for large media, by branch and bound: each goes to the side that is furthest below its share first, then to the others."""

    def __init__(self, sizes: Sequence[int], small: int, *, enough: int) -> None:
        """`small` is how many media are placed afterwards; a deviation of `enough` ends the search."""
        self._sizes = sizes
        self._small = small
        self._enough = enough
        self._tries = _TRIES
        self._best: int | None = None
        self._found: list[int] = []

    def run(self, short: Sequence[int], filled: Sequence[bool]) -> list[int]:
        """The best sides that were found."""
        self._place(list(short), list(filled), [])
        return self._found

    def _place(self, short: list[int], filled: list[bool], placed: list[int]) -> None:
        deviation = _deviation(short)
        if self._best is not None and (deviation >= self._best or self._best <= self._enough or self._tries <= 0):
            return
        self._tries -= 1
        left = len(self._sizes) - len(placed)
        if left == 0:
            self._best, self._found = deviation, placed
            return
        size = self._sizes[len(placed)]
        for place in _choices(short, filled, left + self._small):
            after, now = short.copy(), filled.copy()
            after[place] -= size
            now[place] = True
            self._place(after, now, [*placed, place])


def _choices(short: Sequence[int], filled: Sequence[bool], left: int) -> Iterator[int]:
    """The sides that a media may go to, that which lacks most first. The last media are for sides that have none."""
    needy = filled.count(False) >= left
    return iter(sorted((place for place in range(len(short)) if not (needy and filled[place])), key=lambda place: -short[place]))


def _deviation(short: Sequence[int]) -> int:
    """How far off the worst side ends at the least, were all that is still to come as fine as sand."""
    over = [-lack for lack in short if lack < 0]
    under = [lack for lack in short if lack >= 0]
    if not over:
        return 0
    beyond = sum(over)  # lacks elsewhere in the end; a side cannot lack more than it does now
    spread = -(-beyond // len(under))
    return max(*over, spread, *(beyond - (sum(under) - lack) for lack in under))


def _hash(key: str, media: str) -> bytes:
    return hashlib.blake2b(media.encode(), key=hashlib.sha256(key.encode()).digest()).digest()
