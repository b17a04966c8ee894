"""Forming datasets: links against copies, resized images for the first and the next time, and what loading gains from them.

python -m tests.benchmarks.snapshot [--quick]

The ratios are of one run. The annotations of the first part have files of the size of the ingest benchmark's, but sparse ones, so that
reading them costs next to nothing; copies are written whole, of every fourth annotation, and their time is taken four times. 4K frames are
JPEGs as cameras write them, of generated scenery.
"""

import argparse
import asyncio
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.snapshot import Snapshot
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.sections import IngestSettings
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import FilesystemSync
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Annotation
from azaion_daemon.store.root import init_root
from tests.benchmarks._common import Target, at_least, below, finish, progress
from tests.loading import epoch
from tests.pictures import aerial, encoded

ANNOTATIONS, QUICK_ANNOTATIONS = 100_000, 10_000
FILE_BYTES = 300_000
COPIED_SHARE = 4
"""One of so many is copied."""
FRAMES, QUICK_FRAMES = 300, 80
SCENES = 4
IMGSZ = 1280
ROUNDS = 2
LOADING_ROUNDS = 5
KINDS = ("plain", "augmented")
MEDIA_FRAMES = 5
LABEL = "1 0.5 0.5 0.25 0.25\n2 0.2 0.3 0.02 0.04\n"
MOST_SECONDS = 10.0
LEAST_TIMES_COPYING = 10.0
LEAST_TIMES_ORIGINALS = 4.0


class Root:
    """A root that holds annotations, and what forms datasets of them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.call = LedgerThread(Ledger(layout.ledger))
        pipeline = Pipeline("s", IngestSettings(), layout, self.call, Inbox(1 << 20), known_classes=frozenset(range(5)))
        classes = Classes(tuple(f"c{number}" for number in range(80)), frozenset(range(5)))
        self._former = DatasetFormer(layout, classes, self.call, Digester(layout, self.call, pipeline), stream="s")
        self._pipeline = pipeline

    async def form(self, images: str) -> tuple[float, Snapshot]:
        """Seconds and dataset, made durable."""
        settings = _settings(self.layout, images)
        started = time.perf_counter()
        made = await self._former.form(settings, lambda _: None, weights=Path("none.yaml"))
        return time.perf_counter() - started, made

    def close(self) -> None:
        self._pipeline.close()
        self.call.close()


def _settings(layout: Layout, images: str) -> Settings:
    return Settings.model_validate(
        {
            "api": {"url": "http://127.0.0.1:9", "email": "u@x.io", "password": "p"},
            "stream": {"host": "127.0.0.1", "port": 1, "user": "u", "password": "p", "name": "s"},
            "directories": {"root": layout.root, "data": "data", "data_seed": "data-seed", "data_deleted": "data_deleted"},
            "dataset": {"images": images, "min_images": 1, "min_objects": 1},
            "training": {"model": "yolo26n.yaml", "epochs": 1, "batch_size": 1, "imgsz": IMGSZ, "save_period": 1, "workers": 0},
            "export": {"imgsz": IMGSZ},
        }
    )


@asynccontextmanager
async def root(work: Path, rows: Callable[[Layout], Iterator[Annotation]]) -> AsyncIterator[Root]:
    """A root with these annotations, which `rows` puts into its tree, durable and in the page cache."""
    layout = Layout(work)
    init_root(layout)
    made = Root(layout)
    try:
        await made.call(made.call.ledger.add_annotations, list(rows(layout)))
        sync(layout)
        yield made
    finally:
        made.close()
        shutil.rmtree(work)


def sync(layout: Layout) -> None:
    whole = FilesystemSync(layout.root)
    whole()
    whole.close()


def put(layout: Layout, number: int, image: bytes, width: int, height: int, *, sparse_bytes: int = 0) -> Annotation:
    """Put an annotation into the tree; its image is `image` and zeros that are not stored."""
    name = f"frame-{number:06}"
    with layout.image(Home.VALIDATED, name, "jpg").open("wb") as file:
        file.write(image)
        file.truncate(len(image) + sparse_bytes)
    layout.label(Home.VALIDATED, name).write_text(LABEL)
    return Annotation(
        name=name,
        home=Home.VALIDATED,
        extension="jpg",
        label=LABEL,
        image=hashlib.sha256(image).hexdigest(),
        media=f"video-{number // MEDIA_FRAMES}",
        width=width,
        height=height,
    )


def small_files(count: int) -> Callable[[Layout], Iterator[Annotation]]:
    def rows(layout: Layout) -> Iterator[Annotation]:
        for number in range(count):
            yield put(layout, number, b"", 640, 480, sparse_bytes=FILE_BYTES)

    return rows


def frames(numbers: range) -> Callable[[Layout], Iterator[Annotation]]:
    def rows(layout: Layout) -> Iterator[Annotation]:
        scenes = [encoded(aerial(3840, 2160, seed)) for seed in range(SCENES)]
        for number in numbers:  # a comment makes each another file, with the same work in it
            scene = scenes[number % SCENES]
            yield put(layout, number, scene[:2] + _comment(f"frame {number}") + scene[2:], 3840, 2160)

    return rows


def _comment(text: str) -> bytes:
    """A JPEG's comment segment."""
    return b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text.encode()


def copy_all(dataset: Path, target: Path, layout: Layout) -> float:
    """Seconds that copying what a dataset links to would take, durably, from a part of it."""
    started = time.perf_counter()
    for side in sorted(path for path in dataset.iterdir() if path.is_dir()):
        for kind in ("images", "labels"):
            directory = target / side.name / kind
            directory.mkdir(parents=True)
            for entry in os.scandir(side / kind):
                if int(entry.name[-8:-4]) % COPIED_SHARE == 0:
                    shutil.copyfile(entry.path, directory / entry.name)
    sync(layout)
    return (time.perf_counter() - started) * COPIED_SHARE


async def links_against_copies(work: Path, count: int, rounds: int) -> dict[str, float]:
    linked, copied = [], []
    async with root(work / "links", small_files(count)) as site:
        progress(f"{count} annotations of {FILE_BYTES} bytes are there")
        for number in range(rounds):
            seconds, made = await site.form("linked")
            linked.append(seconds)
            sync(site.layout)
            target = site.layout.datasets / "copied"
            copied.append(copy_all(made.path, target, site.layout))
            progress(f"round {number}: links {linked[-1]:.2f} s, copies {copied[-1]:.2f} s")
            shutil.rmtree(target)
            shutil.rmtree(made.path)
            sync(site.layout)
    return {"links_s": statistics.median(linked), "copies_s": statistics.median(copied)}


async def resized(work: Path, count: int) -> dict[str, float]:
    found: dict[str, float] = {}
    async with root(work / "frames", frames(range(count))) as site:
        progress(f"{count} frames of 4K are there")
        found["linked_s"], originals = await site.form("linked")
        found["first_resized_s"], small = await site.form("resized")
        progress(f"first resized dataset: {found['first_resized_s']:.1f} s")
        found["unchanged_resized_s"], _ = await site.form("resized")
        changed = max(1, count // 100)
        rows = list(frames(range(count, count + changed))(site.layout))
        await site.call(site.call.ledger.add_annotations, rows)
        found["incremental_resized_s"], _ = await site.form("resized")
        progress(f"after 1 % changed: {found['incremental_resized_s']:.2f} s")
        found["original_bytes"] = _mean_bytes(originals.path)
        found["resized_bytes"] = _mean_bytes(small.path)
        workers = len(os.sched_getaffinity(0))
        rounds: list[dict[str, float]] = []
        for number in range(LOADING_ROUNDS):
            taken: dict[str, float] = {}
            for name, dataset in (("originals", originals), ("resized", small)):
                seconds = await asyncio.to_thread(epoch, dataset.path / "train" / "images", IMGSZ, workers)
                taken |= {f"{name}_{kind}_ms": 1000 * seconds[kind] / seconds["images"] for kind in KINDS}
            taken |= {f"{kind}_ratio": taken[f"originals_{kind}_ms"] / taken[f"resized_{kind}_ms"] for kind in KINDS}
            progress(f"loading, round {number}: " + ", ".join(f"{kind} {taken[f'{kind}_ratio']:.2f} times" for kind in KINDS))
            rounds.append(taken)
        found |= {key: statistics.median(taken[key] for taken in rounds) for key in rounds[0]}  # others may use the machine, too
    return found


def _mean_bytes(dataset: Path) -> float:
    return statistics.mean(path.stat().st_size for path in dataset.glob("*/images/*"))


def targets(links: dict[str, float], images: dict[str, float]) -> list[Target]:
    return [
        below("snapshot_s", links["links_s"], MOST_SECONDS),
        at_least("snapshot_x_copying", links["copies_s"] / links["links_s"], LEAST_TIMES_COPYING),
        at_least("loading_resized_x_originals", images["plain_ratio"], LEAST_TIMES_ORIGINALS),
        at_least("loading_augmented_resized_x_originals", images["augmented_ratio"], LEAST_TIMES_ORIGINALS),  # what a training loads
    ]


async def measure(count: int, rounds: int, images: int) -> tuple[dict[str, float], dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="benchmark-snapshot-") as work:
        return await links_against_copies(Path(work), count, rounds), await resized(Path(work), images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ANNOTATIONS} annotations and {QUICK_FRAMES} frames, one round")
    quick = parser.parse_args().quick
    count, rounds, images = (QUICK_ANNOTATIONS, 1, QUICK_FRAMES) if quick else (ANNOTATIONS, ROUNDS, FRAMES)
    links, sizes = asyncio.run(measure(count, rounds, images))
    print(f"\n{count} annotations of {FILE_BYTES / 1000:g} KB: links {links['links_s']:.2f} s, copies {links['copies_s']:.2f} s")
    print(f"{images} frames of 4K, {sizes['original_bytes'] / 1000:.0f} KB each, reduced to {sizes['resized_bytes'] / 1000:.0f} KB:")
    for what, key in (
        ("linked", "linked_s"),
        ("resized for the first time", "first_resized_s"),
        ("again, unchanged", "unchanged_resized_s"),
        ("again, 1 % changed", "incremental_resized_s"),
    ):
        print(f"  {what:28}{sizes[key]:8.2f} s")
    print(f"an epoch of them, ms an image on {len(os.sched_getaffinity(0))} cores{'originals':>12}{'resized':>10}{'ratio':>8}")
    for kind in KINDS:
        print(f"  {kind:41}{sizes[f'originals_{kind}_ms']:>12.1f}{sizes[f'resized_{kind}_ms']:>10.1f}{sizes[f'{kind}_ratio']:>8.2f}")
    finish(
        "snapshot",
        targets(links, sizes),
        {"annotations": count, "file_bytes": FILE_BYTES, "copied_share": 1 / COPIED_SHARE, "frames": images, **links, **sizes},
    )


if __name__ == "__main__":
    main()
