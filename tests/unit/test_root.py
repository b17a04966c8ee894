"""Only `init` makes a root, and everything else refuses what is none."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from azaion_daemon.errors import RootError
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.root import init_root, lock_root, open_root


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "azaion")


def test_init_makes_every_directory_an_identity_and_an_empty_ledger(layout: Layout) -> None:
    root = init_root(layout)
    assert all(directory.is_dir() for directory in layout.directories())
    assert open_root(layout) == root
    ledger = Ledger(layout.ledger)
    assert ledger.counts() == dict.fromkeys(Home, 0)
    ledger.close()


def test_the_directories_are_where_the_platform_expects_them(layout: Layout) -> None:
    init_root(layout)
    expected = {f"{home}/{kind}" for home in ("data", "data-seed", "data_deleted") for kind in ("images", "labels")}
    assert all((layout.root / path).is_dir() for path in expected)


def test_init_again_keeps_identity_and_ledger_and_completes_what_is_missing(layout: Layout) -> None:
    first = init_root(layout)
    ledger = Ledger(layout.ledger)
    ledger.add_sides({"media:v": "train"})
    ledger.close()
    shutil.rmtree(layout.datasets)
    assert init_root(layout) == first
    ledger = Ledger(layout.ledger)
    assert ledger.sides() == {"media:v": "train"}
    ledger.close()
    assert layout.datasets.is_dir()


def test_roots_have_identities_of_their_own(tmp_path: Path) -> None:
    assert init_root(Layout(tmp_path / "a")).id != init_root(Layout(tmp_path / "b")).id


def test_a_crash_in_init_is_finished_by_the_next(layout: Layout) -> None:
    init_root(layout)
    layout.ledger.unlink()
    layout.ledger.with_name("new-ledger.db").write_bytes(b"half of it")
    init_root(layout)
    Ledger(layout.ledger).close()
    assert not layout.ledger.with_name("new-ledger.db").exists()


@pytest.mark.parametrize("make", [False, True])
def test_a_directory_that_init_did_not_make_is_refused_and_stays_as_it_is(layout: Layout, *, make: bool) -> None:
    if make:
        layout.root.mkdir()
    with pytest.raises(RootError, match="Is its disk mounted"):
        open_root(layout)
    assert layout.root.exists() is make
    assert not make or list(layout.root.iterdir()) == []


def test_the_refusal_is_one_that_a_restart_would_not_help() -> None:
    assert RootError.exit_code == 78


def test_a_missing_directory_is_named(layout: Layout) -> None:
    init_root(layout)
    shutil.rmtree(layout.images(Home.SEED))
    with pytest.raises(RootError, match="data-seed/images is missing"):
        open_root(layout)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"id": "x"}', '{"id": "x", "created": 1, "more": 2}'])
def test_an_identity_that_cannot_be_read_is_an_error_with_its_path(layout: Layout, text: str) -> None:
    init_root(layout)
    layout.root_id.write_text(text)
    with pytest.raises(RootError, match=r"root\.json cannot be read"):
        open_root(layout)


def test_the_identity_is_plain_json(layout: Layout) -> None:
    root = init_root(layout)
    assert json.loads(layout.root_id.read_text()) == {"id": root.id, "created": root.created}


def test_another_filesystem_inside_is_refused(layout: Layout) -> None:
    init_root(layout)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", layout.incoming], check=False, capture_output=True).returncode:
        pytest.skip("mounting another filesystem needs root")
    try:
        with pytest.raises(RootError, match="another filesystem"):
            open_root(layout)
    finally:
        subprocess.run(["umount", "-l", layout.incoming], check=True)


def test_only_one_process_works_in_a_root(layout: Layout) -> None:
    init_root(layout)
    with lock_root(layout):
        with pytest.raises(RootError, match=f"pid {os.getpid()}"), lock_root(layout):
            pass
        with pytest.raises(RootError, match="in use"):
            init_root(layout)


def test_a_root_whose_ledger_was_lost_is_not_started_anew(layout: Layout) -> None:
    init_root(layout)
    layout.ledger.unlink()
    layout.label(Home.VALIDATED, "a").write_text("")
    with pytest.raises(RootError, match="azaion-daemon index rebuild"):
        init_root(layout)
    assert not layout.ledger.exists()


def test_the_log_of_a_lost_ledger_is_not_taken_for_that_of_the_new_one(layout: Layout) -> None:
    layout.state.mkdir(parents=True)
    layout.ledger.with_name("ledger.db-wal").write_bytes(b"of another database")
    init_root(layout)
    assert not layout.ledger.with_name("ledger.db-wal").exists()
    assert [path.read_bytes() for path in layout.state.glob("ledger.db.broken-*-wal")] == [b"of another database"]


def test_a_new_ledger_that_cannot_be_filled_leaves_nothing_that_looks_like_one(layout: Layout) -> None:
    def fail(_: Ledger) -> None:
        raise RootError("no")

    with pytest.raises(RootError, match="no"):
        init_root(layout, fail)
    assert list(layout.state.glob("*ledger*")) == []
    with pytest.raises(RootError, match="Is its disk mounted"):
        open_root(layout)
    init_root(layout)
    open_root(layout)


def test_a_place_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RootError, match="file"):
        init_root(Layout(tmp_path / "file" / "azaion"))


def test_a_ledger_that_is_missing_is_refused(layout: Layout) -> None:
    with pytest.raises(RootError, match="does not exist"):
        Ledger(layout.ledger)


def test_two_homes_that_are_one_directory_are_refused(layout: Layout) -> None:
    init_root(layout)
    for kind in ("images", "labels"):
        (layout.root / "data-seed" / kind).rmdir()
    (layout.root / "data-seed").rmdir()
    (layout.root / "data-seed").symlink_to(layout.root / "data")
    with pytest.raises(RootError, match="one and the same directory"):
        open_root(layout)
