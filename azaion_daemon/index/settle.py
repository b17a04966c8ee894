"""Where an annotation lives whose files were there before the ledger: pure, from what each home holds to one home.

Validated wins over seed, seed over deleted. A label alone in seed beside a validated annotation is its pending revision. An image that
only another home has is taken from there. Whatever else there is is moved aside.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from azaion_daemon.index.scan import PRECEDENCE, Kind, TreeFile
from azaion_daemon.store.layout import Home


@dataclass(frozen=True, slots=True)
class Held:
    """What a home holds of one annotation."""

    label: bool
    extensions: tuple[str, ...]
    """Of its images, the newest first."""


@dataclass(frozen=True, slots=True)
class Settled:
    """One annotation, settled."""

    name: str
    home: Home
    labelled: bool
    image: TreeFile | None
    """Where its image lies now: in its home, or in another, to be moved."""
    pending: bool
    aside: tuple[TreeFile, ...]
    """What has no place any more."""

    @property
    def misplaced(self) -> bool:
        """Whether a file of it must be moved."""
        return bool(self.aside) or (self.image is not None and self.image.home is not self.home)


def settle(name: str, held: Mapping[Home, Held]) -> Settled:
    """Decide about one annotation. `held` has the homes that hold something of it, at least one."""
    if len(held) == 1:
        ((home, files),) = held.items()
        if len(files.extensions) < 2:  # noqa: PLR2004 - nearly all are so
            image = TreeFile(home, Kind.IMAGE, name, files.extensions[0]) if files.extensions else None
            return Settled(name, home, files.label, image, pending=False, aside=())
    home = next(home for home in PRECEDENCE if home in held)
    keeper = next((home for home in (home, *PRECEDENCE) if home in held and held[home].extensions), None)
    image = None if keeper is None else TreeFile(keeper, Kind.IMAGE, name, held[keeper].extensions[0])
    seed = held.get(Home.SEED)
    pending = home is Home.VALIDATED and seed is not None and seed.label and not seed.extensions
    labels = {home, Home.SEED} if pending else {home}
    aside = tuple(file for file in _files(name, held) if file != image and not (file.kind is Kind.LABEL and file.home in labels))
    return Settled(name, home, held[home].label, image, pending, aside)


def _files(name: str, held: Mapping[Home, Held]) -> Iterator[TreeFile]:
    for home, files in held.items():
        if files.label:
            yield TreeFile(home, Kind.LABEL, name)
        for extension in files.extensions:
            yield TreeFile(home, Kind.IMAGE, name, extension)
