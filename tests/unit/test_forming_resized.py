"""Forming a dataset whose images are resized: the whole of it, with real resizers, beside a ledger and a tree that go on changing."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from azaion_daemon.conducting.forming import DatasetFormer, reduction_for
from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.reduction import Reduction
from azaion_daemon.dataset.resized_cache import cached_digests
from azaion_daemon.dataset.snapshot import Snapshot
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import DatasetError, DiskFullError
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.retention.keeper import Keeper
from azaion_daemon.sections import IngestSettings, RetentionSettings
from azaion_daemon.settings import Settings
from azaion_daemon.store.due import Mark
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation
from tests.pictures import aerial, encoded
from tests.unit.builders import CLASSES, make_root, row, settings_on, tree_of

NAMES = [f"n{number:02}" for number in range(10)]
VALIDATED = Home.VALIDATED


@cache
def photograph(number: int, width: int = 256) -> bytes:
    return encoded(aerial(width, width // 2, number))


def large(name: str, number: int, **others: Any) -> Annotation:
    """An annotation of `photograph(number)`, which is twice as wide as what is trained on."""
    values = {"width": 256, "height": 128, "image": hashlib.sha256(photograph(number)).hexdigest(), **others}
    return row(VALIDATED, name=name, position=0, validated_position=0, **values)


def settings(layout: Layout, **dataset: Any) -> Settings:
    return settings_on(layout, dataset={"images": "resized", **dataset})


class Site:
    """Ten annotations with large photographs, and what forms datasets of them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.call = LedgerThread(Ledger(layout.ledger))
        self.pipeline = Pipeline("s", IngestSettings(), layout, self.call, Inbox(1 << 20), known_classes=CLASSES)
        digester = Digester(layout, self.call, self.pipeline)
        self._digesting = asyncio.create_task(digester.run())
        classes = Classes(tuple(f"c{number}" for number in range(80)), frozenset(range(5)))
        self.former = DatasetFormer(layout, classes, self.call, digester, stream="s", clock=lambda: 0.0)
        self.positions: list[int] = []

    async def put(self, one: Annotation, content: bytes) -> None:
        await asyncio.to_thread(self.layout.image(VALIDATED, one.name, one.extension).write_bytes, content)
        await asyncio.to_thread(self.layout.label(VALIDATED, one.name).write_text, one.label)
        await self.call(self.call.ledger.replace_annotations, [one], ())

    async def form(self, **dataset: Any) -> Snapshot:
        return await self.former.form(settings(self.layout, **dataset), self.take_mark, weights=Path("none.yaml"))

    def take_mark(self, mark: Mark) -> None:
        self.positions.append(mark.position)

    async def close(self) -> None:
        self._digesting.cancel()
        with suppress(asyncio.CancelledError):
            await self._digesting
        self.pipeline.close()
        self.call.close()

    def cached(self, quality: int = 90) -> set[str]:
        return cached_digests(self.layout.resized, Reduction(128, quality))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(make_root(tmp_path / "azaion"))
    for number, name in enumerate(NAMES):
        await made.put(large(name, number), photograph(number))
    yield made
    await made.close()


def images(snapshot: Snapshot) -> dict[str, Path]:
    return {path.stem: path for path in snapshot.path.glob("*/images/*")}


def sizes(snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    found = {}
    for name, path in images(snapshot).items():
        with Image.open(path) as image:
            found[name] = image.size
    return found


def manifest(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in map(json.loads, (snapshot.path / "manifest.jsonl").read_text().splitlines())}


def excluded(snapshot: Snapshot) -> dict[str, tuple[str, str]]:
    lines = map(json.loads, (snapshot.path / "excluded.jsonl").read_text().splitlines())
    return {line["name"]: (line["reason"], line["detail"]) for line in lines}


def test_images_are_reduced_to_no_less_than_the_model_is_exported_for(tmp_path: Path) -> None:
    asked = settings(Layout(tmp_path))
    assert reduction_for(asked) == Reduction(128, 90)
    exported = asked.model_copy(update={"export": asked.export.model_copy(update={"imgsz": 640})})
    assert reduction_for(exported) == Reduction(640, 90)
    assert reduction_for(settings(Layout(tmp_path), images="linked")) is None


async def test_large_images_are_reduced_and_the_tree_stays_as_it_was(site: Site) -> None:
    before = tree_of(site.layout)
    made = await site.form()
    assert set(sizes(made).values()) == {(128, 64)}
    assert sorted(sizes(made)) == NAMES
    assert {line["resized"] for line in manifest(made).values()} == {"128 px, JPEG quality 90"}
    assert {name: line["image"] for name, line in manifest(made).items()} == {
        name: hashlib.sha256(photograph(number)).hexdigest() for number, name in enumerate(NAMES)
    }
    assert tree_of(site.layout) == before


async def test_images_that_are_small_enough_are_linked_as_they_are(site: Site) -> None:
    small = photograph(77, 100)
    await site.put(large("small", 77, image=hashlib.sha256(small).hexdigest(), width=100, height=50), small)
    made = await site.form()
    assert images(made)["small"].samefile(site.layout.image(VALIDATED, "small", "jpg"))
    assert "resized" not in manifest(made)["small"]
    assert len(site.cached()) == 10


async def test_a_png_becomes_a_jpeg_under_its_own_name(site: Site) -> None:
    content = encoded(aerial(256, 128), "PNG")
    await site.put(large("drawn", 0, extension="png", image=hashlib.sha256(content).hexdigest()), content)
    made = await site.form()
    assert images(made)["drawn"].name == "drawn.jpg"
    assert manifest(made)["drawn"]["extension"] == "jpg"


async def test_what_was_reduced_once_is_linked_from_then_on(site: Site) -> None:
    first = await site.form()
    await site.put(large("new", 50), photograph(50))
    second = await site.form()
    assert len(images(second)) == 11
    for name in NAMES:
        assert images(first)[name].samefile(images(second)[name])


async def test_an_image_of_unknown_size_is_opened_once(site: Site) -> None:
    small = photograph(77, 100)
    await site.put(large("small", 77, image=hashlib.sha256(small).hexdigest(), width=None, height=None), small)
    await site.put(large("large", 78, width=None, height=None), photograph(78))
    made = await site.form()
    assert (sizes(made)["small"], sizes(made)["large"]) == ((100, 50), (128, 64))
    rows = await site.call(site.call.ledger.annotations, ["small", "large"])
    assert {name: (one.width, one.height) for name, one in rows.items()} == {"small": (100, 50), "large": (256, 128)}


async def test_images_of_an_indexed_tree_get_their_digests_first(site: Site) -> None:
    await site.put(large("indexed", 60, image=UNKNOWN_DIGEST, width=None, height=None), photograph(60))
    made = await site.form()
    assert sizes(made)["indexed"] == (128, 64)
    assert manifest(made)["indexed"]["image"] == hashlib.sha256(photograph(60)).hexdigest()


async def test_a_damaged_image_is_left_out_with_its_reason(site: Site) -> None:
    torn = photograph(70)[:-3000]
    await site.put(large("torn", 70, image=hashlib.sha256(torn).hexdigest()), torn)
    await site.put(large("rotten", 71), b"other bytes than those that were taken in")
    await site.put(large("gone", 72), b"")
    site.layout.image(VALIDATED, "gone", "jpg").unlink()
    made = await site.form()
    assert sorted(images(made)) == NAMES
    reasons = excluded(made)
    assert {name: reason for name, (reason, _) in reasons.items()} == {
        "torn": "image_unusable",
        "rotten": "image_unusable",
        "gone": "not_in_tree",
    }
    assert "truncated" in reasons["torn"][1]
    assert "is not the one that was taken in" in reasons["rotten"][1]


async def test_what_no_dataset_uses_is_kept_within_the_bound(site: Site) -> None:
    first = await site.form(jpeg_quality=50)
    second = await site.form()
    assert (len(site.cached(50)), len(site.cached())) == (10, 10)
    await asyncio.to_thread(shutil.rmtree, first.path)
    await site.form(resized_cache=0, images="linked")
    assert (len(site.cached(50)), len(site.cached())) == (0, 10)
    assert sizes(second)


async def test_a_pass_of_retention_prunes_what_removed_datasets_leave(site: Site) -> None:
    first = await site.form(jpeg_quality=50)
    await site.form()
    linked = settings(site.layout, images="linked", resized_cache=0)
    keeper = Keeper(RetentionSettings(), site.layout, site.call, prune=lambda: site.former.prune(linked))
    await keeper.make_pass()
    assert (len(site.cached(50)), len(site.cached())) == (10, 10)
    await asyncio.to_thread(shutil.rmtree, first.path)
    await keeper.make_pass()
    assert (len(site.cached(50)), len(site.cached())) == (0, 10)


async def test_a_pass_leaves_what_the_next_dataset_would_take(site: Site) -> None:
    for made in (await site.form(jpeg_quality=50), await site.form()):
        await asyncio.to_thread(shutil.rmtree, made.path)
    await site.former.prune(settings(site.layout, resized_cache=1 << 30))
    assert (len(site.cached(50)), len(site.cached())) == (10, 10)
    await site.former.prune(settings(site.layout, resized_cache=0))
    assert (len(site.cached(50)), len(site.cached())) == (0, 10)


async def test_nothing_is_pruned_while_a_dataset_is_formed(site: Site) -> None:
    made = await site.form(jpeg_quality=50)
    await asyncio.to_thread(shutil.rmtree, made.path)
    async with site.pipeline.still():  # forming waits
        forming = asyncio.create_task(site.form())
        await asyncio.sleep(0.1)
        await site.former.prune(settings(site.layout, images="linked", resized_cache=0))
        assert len(site.cached(50)) == 10
    assert sizes(await forming)


async def test_what_is_needed_again_is_not_pruned(site: Site) -> None:
    first = await site.form()
    inodes = {path.stat().st_ino for path in images(first).values()}
    await asyncio.to_thread(shutil.rmtree, first.path)
    second = await site.form(resized_cache=0)
    assert {path.stat().st_ino for path in images(second).values()} == inodes


@cache
def huge(number: int) -> bytes:
    return encoded(scenery(), comment=str(number))


@cache
def scenery() -> Image.Image:
    return aerial(2048, 1024)


@asynccontextmanager
async def half_way(site: Site) -> AsyncIterator["asyncio.Task[Snapshot]"]:
    """Forming that has reduced some of forty images and is far from its end."""
    for number in range(30):
        await site.put(large(f"m{number}", 0, width=2048, height=1024, image=hashlib.sha256(huge(number)).hexdigest()), huge(number))
    forming = asyncio.create_task(site.form())
    async with asyncio.timeout(30):
        while len(site.cached()) < 15:  # noqa: ASYNC110 - another process makes them
            await asyncio.sleep(0.01)
    assert site.former.resizing is not None
    assert site.former.resizing.total == 40
    try:
        yield forming
    finally:
        forming.cancel()


async def test_a_cancelled_forming_goes_on_where_it_was(site: Site) -> None:
    async with half_way(site) as forming:
        forming.cancel()
        await asyncio.wait([forming])
        assert forming.cancelled()
    assert site.former.resizing is None
    assert list(site.layout.datasets.iterdir()) == []
    before = {path: path.stat().st_mtime_ns for path in site.layout.resized.rglob("*.jpg")}
    made = await site.form()
    assert len(images(made)) == 40
    assert {path: path.stat().st_mtime_ns for path in before} == before


async def test_messages_are_taken_while_images_are_reduced_and_are_in_the_dataset_too(site: Site) -> None:
    async with half_way(site) as forming:
        async with asyncio.timeout(1), site.pipeline.still():  # nobody else makes the tree stand still
            await site.put(large("late", 90), photograph(90))
        assert not forming.done()
        made = await forming
    assert sizes(made)["late"] == (128, 64)


async def test_on_a_full_disk_what_no_dataset_uses_is_given_back(site: Site) -> None:
    used = await site.form()
    await site.put(large("new", 50), photograph(50))
    leftover = site.layout.resized / "ff" / f"{'f' * 64}-128-q90.jpg"
    await asyncio.to_thread(leftover.parent.mkdir, exist_ok=True)
    await asyncio.to_thread(leftover.write_bytes, b"x")
    full = settings(site.layout)
    full = full.model_copy(update={"ingest": full.ingest.model_copy(update={"min_free_disk": 1 << 60})})
    with pytest.raises(DiskFullError, match="resizing images"):
        await site.former.form(full, site.take_mark, weights=Path("none.yaml"))
    assert not leftover.exists()
    assert len(site.cached()) == 10
    assert sizes(used)
    assert [path.name for path in site.layout.datasets.iterdir()] == [used.name]


async def test_a_dataset_that_cannot_be_trained_on_is_refused_before_anything_is_reduced(site: Site) -> None:
    with pytest.raises(DatasetError, match="too_few_images: 10 images"):
        await site.form(min_images=11)
    assert site.cached() == set()


async def test_for_a_trial_no_more_images_are_reduced_than_it_takes(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.dataset.sample.SIZES", {Side.TRAIN: 2, Side.VALID: 1, Side.TEST: 1})
    into = site.layout.jobs / "J" / "dataset"
    weights = Path("none.yaml")
    snapshot = await site.former.form(settings(site.layout), site.take_mark, weights=weights, sample=into)
    assert (snapshot.path, set(sizes(snapshot).values()), len(sizes(snapshot)), len(site.cached())) == (into, {(128, 64)}, 4, 4)
    assert (await site.call(site.call.ledger.sides), list(site.layout.datasets.iterdir())) == ({}, [])
    with pytest.raises(DatasetError, match="too_few_images: 10 images can be used, 11 are needed"):
        await site.former.form(settings(site.layout, min_images=11), site.take_mark, weights=weights, sample=into)
    assert len(list(into.glob("*/images/*"))) == 4
