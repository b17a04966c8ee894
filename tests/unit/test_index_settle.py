"""One annotation, one home: what is decided about files that were there before the ledger."""

import pytest

from azaion_daemon.index.scan import Kind, TreeFile
from azaion_daemon.index.settle import Held, settle
from azaion_daemon.store.layout import Home

SEED, VALIDATED, DELETED = Home.SEED, Home.VALIDATED, Home.DELETED
WHOLE = Held(label=True, extensions=("jpg",))
LABEL = Held(label=True, extensions=())
IMAGE = Held(label=False, extensions=("jpg",))


def label(home: Home) -> TreeFile:
    return TreeFile(home, Kind.LABEL, "a")


def image(home: Home, extension: str = "jpg") -> TreeFile:
    return TreeFile(home, Kind.IMAGE, "a", extension)


@pytest.mark.parametrize("home", list(Home))
@pytest.mark.parametrize("files", [WHOLE, LABEL, IMAGE])
def test_what_lies_in_one_home_lives_there(home: Home, files: Held) -> None:
    settled = settle("a", {home: files})
    assert (settled.home, settled.labelled, settled.pending, settled.aside) == (home, files.label, False, ())
    assert settled.image == (image(home) if files.extensions else None)
    assert not settled.misplaced


def test_validated_wins_over_seed_and_seed_over_deleted() -> None:
    assert settle("a", {DELETED: WHOLE, SEED: WHOLE, VALIDATED: WHOLE}).home is VALIDATED
    assert settle("a", {DELETED: WHOLE, SEED: WHOLE}).home is SEED


def test_what_another_home_has_is_moved_aside() -> None:
    settled = settle("a", {VALIDATED: WHOLE, SEED: WHOLE, DELETED: WHOLE})
    assert set(settled.aside) == {label(SEED), image(SEED), label(DELETED), image(DELETED)}
    assert not settled.pending


@pytest.mark.parametrize("validated", [WHOLE, LABEL, IMAGE])
def test_a_label_alone_in_seed_beside_a_validated_one_is_its_pending_revision(validated: Held) -> None:
    settled = settle("a", {VALIDATED: validated, SEED: LABEL})
    assert settled.pending
    assert settled.aside == ()


def test_a_label_alone_in_seed_beside_a_deleted_one_lives_in_seed() -> None:
    settled = settle("a", {SEED: LABEL, DELETED: LABEL})
    assert (settled.home, settled.pending, settled.aside) == (SEED, False, (label(DELETED),))


@pytest.mark.parametrize(("home", "other"), [(VALIDATED, SEED), (VALIDATED, DELETED), (SEED, DELETED)])
def test_an_image_that_only_another_home_has_is_taken_from_there(home: Home, other: Home) -> None:
    settled = settle("a", {home: LABEL, other: IMAGE})
    assert (settled.home, settled.image, settled.aside, settled.misplaced) == (home, image(other), (), True)


def test_of_several_extensions_the_newest_is_kept() -> None:
    settled = settle("a", {SEED: Held(label=True, extensions=("png", "jpg"))})
    assert (settled.image, settled.aside) == (image(SEED, "png"), (image(SEED),))
