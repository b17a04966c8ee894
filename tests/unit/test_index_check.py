"""Tree and ledger compared, and the tree made to follow the ledger: every kind of difference, and nothing ever deleted."""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from azaion_daemon.index.check import Checker
from azaion_daemon.index.findings import CheckReport, Finding
from azaion_daemon.ingest.writer import Writer
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation, Position
from tests.unit.builders import BOX, CLASSES, debris_of, make_root, picture, put_files, row, tree_of

SEED, VALIDATED, DELETED = Home.SEED, Home.VALIDATED, Home.DELETED
EXTENSIONS = frozenset({"jpg", "png"})
NEW = "2 0.1 0.1 0.1 0.1\n"
NO_LABEL = "no label: its file is missing"
ROWS = [
    row(VALIDATED, name="v", pending=NEW),
    row(VALIDATED, name="w"),
    row(SEED, name="s"),
    row(DELETED, name="d", pending=NEW),
    row(SEED, name="i", image=None, image_missing=True),
    row(VALIDATED, name="l", label="", label_problem=NO_LABEL),
]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = make_root(tmp_path / "azaion")
    put_files(made, *ROWS)
    made.label(VALIDATED, "l").unlink()
    ledger = Ledger(made.ledger)
    ledger.commit_batch("s", Position(7, b"digest"), ROWS)
    ledger.close()
    return made


async def check(layout: Layout, *, repair: bool = False, deep: bool = False) -> CheckReport:
    call = LedgerThread(Ledger(layout.ledger))
    try:
        writer = Writer("s", call.ledger, layout)
        checker = Checker(
            layout, call, writer, nullcontext, extensions=EXTENSIONS, known_classes=CLASSES,
            deep=deep, repair=repair, offline=True,
        )  # fmt: skip
        report = await checker.run()
        writer.close()
    finally:
        call.close()
    return report


def rows_of(layout: Layout) -> dict[str, Annotation]:
    ledger = Ledger(layout.ledger)
    found = {one.name: one for one in ledger.annotations_after("", 100)}
    ledger.close()
    return found


def aside_of(layout: Layout) -> dict[str, bytes]:
    tree = layout.quarantined_tree
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


async def test_a_tree_at_rest_has_no_difference(layout: Layout) -> None:
    before = tree_of(layout)
    report = await check(layout, deep=True)
    assert (report.annotations, report.files, report.counts, report.left) == (6, len(before), {}, 0)
    assert tree_of(layout) == before


def write(home: Home, name: str, text: str) -> Callable[[Layout], object]:
    return lambda layout: layout.label(home, name).write_text(text)


def put(home: Home, name: str, extension: str = "jpg", number: int = 1) -> Callable[[Layout], object]:
    return lambda layout: layout.image(home, name, extension).write_bytes(picture(number))


def link(home: Home, name: str) -> Callable[[Layout], object]:
    def make(layout: Layout) -> None:
        layout.label(home, name).unlink()
        layout.label(home, name).symlink_to("/etc/hostname")

    return make


DIFFERENCES: list[tuple[Finding, Callable[[Layout], object], dict[str, bytes]]] = [
    (Finding.LABEL_MISSING, lambda layout: layout.label(VALIDATED, "w").unlink(), {}),
    (Finding.LABEL_MISSING, lambda layout: layout.label(SEED, "v").unlink(), {}),
    (Finding.LABEL_DIFFERS, write(DELETED, "d", NEW), {"deleted/labels/d.txt": NEW.encode()}),
    (Finding.LABEL_DIFFERS, write(SEED, "v", BOX), {"seed/labels/v.txt": BOX.encode()}),
    (Finding.LABEL_DIFFERS, link(SEED, "s"), {"seed/labels/s.txt": Path("/etc/hostname").read_bytes()}),
    (Finding.STRAY_LABEL, write(SEED, "w", NEW), {"seed/labels/w.txt": NEW.encode()}),
    (Finding.STRAY_LABEL, write(DELETED, "v", NEW), {"deleted/labels/v.txt": NEW.encode()}),
    (Finding.STRAY_LABEL, write(SEED, "d", NEW), {"seed/labels/d.txt": NEW.encode()}),
    (Finding.STRAY_IMAGE, put(SEED, "v"), {"seed/images/v.jpg": picture(1)}),
    (Finding.STRAY_IMAGE, put(VALIDATED, "v", "png"), {"validated/images/v.png": picture(1)}),
    (Finding.IMAGE_ELSEWHERE, lambda layout: layout.image(VALIDATED, "w", "jpg").rename(layout.image(SEED, "w", "jpg")), {}),
]


@pytest.mark.parametrize(("finding", "damage", "aside"), DIFFERENCES)
async def test_a_difference_is_named_and_then_mended(
    layout: Layout, finding: Finding, damage: Callable[[Layout], object], aside: dict[str, bytes]
) -> None:
    before, rows = tree_of(layout), rows_of(layout)
    damage(layout)
    damaged = tree_of(layout)
    report = await check(layout)
    assert (report.counts, report.left, report.repaired) == ({finding: 1}, 1, 0)
    assert tree_of(layout) == damaged
    report = await check(layout, repair=True)
    assert (report.counts, report.left, report.repaired) == ({finding: 1}, 0, 1)
    assert tree_of(layout) == before
    assert aside_of(layout) == aside
    assert rows_of(layout) == rows
    assert debris_of(layout) == []
    assert (await check(layout, repair=True)).counts == {}


async def test_an_image_that_is_nowhere_is_flagged(layout: Layout) -> None:
    layout.image(VALIDATED, "w", "jpg").unlink()
    assert (await check(layout)).counts == {Finding.IMAGE_MISSING: 1}
    assert rows_of(layout)["w"].image is not None
    assert (await check(layout, repair=True)).left == 0
    after = rows_of(layout)["w"]
    assert (after.image, after.image_missing, after.validated_position, after.dirty) == (None, True, 7, None)
    assert (await check(layout)).left == 0


@pytest.mark.parametrize("home", list(Home))
async def test_an_image_that_has_come_back_is_taken(layout: Layout, home: Home) -> None:
    layout.image(home, "i", "png").write_bytes(picture(1))
    assert (await check(layout)).counts == {Finding.IMAGE_FOUND: 1}
    assert (await check(layout, repair=True)).left == 0
    after = rows_of(layout)["i"]
    assert (after.image, after.extension, after.image_missing) == (UNKNOWN_DIGEST, "png", False)
    assert layout.image(SEED, "i", "png").read_bytes() == picture(1)
    assert (await check(layout)).left == 0


async def test_a_label_that_has_come_back_is_taken(layout: Layout) -> None:
    layout.label(VALIDATED, "l").write_text(NEW)
    assert (await check(layout)).counts == {Finding.LABEL_FOUND: 1}
    assert (await check(layout, repair=True)).left == 0
    after = rows_of(layout)["l"]
    assert (after.label, after.label_problem, after.validated_position) == (NEW, None, 7)
    assert (await check(layout)).left == 0


async def test_files_without_a_row_are_indexed_as_init_does(layout: Layout) -> None:
    put_files(layout, row(VALIDATED, name="new", pending=NEW), row(DELETED, name="old"))
    layout.label(DELETED, "new").write_text(BOX)
    assert (await check(layout)).counts == {Finding.NO_ROW: 6}
    assert (await check(layout, repair=True)).left == 0
    after = rows_of(layout)["new"]
    assert (after.home, after.pending, after.image, after.validated_position, after.position) == (VALIDATED, NEW, UNKNOWN_DIGEST, 7, 7)
    assert aside_of(layout) == {"deleted/labels/new.txt": BOX.encode()}
    assert (await check(layout)).left == 0


async def test_all_of_it_at_once(layout: Layout) -> None:
    before = tree_of(layout)
    for _, damage, _ in DIFFERENCES:
        damage(layout)
    put_files(layout, row(SEED, name="new"))
    assert (await check(layout, repair=True)).left == 0
    new = {"data-seed/labels/new.txt": BOX.encode(), "data-seed/images/new.jpg": picture()}
    assert tree_of(layout) == {**before, **new}
    assert (await check(layout, deep=True)).left == 0


@pytest.mark.parametrize("homes", [(SEED, DELETED), (DELETED, SEED)])
async def test_of_two_images_in_other_homes_none_is_lost(layout: Layout, homes: tuple[Home, Home]) -> None:
    layout.image(VALIDATED, "w", "jpg").unlink()
    for number, home in enumerate(homes):
        layout.image(home, "w", "jpg").write_bytes(picture(number))
    assert (await check(layout, repair=True)).left == 0
    kept = layout.image(VALIDATED, "w", "jpg").read_bytes()
    assert sorted([kept, *aside_of(layout).values()]) == sorted([picture(0), picture(1)])


async def test_images_are_compared_only_when_asked_for(layout: Layout) -> None:
    put(VALIDATED, "w")(layout)
    assert (await check(layout)).left == 0
    assert (await check(layout, deep=True)).counts == {Finding.IMAGE_DIFFERS: 1}
    assert (await check(layout, deep=True, repair=True)).left == 0
    assert rows_of(layout)["w"].image_missing
    assert aside_of(layout) == {"validated/images/w.jpg": picture(1)}


async def test_what_a_crash_left_unplaced_is_no_difference(layout: Layout) -> None:
    ledger = Ledger(layout.ledger)
    image = hashlib.sha256(picture(1)).hexdigest()
    ledger.commit_batch("s", Position(8, b"digest"), [row(VALIDATED, name="n", image=image, staged="8.image", dirty=8)])
    ledger.close()
    (layout.incoming / "8.image").write_bytes(picture(1))
    report = await check(layout)
    assert (report.unplaced, report.left) == (1, 0)
    (layout.incoming / "9.image").write_bytes(picture(1))
    report = await check(layout)
    assert (report.staged, report.left) == (["9.image"], 1)


async def test_strangers_are_no_differences(layout: Layout) -> None:
    (layout.labels(SEED) / "notes.md").write_text("")
    (layout.images(SEED) / ".thumbs").mkdir()
    report = await check(layout, repair=True)
    assert (report.left, len(report.left_alone)) == (0, 2)
