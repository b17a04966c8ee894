"""A tree that was there before the ledger, as well kept or as hostile as it may be."""

import hashlib
import os
from pathlib import Path

import pytest

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.plan import plan_dataset
from azaion_daemon.errors import RootError
from azaion_daemon.index.build import IndexReport, index_tree
from azaion_daemon.index.models import existing_model
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.store.due import NOTHING
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation
from azaion_daemon.store.root import init_root
from tests.unit.builders import BOX, CLASSES, picture, put_files, row, tree_of

SEED, VALIDATED, DELETED = Home.SEED, Home.VALIDATED, Home.DELETED
EXTENSIONS = frozenset({"jpg", "png"})
NEW = "2 0.1 0.1 0.1 0.1\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "azaion")
    for directory in made.directories():
        directory.mkdir(parents=True)
    return made


def kept_files(layout: Layout) -> list[Path]:
    return [path for path in layout.root.rglob("*.*") if "state" not in path.parts]


def index(layout: Layout) -> tuple[IndexReport, dict[str, Annotation]]:
    reports = []

    def fill(ledger: Ledger) -> None:
        reports.append(index_tree(layout, ledger, EXTENSIONS, CLASSES, sources={}, say=lambda _: None, clock=lambda: 1000.0))

    init_root(layout, fill)
    ledger = Ledger(layout.ledger)
    rows = {one.name: one for home in Home for one in ledger.in_home(home)}
    ledger.close()
    return reports[0], rows


def test_annotations_become_rows_and_their_files_stay_as_they_are(layout: Layout) -> None:
    put_files(layout, row(VALIDATED, name="v", pending=NEW), row(SEED, name="s", label=""), row(DELETED, name="d"))
    os.utime(layout.image(SEED, "s", "jpg"), (500.0, 500.0))
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in kept_files(layout)}
    report, rows = index(layout)
    assert {name: (one.home, one.label, one.pending, one.image) for name, one in rows.items()} == {
        "v": (VALIDATED, BOX, NEW, UNKNOWN_DIGEST),
        "s": (SEED, "", None, UNKNOWN_DIGEST),
        "d": (DELETED, BOX, None, UNKNOWN_DIGEST),
    }
    assert (rows["s"].created_at, rows["s"].first_seen, rows["s"].label_problem) == (500.0, 1000.0, None)
    assert report.annotations == {SEED: 1, VALIDATED: 1, DELETED: 1}
    assert (report.pending, report.flagged, report.left_alone, report.moved_aside) == (1, {}, [], [])
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in kept_files(layout)} == before


def test_what_is_validated_counts_for_the_first_training(layout: Layout) -> None:
    put_files(layout, row(VALIDATED, name="v"), row(SEED, name="s"))
    index(layout)
    ledger = Ledger(layout.ledger)
    assert ledger.due.changed_since(NOTHING) == 1
    assert ledger.undigested_count(VALIDATED) == 1
    ledger.close()


def test_a_label_without_an_image_is_flagged(layout: Layout) -> None:
    put_files(layout, row(VALIDATED, image=None))
    report, rows = index(layout)
    assert (rows["a"].image, rows["a"].image_missing, rows["a"].extension) == (None, True, "")
    assert report.flagged == {"image is missing": 1}


def test_an_image_without_a_label_is_no_background(layout: Layout) -> None:
    put_files(layout, row(VALIDATED))
    layout.label(VALIDATED, "a").unlink()
    report, rows = index(layout)
    assert (rows["a"].label, rows["a"].label_problem) == ("", "no label: its file is missing")
    assert report.flagged == {"label is missing": 1}
    plan = plan_dataset(list(rows.values()), {}, Classes((), CLASSES), DatasetSettings(), key="k")
    assert plan.excluded["a"].detail == "no label: its file is missing"


@pytest.mark.parametrize(
    "text", ["car 0.5 0.5 0.1 0.1\n", "77 0.5 0.5 0.1 0.1\n", "1 0.5 0.5\n", "1 nan 0.5 0.1 0.1\n", "\0", "\ufeff1 0.5"]
)
def test_a_label_that_cannot_be_trained_on_is_kept_as_it_is(layout: Layout, text: str) -> None:
    put_files(layout, row(VALIDATED, label=text))
    report, rows = index(layout)
    assert rows["a"].label == text
    assert rows["a"].label_problem
    assert report.flagged == {"label cannot be trained on": 1}


def test_line_ends_are_kept(layout: Layout) -> None:
    layout.label(SEED, "a").write_bytes(b"1 0.5 0.5 0.1 0.1\r\n")
    _, rows = index(layout)
    assert (rows["a"].label, rows["a"].label_problem) == ("1 0.5 0.5 0.1 0.1\r\n", None)


@pytest.mark.parametrize("content", [b"\xff\xfe1 0.5", b"0" * ((16 << 20) + 1)], ids=["bytes", "huge"])
def test_a_label_that_is_no_text_is_moved_aside_and_flagged(layout: Layout, content: bytes) -> None:
    put_files(layout, row(VALIDATED))
    layout.label(VALIDATED, "a").write_bytes(content)
    report, rows = index(layout)
    assert (rows["a"].label, rows["a"].labelled) == ("", False)
    assert report.moved_aside == ["quarantine/tree/validated/labels/a.txt"]
    assert (layout.root / report.moved_aside[0]).read_bytes() == content


def test_a_label_of_10_mb_is_one_like_any_other(layout: Layout) -> None:
    put_files(layout, row(VALIDATED, label=BOX * (10_000_000 // len(BOX))))
    _, rows = index(layout)
    assert len(rows["a"].label) == 10_000_000 // len(BOX) * len(BOX)
    assert rows["a"].label_problem is None


def test_what_has_no_place_is_moved_aside_and_never_over_what_is_there(layout: Layout) -> None:
    put_files(layout, row(VALIDATED), row(SEED, label=NEW), images=(0, 1))
    there = layout.quarantined_tree / "seed" / "labels" / "a.txt"
    there.parent.mkdir(parents=True)
    there.write_text("before")
    report, rows = index(layout)
    assert rows["a"].home is VALIDATED
    assert {path: (layout.root / path).read_bytes() for path in report.moved_aside} == {
        "quarantine/tree/seed/labels/a.txt.2": NEW.encode(),
        "quarantine/tree/seed/images/a.jpg": picture(1),
    }
    assert there.read_text() == "before"
    assert tree_of(layout) == {"data/labels/a.txt": BOX.encode(), "data/images/a.jpg": picture(0)}


def test_the_newest_of_several_images_is_kept(layout: Layout) -> None:
    put_files(layout, row(VALIDATED), row(VALIDATED, extension="png"), images=(0, 1))
    os.utime(layout.image(VALIDATED, "a", "jpg"), (1.0, 1.0))
    report, rows = index(layout)
    assert rows["a"].extension == "png"
    assert report.moved_aside == ["quarantine/tree/validated/images/a.jpg"]


def test_an_image_that_only_another_home_has_is_moved_to_its_annotation(layout: Layout) -> None:
    put_files(layout, row(VALIDATED, image=None))
    layout.image(SEED, "a", "jpg").write_bytes(picture())
    report, rows = index(layout)
    assert (report.moved_home, rows["a"].image) == (1, UNKNOWN_DIGEST)
    assert layout.image(VALIDATED, "a", "jpg").read_bytes() == picture()
    assert not layout.image(SEED, "a", "jpg").exists()


def test_an_extension_in_capitals_is_one_too(layout: Layout) -> None:
    put_files(layout, row(VALIDATED, extension="JPG"))
    _, rows = index(layout)
    assert (rows["a"].extension, rows["a"].image) == ("JPG", UNKNOWN_DIGEST)


def test_strangers_are_left_alone_and_named(layout: Layout, tmp_path: Path) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("1 0.5 0.5 0.1 0.1\n")
    labels, images = layout.labels(VALIDATED), layout.images(VALIDATED)
    (labels / "link.txt").symlink_to(outside)
    (labels / "gone.txt").symlink_to(tmp_path / "gone")
    (labels / "directory.txt").mkdir()
    (labels / ".hidden.txt").write_text("")
    (labels / "classes.names").write_text("")
    (labels / ("n" * 201 + ".txt")).write_text("")
    (labels / "new\nline.txt").write_text("")
    (labels / ".txt").write_text("")
    os.mkfifo(labels / "pipe.txt")
    (images / "a.gif").write_bytes(b"")
    (images / "noextension").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(images) + b"/\xff.jpg")).write_bytes(b"")
    (images / "back\\slash.jpg").write_bytes(b"")
    report, rows = index(layout)
    assert rows == {}
    assert {one.path.removeprefix("data/"): one.why for one in report.left_alone} == {
        "labels/link.txt": "is a symbolic link",
        "labels/gone.txt": "is a symbolic link",
        "labels/directory.txt": "is a directory",
        "labels/.hidden.txt": "is hidden",
        "labels/.txt": "is hidden",
        "labels/classes.names": "is not a .txt file",
        "labels/" + "n" * 201 + ".txt": "has a name that is longer than 200 bytes",
        "labels/new\\nline.txt": "has a name that contains unprintable characters",
        "labels/pipe.txt": "is no regular file",
        "images/a.gif": "has an extension that images may not have",
        "images/noextension": "has an extension that images may not have",
        "images/\\udcff.jpg": "has a name that is not valid Unicode",
        "images/back\\slash.jpg": "has a name that contains a path separator",
    }
    assert outside.read_text() == "1 0.5 0.5 0.1 0.1\n"


def test_a_crash_after_files_were_moved_leaves_a_tree_that_can_be_indexed_again(layout: Layout) -> None:
    put_files(layout, row(VALIDATED, image=None), row(SEED, label=NEW), images=(1,))
    put_files(layout, row(DELETED, label=NEW))

    def crash(ledger: Ledger) -> None:
        index_tree(layout, ledger, EXTENSIONS, CLASSES, sources={}, say=lambda _: None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        init_root(layout, crash)
    assert not layout.ledger.exists()
    report, rows = index(layout)
    assert (rows["a"].home, rows["a"].label, rows["a"].image, report.moved_aside) == (VALIDATED, BOX, UNKNOWN_DIGEST, [])
    assert tree_of(layout) == {"data/labels/a.txt": BOX.encode(), "data/images/a.jpg": picture(1)}
    assert sum(path.is_file() for path in layout.quarantined_tree.rglob("*")) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_of_another_user_are_refused_before_anything_is_changed(layout: Layout) -> None:
    put_files(layout, row(VALIDATED), row(SEED))
    layout.label(VALIDATED, "a").chmod(0)
    before = sorted(tree_of(layout))
    with pytest.raises(RootError, match=r"1 files cannot be read by the user"):
        index(layout)
    assert sorted(tree_of(layout)) == before
    assert not layout.ledger.exists()


def test_more_annotations_than_one_transaction_takes_come_in_all(layout: Layout) -> None:
    names = [f"{number:06}" for number in range(2500)]
    for name in names:
        layout.label(SEED, name).write_text("")
    report, rows = index(layout)
    assert sorted(rows) == names
    assert report.annotations[SEED] == 2500


def test_the_model_that_was_there_is_kept_when_another_takes_its_name(layout: Layout) -> None:
    assert existing_model(layout) is None
    layout.onnx.write_bytes(b"the model")
    os.utime(layout.onnx, (500.0, 500.0))
    model = existing_model(layout)
    assert model is not None
    assert (model.sha256, model.created, model.job, model.metrics) == (hashlib.sha256(b"the model").hexdigest(), 500.0, None, {})
    (layout.models / "next").write_bytes(b"another")
    (layout.models / "next").replace(layout.onnx)
    assert Path(model.path).read_bytes() == b"the model"
