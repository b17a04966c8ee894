"""How much disk a dataset and its training need."""

from pathlib import Path

import pytest
from pydantic import ByteSize

from azaion_daemon.dataset.disk import measure_disk, training_bytes
from azaion_daemon.dataset.entries import Entry
from azaion_daemon.dataset.split import Side
from azaion_daemon.store.layout import Home, Layout
from tests.unit.builders import SMALL, make_root, put_files, row

ROWS = [row(Home.VALIDATED, name=f"n{number}") for number in range(10)]
ENTRIES = [Entry(one, f"name:{one.name}", Side.TRAIN, (1,)) for one in ROWS]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = make_root(tmp_path / "azaion")
    put_files(made, *ROWS)
    return made


def test_a_training_writes_many_times_its_weights(tmp_path: Path) -> None:
    weights = tmp_path / "yolo.pt"
    weights.write_bytes(bytes(1000))
    assert training_bytes(weights) == 40_000
    assert training_bytes(tmp_path / "yolo26n.yaml") == 0


def test_links_take_little_and_the_training_comes_on_top(layout: Layout) -> None:
    settings = SMALL.model_copy(update={"min_free_disk": ByteSize(5)})
    disk = measure_disk(layout, ENTRIES, settings, 1_000_000)
    assert 1_000_000 < disk.needed_bytes < 1_100_000
    assert (disk.where, disk.reserve_bytes) == (layout.datasets, 5)
    assert disk.free_bytes > 0
    assert disk.needed_inodes < 50


def test_copies_take_what_the_files_have(layout: Layout) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == layout.root.stat().st_dev:
        pytest.skip("there is no second filesystem")
    linked = measure_disk(layout, ENTRIES, SMALL, 0)
    layout.datasets.rmdir()
    layout.datasets.symlink_to(other, target_is_directory=True)
    copied = measure_disk(layout, ENTRIES, SMALL, 0)
    size = sum(path.stat().st_size for path in (layout.root / "data").rglob("n*"))
    assert copied.needed_bytes - linked.needed_bytes == size
    assert copied.needed_inodes - linked.needed_inodes == 20
