"""Checkpoints: which pair is resumed from, and what a kill leaves."""

import json
from pathlib import Path

import pytest

from azaion_daemon.errors import StorageError
from azaion_daemon.training.worker.checkpoints import Pair, keep, newest_good, pairs, restore


def whole(pair: Pair) -> bool:
    """Stands in for loading: these files are JSON."""
    try:
        return bool(json.loads(pair.last.read_text())["epoch"] == pair.epoch and json.loads(pair.best.read_text()))
    except (OSError, ValueError, KeyError):
        return False


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    directory = tmp_path / "run" / "train" / "weights"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints"
    path.mkdir()
    return path


def save(weights: Path, epoch: int) -> None:
    (weights / "last.pt").write_text(json.dumps({"epoch": epoch}))
    (weights / "best.pt").write_text(json.dumps({"best": True}))
    (weights.parent / "results.csv").write_text("epoch\n" + "".join(f"{number}\n" for number in range(1, epoch + 2)))


def test_the_newest_two_are_kept_in_the_order_of_their_epochs(weights: Path, directory: Path) -> None:
    for epoch in (8, 9, 10, 11):
        save(weights, epoch)
        assert keep(weights, directory, epoch, is_good=whole)
    assert [pair.epoch for pair in pairs(directory)] == [11, 10]
    assert sorted(path.name for path in directory.iterdir()) == ["000010", "000011"]


@pytest.mark.parametrize("torn", ["last.pt", "best.pt"])
def test_a_torn_pair_gives_way_to_the_one_before(weights: Path, directory: Path, torn: str) -> None:
    for epoch in (0, 1):
        save(weights, epoch)
        keep(weights, directory, epoch, is_good=whole)
    file = directory / "000001" / torn
    file.write_bytes(file.read_bytes()[:5])
    chosen = newest_good(pairs(directory), whole)
    assert chosen is not None
    assert chosen.epoch == 0


def test_no_good_pair_means_starting_anew(weights: Path, directory: Path) -> None:
    assert newest_good(pairs(directory), whole) is None
    save(weights, 0)
    keep(weights, directory, 0, is_good=whole)
    (directory / "000000" / "last.pt").unlink()
    assert newest_good(pairs(directory), whole) is None


def test_a_bad_copy_does_not_push_out_a_good_one(weights: Path, directory: Path) -> None:
    for epoch in (0, 1):
        save(weights, epoch)
        keep(weights, directory, epoch, is_good=whole)
    save(weights, 2)
    (weights / "last.pt").write_text('{"epo')
    assert not keep(weights, directory, 2, is_good=whole)
    assert [pair.epoch for pair in pairs(directory)] == [1, 0]


def test_a_half_filled_pair_is_never_looked_at_and_goes_with_the_next(weights: Path, directory: Path) -> None:
    (directory / ".000003.tmp").mkdir()
    (directory / ".000003.tmp" / "last.pt").write_text("{")
    assert pairs(directory) == []
    save(weights, 3)
    keep(weights, directory, 3, is_good=whole)
    assert sorted(path.name for path in directory.iterdir()) == ["000003"]


def test_restoring_takes_back_weights_and_curves_together(weights: Path, directory: Path) -> None:
    save(weights, 4)
    keep(weights, directory, 4, is_good=whole)
    save(weights, 6)
    (weights / "last.pt").write_text("torn by a kill")
    restore(pairs(directory)[0], weights)
    assert json.loads((weights / "last.pt").read_text()) == {"epoch": 4}
    assert (weights.parent / "results.csv").read_text().splitlines()[-1] == "5"


def test_going_on_from_an_older_pair_removes_the_torn_newer_ones(weights: Path, directory: Path) -> None:
    for epoch in (4, 5):
        save(weights, epoch)
        keep(weights, directory, epoch, is_good=whole)
    (directory / "000005" / "last.pt").write_text("torn")
    (directory / ".000006.tmp").mkdir()
    chosen = newest_good(pairs(directory), whole)
    assert chosen is not None
    restore(chosen, weights)
    assert [path.name for path in directory.iterdir()] == ["000004"]


def test_a_copy_that_fails_leaves_the_pairs_and_no_debris(weights: Path, directory: Path) -> None:
    for epoch in (4, 5):
        save(weights, epoch)
        keep(weights, directory, epoch, is_good=whole)
    (weights / "best.pt").unlink()
    with pytest.raises(StorageError, match=r"best\.pt"):
        keep(weights, directory, 6, is_good=whole)
    assert sorted(path.name for path in directory.iterdir()) == ["000004", "000005"]
