"""Datasets on real filesystems, under real kills and as real users: whole under their name or not there."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from azaion_daemon.dataset.snapshot import remove_debris
from azaion_daemon.errors import AzaionError, DatasetError, DatasetPlaceError, DiskFullError
from azaion_daemon.sandbox.scenes import write_classes
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Annotation, Position
from tests.faults import forming
from tests.faults.disk import Disk
from tests.unit.builders import BOX, make_root, picture, put_files, row

VALIDATED = Home.VALIDATED


def fill(layout: Layout, count: int = 40) -> None:
    rows: list[Annotation] = [row(VALIDATED, name=f"n{number:04}", media=f"v{number % 20}") for number in range(count)]
    put_files(layout, *rows)
    write_classes(layout.classes)
    ledger = Ledger(layout.ledger)
    ledger.commit_batch("s", Position(1, b""), rows)
    ledger.close()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = make_root(tmp_path / "azaion")
    fill(made)
    return made


def named(layout: Layout) -> list[Path]:
    """What looks like a dataset."""
    return [path for path in layout.datasets.iterdir() if not path.name.startswith(".")]


def is_whole(dataset: Path, *, images: int) -> bool:
    entries = [json.loads(line) for line in (dataset / "manifest.jsonl").read_text().splitlines()]
    for entry in entries:
        side = dataset / entry["split"]
        assert (side / "images" / f"{entry['name']}.{entry['extension']}").read_bytes() == picture(0)
        assert (side / "labels" / f"{entry['name']}.txt").read_text() == BOX
    assert sum(json.loads((dataset / "dataset.json").read_text())["images"].values()) == len(entries)
    assert (dataset / "data.yaml").stat().st_size > 0
    return len(entries) == images


# Killed


def run_until(layout: Layout, moment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.faults.forming", str(layout.root), moment]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("moment", forming.MOMENTS)
def test_killed_while_forming_it_leaves_a_whole_dataset_or_nothing_that_looks_like_one(layout: Layout, moment: str, tmp_path: Path) -> None:
    undisturbed = make_root(tmp_path / "other")
    fill(undisturbed)
    expected = run_until(undisturbed, "none").stdout.strip()
    assert run_until(layout, moment).returncode == -signal.SIGKILL
    if moment == "named":
        (dataset,) = named(layout)
        assert is_whole(dataset, images=40)
        assert remove_debris(layout) == []
        return
    assert named(layout) == []
    assert remove_debris(layout) == ["azaion-2026-04-01"]
    assert list(layout.datasets.iterdir()) == []
    again = run_until(layout, "none")  # also with the sides that were recorded for a dataset that never was
    assert again.stdout.strip() == expected, again.stderr
    (dataset,) = named(layout)
    assert is_whole(dataset, images=40)


def test_killed_at_any_moment_the_same(layout: Layout) -> None:
    ledger = Ledger(layout.ledger)
    more = [row(VALIDATED, name=f"m{number:04}", media=f"w{number}") for number in range(1500)]
    put_files(layout, *more)
    ledger.commit_batch("s", Position(2, b""), more)
    ledger.close()
    moments = random.Random(4)
    for _ in range(8):
        context = multiprocessing.get_context("fork")
        process = context.Process(target=forming.form, args=(layout,))
        process.start()
        time.sleep(moments.uniform(0, 0.25))
        process.kill()
        process.join()
        for dataset in named(layout):
            assert is_whole(dataset, images=1540)
            shutil.rmtree(dataset)
        remove_debris(layout)
        assert list(layout.datasets.iterdir()) == []


# Other filesystems


class MakeDisk(Protocol):
    def __call__(self, place: Path, *, size_mib: int = 32) -> Disk: ...


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """An ext4 filesystem of its own at a place."""
    disks: list[Disk] = []

    def mounted(place: Path, *, size_mib: int = 32) -> Disk:
        disks.append(Disk(tmp_path / f"{len(disks)}.ext4", place, size_mib))
        return disks[-1]

    yield mounted
    for disk in disks:
        disk.unmount()


def test_to_another_filesystem_files_are_copied_and_outlive_a_power_cut(layout: Layout, other_disk: MakeDisk) -> None:
    disk = other_disk(layout.datasets)
    made = forming.form(layout)
    assert is_whole(made.path, images=40)
    assert all(image.stat().st_nlink == 1 for image in made.path.rglob("*.jpg"))
    disk.cut_power()
    disk.restore_power()
    assert is_whole(made.path, images=40)


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_part_of_the_tree_on_another_filesystem_is_copied_and_the_other_linked(layout: Layout, other_disk: MakeDisk, part: str) -> None:
    place = layout.images(VALIDATED).parent / part
    shutil.copytree(place, layout.root / "aside")
    other_disk(place)
    shutil.copytree(layout.root / "aside", place, dirs_exist_ok=True)
    made = forming.form(layout)
    assert is_whole(made.path, images=40)
    linked = {path.suffix for path in made.path.rglob("n*") if path.stat().st_nlink == 2}
    assert linked == ({".txt"} if part == "images" else {".jpg"})


def fill_up(place: Path) -> None:
    with place.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))


def test_a_disk_that_fills_up_in_the_middle_is_said_and_leaves_nothing(layout: Layout, other_disk: MakeDisk) -> None:
    other_disk(layout.datasets, size_mib=2)
    rest = layout.datasets / "rest"
    with pytest.raises(DiskFullError, match="Free some space"):
        forming.form(layout, "middle", lambda: fill_up(rest))
    assert {path.name for path in layout.datasets.iterdir()} == {"rest", "lost+found"}
    with pytest.raises(DatasetError, match="too_little_disk"):  # now it is seen before
        forming.form(layout)
    rest.unlink()
    assert is_whole(forming.form(layout).path, images=40)


def test_a_file_with_as_many_links_as_there_can_be_is_copied(tmp_path: Path, other_disk: MakeDisk) -> None:
    """EMLINK: ext4 allows 65,000."""
    other_disk(tmp_path / "azaion", size_mib=64)
    layout = make_root(tmp_path / "azaion")
    fill(layout)
    image = layout.image(VALIDATED, "n0000", "jpg")
    links = layout.root / "links"
    links.mkdir()
    for number in range(64_999):
        os.link(image, f"{links}/{number}")
    with pytest.raises(OSError, match="Too many links"):
        os.link(image, links / "one more")
    made = forming.form(layout)
    assert is_whole(made.path, images=40)
    assert [path.name for path in made.path.rglob("*.jpg") if path.stat().st_nlink == 1] == ["n0000.jpg"]


def test_a_file_that_may_not_have_links_though_it_is_ours_is_copied(tmp_path: Path, other_disk: MakeDisk) -> None:
    """EPERM: here by an attribute; a whole filesystem without links, such as FAT, says the same."""
    other_disk(tmp_path / "azaion")
    layout = make_root(tmp_path / "azaion")
    fill(layout)
    image = layout.image(VALIDATED, "n0000", "jpg")
    subprocess.run(["chattr", "+i", image], check=True)
    try:
        made = forming.form(layout)
    finally:
        subprocess.run(["chattr", "-i", image], check=True)
    assert is_whole(made.path, images=40)
    assert [path.name for path in made.path.rglob("*.jpg") if path.stat().st_nlink == 1] == ["n0000.jpg"]


# Other users


@pytest.fixture
def open_layout() -> Iterator[Layout]:
    """A root below a directory that any user may enter; made by root, and only what a daemon writes belongs to another."""
    if os.geteuid() != 0:
        pytest.skip("files of another user need root")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        made = make_root(Path(directory) / "azaion")
        fill(made)
        for path in (made.datasets, made.state, *made.state.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        yield made


NOBODY = 65534


def refusal_as_nobody(layout: Layout) -> str:
    """What forming a dataset says to a user who does not own the tree."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def act() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            theirs.send(f"formed {forming.form(layout).name}")
        except AzaionError as error:
            theirs.send(f"{type(error).__name__}: {error}")

    process = context.Process(target=act)
    process.start()
    said = str(ours.recv()) if ours.poll(20) else "nothing"
    process.join()
    return said


def test_files_of_another_user_are_named_with_what_to_do(open_layout: Layout) -> None:
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("fs.protected_hardlinks is off here")
    said = refusal_as_nobody(open_layout)
    assert said.startswith(DatasetPlaceError.__name__)
    for word in ("n0000.txt", "belongs to the user 0", "by the user 65534", "fs.protected_hardlinks", "chown -R"):
        assert word in said
    assert list(open_layout.datasets.iterdir()) == []


def test_a_directory_that_may_not_be_entered_is_named(open_layout: Layout) -> None:
    open_layout.labels(VALIDATED).chmod(0o700)
    said = refusal_as_nobody(open_layout)
    assert said.startswith(DatasetPlaceError.__name__)
    assert "n0000.txt cannot be read by the user 65534" in said
    assert list(open_layout.datasets.iterdir()) == []


def test_files_of_ones_own_are_linked(open_layout: Layout) -> None:
    for path in open_layout.images(VALIDATED).parent.rglob("*"):
        os.chown(path, NOBODY, NOBODY)
    assert refusal_as_nobody(open_layout) == "formed azaion-2026-04-01"
