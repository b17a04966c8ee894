"""The cache of resized images: what datasets use stays, the rest is bounded."""

import os
from pathlib import Path

import pytest

from azaion_daemon.dataset.reduction import Reduction
from azaion_daemon.dataset.resized_cache import cached, cached_digests, prune, remove_debris

HOW = Reduction(1280, 90)
BLOCK = 4096


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "resized"


def put(cache: Path, digest: str, reduction: Reduction = HOW, *, used: bool = False) -> Path:
    path = cached(cache, digest, reduction)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * BLOCK)
    if used:
        os.link(path, cache.parent / f"dataset-{digest}")
    return path


def test_each_way_of_reducing_has_files_of_its_own(cache: Path) -> None:
    put(cache, "aa1")
    put(cache, "ab2")
    put(cache, "ab3", Reduction(640, 90))
    put(cache, "ab4", Reduction(1280, 95))
    assert cached_digests(cache, HOW) == {"aa1", "ab2"}
    assert cached_digests(cache, Reduction(640, 90)) == {"ab3"}


def test_where_nothing_was_resized_there_is_nothing(cache: Path) -> None:
    assert cached_digests(cache, HOW) == set()
    assert prune(cache, bound_bytes=0) == (0, 0)
    remove_debris(cache)
    assert not cache.exists()


def test_what_killed_resizers_left_is_no_image_and_is_removed(cache: Path) -> None:
    whole = put(cache, "aa1")
    torn = whole.with_name(f".{whole.name}.123.tmp")
    torn.write_bytes(b"half")
    assert cached_digests(cache, HOW) == {"aa1"}
    remove_debris(cache)
    assert list(cache.rglob("*.*")) == [whole]


def test_what_no_dataset_uses_is_bounded_and_the_longest_unused_goes_first(cache: Path) -> None:
    oldest, used, wanted, newer, newest = (put(cache, digest, used=digest == "b") for digest in ("a", "b", "c", "d", "e"))
    left = cache.parent / "left"
    os.link(oldest, left)
    left.unlink()  # its last dataset is removed only now
    pruned = prune(cache, bound_bytes=2 * BLOCK, keep=[wanted.name])
    assert pruned == (1, BLOCK)
    assert not newer.exists()
    assert all(path.exists() for path in (oldest, used, wanted, newest))
    assert prune(cache, bound_bytes=2 * BLOCK, keep=[wanted.name]) == (0, 0)


def test_a_bound_of_nothing_leaves_what_datasets_use(cache: Path) -> None:
    used = put(cache, "a", used=True)
    put(cache, "b")
    assert prune(cache, bound_bytes=0) == (1, BLOCK)
    assert [path for path in cache.rglob("*") if path.is_file()] == [used]
