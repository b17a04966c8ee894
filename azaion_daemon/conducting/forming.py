"""From the validated annotations to a dataset, while the tree stands still."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.disk import measure_disk, training_bytes
from azaion_daemon.dataset.plan import DatasetPlan, plan_dataset
from azaion_daemon.dataset.reduction import Reduction
from azaion_daemon.dataset.resized_cache import exceeds, prune
from azaion_daemon.dataset.resizing import Progress, Resizing, Work
from azaion_daemon.dataset.sample import of_a_sample, take_sample
from azaion_daemon.dataset.snapshot import Snapshot, form_snapshot, remarks_or_refusal
from azaion_daemon.dataset.sources import ResizedSources
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import AzaionError, DiskFullError
from azaion_daemon.health import beat, holding
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.logs import get_logger
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.settings import Settings
from azaion_daemon.store.due import Mark
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread

log = get_logger(__name__)

_FEW = 64
"""So many images are resized while the tree stands still."""


class _GivenUpError(Exception):
    """The daemon stops."""


class DatasetFormer:
    """Forms datasets of what the ledger says is validated."""

    def __init__(
        self,
        layout: Layout,
        classes: Classes,
        ledger: LedgerThread,
        digester: Digester,
        *,
        stream: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`stream` is the one whose position a dataset shows."""
        self._layout = layout
        self._classes = classes
        self._call = ledger
        self._ledger = ledger.ledger
        self._digester = digester
        self._stream = stream
        self._clock = clock
        self._forming = asyncio.Lock()
        self.resizing: Progress | None = None
        """How far the resizing of images is, while it goes on."""

    async def form(self, settings: Settings, at: Callable[[Mark], None], *, weights: Path, sample: Path | None = None) -> Snapshot:
        """Form a dataset; `at` is told the moment that it will show, before anything can fail for the data that it holds.

        `weights` is what the training starts from: the larger, the more disk it needs. With `sample`, a directory that is made, only a few
        images of the dataset are put there: it is refused for what the whole would be refused for, and gives no media a side.

        Raises:
            DatasetError: It could not be trained on.
            ResizeError: Its images cannot be resized.
            StorageError: The disk failed or is full.
        """
        async with holding(self._forming, "another dataset, which is being formed"):
            return await self._form_or_give_back(settings, at, weights, sample)

    async def prune(self, settings: Settings) -> None:
        """Bring the cache of resized images back within its bound, but for what the next dataset would take from it.

        Does nothing while a dataset is formed, which does the same.

        Raises:
            StorageError: The disk failed.
        """
        if self._forming.locked():
            return
        async with holding(self._forming, "a dataset, which is being formed"):
            bound, reduction = settings.dataset.resized_cache, reduction_for(settings)
            keep: list[str] = []
            if reduction is not None and await asyncio.to_thread(exceeds, self._layout.resized, bound):
                keep = _reduced_files(reduction, await self._plan(settings.dataset))
            await self._prune(bound_bytes=bound, keep=keep)

    async def _form_or_give_back(self, settings: Settings, at: Callable[[Mark], None], weights: Path, sample: Path | None) -> Snapshot:
        reduction = reduction_for(settings)
        try:
            if reduction is None:
                await self._prune(bound_bytes=settings.dataset.resized_cache)
                return await self._form(settings, at, weights, sample)
            resizing = Resizing(
                self._layout.resized,
                reduction,
                max_pixels=settings.ingest.max_image_pixels,
                min_free_bytes=max(settings.ingest.min_free_disk, settings.dataset.min_free_disk + training_bytes(weights)),
            )
            at(await self._call(self._ledger.due.mark))  # and once more when all is resized
            sources = await self._resize_ahead(reduction, resizing, settings.dataset, sampled=sample is not None)
            return await self._form(settings, at, weights, sample, sources, resizing)
        except DiskFullError:
            await self._prune(bound_bytes=0)
            raise
        finally:
            self.resizing = None

    async def _form(
        self,
        settings: Settings,
        at: Callable[[Mark], None],
        weights: Path,
        sample: Path | None,
        sources: ResizedSources | None = None,
        resizing: Resizing | None = None,
    ) -> Snapshot:
        loop = asyncio.get_running_loop()
        given_up = threading.Event()

        def proceed() -> None:
            beat()
            if given_up.is_set():
                raise _GivenUpError

        def record_sides(sides: Mapping[str, Side]) -> None:
            asyncio.run_coroutine_threadsafe(self._call(self._ledger.add_sides, sides), loop).result()

        async with self._digester.still():
            newest = await self._call(self._ledger.position, self._stream)
            position = None if newest is None else newest.position
            at(await self._call(self._ledger.due.mark))
            plan = await self._plan(settings.dataset)
            dataset = settings.dataset
            if sample is not None:
                await asyncio.to_thread(self._judge_whole, plan, dataset, weights)
                plan, dataset = take_sample(plan, self._classes), of_a_sample(dataset)
            if sources is not None and resizing is not None:
                await self._resize(sources, resizing, sources.work(plan.entries))
                plan = plan.without(sources.unusable(plan.entries), self._classes)

            def form() -> Snapshot:
                return form_snapshot(
                    plan,
                    self._layout,
                    self._classes,
                    dataset,
                    into=sample,
                    position=position,
                    now=datetime.fromtimestamp(self._clock(), UTC),
                    record_sides=record_sides,
                    image_of=None if sources is None else sources.of,
                    training_bytes=training_bytes(weights),
                    proceed=proceed,
                )

            forming = asyncio.ensure_future(asyncio.to_thread(form))
            try:
                return await asyncio.shield(forming)
            except asyncio.CancelledError:
                given_up.set()  # the tree stands still until the thread has removed what it made
                with suppress(_GivenUpError, AzaionError):
                    await forming
                raise

    async def _plan(self, settings: DatasetSettings) -> DatasetPlan:
        rows = await self._call(self._ledger.in_home, Home.VALIDATED)
        sides = {media: Side(side) for media, side in (await self._call(self._ledger.sides)).items()}
        return await asyncio.to_thread(plan_dataset, rows, sides, self._classes, settings, key=self._stream)

    def _judge_whole(self, plan: DatasetPlan, settings: DatasetSettings, weights: Path) -> None:
        disk = measure_disk(self._layout, plan.entries, settings, training_bytes(weights))
        remarks_or_refusal(plan, self._classes, settings, disk)

    async def _resize_ahead(self, reduction: Reduction, resizing: Resizing, settings: DatasetSettings, *, sampled: bool) -> ResizedSources:
        """Resize nearly all images while messages are taken, so that the tree has to stand still for the last few only."""
        await self._digester.digested()
        plan = await self._plan(settings)
        remarks_or_refusal(plan, self._classes, settings, None)  # before an hour is spent on it
        await self._prune(bound_bytes=settings.resized_cache, keep=_reduced_files(reduction, plan))
        sources = await asyncio.to_thread(ResizedSources, self._layout, reduction)
        wanted = take_sample(plan, self._classes) if sampled else plan
        before, work = None, sources.work(wanted.entries)
        while work and (before is None or _FEW < len(work) < before / 2):  # when more come than are done, waiting would not help
            await self._resize(sources, resizing, work)
            before = len(work)
            plan = await self._plan(settings)
            work = sources.work((take_sample(plan, self._classes) if sampled else plan).entries)
        return sources

    async def _resize(self, sources: ResizedSources, resizing: Resizing, work: Sequence[Work]) -> None:
        if not work:
            return
        started = time.monotonic()
        outcomes = await resizing.run(work, self._on_progress)
        sources.settle(work, outcomes)
        sizes = [
            (name, digest, outcome.width, outcome.height)
            for name, _, digest in work
            if (outcome := outcomes[name]).width is not None and outcome.height is not None
        ]
        await self._call(self._ledger.put_sizes, sizes)
        counts = Counter(outcome.kind.value for outcome in outcomes.values())
        written = sum(outcome.bytes for outcome in outcomes.values())
        log.info("dataset.resized", outcomes=dict(counts), bytes=written, seconds=round(time.monotonic() - started, 1))

    def _on_progress(self, progress: Progress) -> None:
        if progress != self.resizing:
            beat()
        self.resizing = progress

    async def _prune(self, *, bound_bytes: int, keep: Iterable[str] = ()) -> None:
        pruned = await asyncio.to_thread(prune, self._layout.resized, bound_bytes=bound_bytes, keep=keep)
        if pruned.files:
            log.info("dataset.resized_pruned", images=pruned.files, bytes=pruned.bytes)


def _reduced_files(reduction: Reduction, plan: DatasetPlan) -> list[str]:
    """What a dataset would take from the cache."""
    return [reduction.file(entry.annotation.image) for entry in plan.entries if entry.annotation.image is not None]


def reduction_for(settings: Settings) -> Reduction | None:
    """How the settings want images reduced; None when they are linked as they are.

    To no less than the model is exported for: at that size it is judged on the dataset's test images.
    """
    if settings.dataset.images == "linked":
        return None
    return Reduction(max(settings.training.imgsz, settings.export.imgsz), settings.dataset.jpeg_quality)
