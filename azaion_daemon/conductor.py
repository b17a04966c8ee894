"""What happens from a due training to a published release: each step leaves its result in the ledger, and any start goes on from there.

    requested -> forming -> queued -> running -> accepted -> releasing -> released      (failed from any)

One job at a time. Recovery is the same code as normal work: on every start the newest unfinished job is taken up at its state.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Never

from azaion_daemon.dataset.snapshot import Snapshot, remove_debris
from azaion_daemon.dataset.trigger import Decision, TriggerFacts, decide
from azaion_daemon.errors import AzaionError, TrainingError, raise_if_disk_failed
from azaion_daemon.forming import DatasetFormer
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.logs import get_logger
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import fsync_directory, storage
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Job, Model
from azaion_daemon.training.gpus import Chosen, Gpus, Wait, choose, leased
from azaion_daemon.training.jobs import JobDirectory, JobSpec, JobState, Outcome, Phase, Progress, advance
from azaion_daemon.training.pool import WorkerPool

log = get_logger(__name__)

_MAX_ATTEMPTS = 3
_GPU_POLL_S = 30.0
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 3600.0
_UNFINISHED = frozenset({JobState.REQUESTED, JobState.FORMING, JobState.QUEUED, JobState.RUNNING, JobState.ACCEPTED})


class Conductor:
    """Takes the daemon's jobs through their states."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        ledger: LedgerThread,
        pipeline: Pipeline,
        former: DatasetFormer,
        *,
        workers: WorkerPool,
        gpus: Gpus,
        order_release: Callable[[str], Awaitable[None]],
        after_job: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._pipeline = pipeline
        self._former = former
        self._workers = workers
        self._gpus = gpus
        self._order_release = order_release
        self._after_job = after_job
        self._clock = clock
        self.decision = Decision(due=False, why="starting")
        self.job: Job | None = None
        self.progress: Progress | None = None

    async def recover(self) -> None:
        """Remove what a crash has left unfinished. To be awaited before `run`."""
        for name in await asyncio.to_thread(remove_debris, self._layout):
            log.info("dataset.debris_removed", dataset=name)

    async def run(self) -> Never:
        """Work until cancelled. A worker under way is left running then."""
        while True:
            unfinished = [job for job in await self._call(self._ledger.jobs) if JobState(job.state) in _UNFINISHED]
            job = unfinished[-1] if unfinished else await self._due()
            try:
                await self._take_through(job)
            except AzaionError as error:
                raise_if_disk_failed(error)
                await self._fail(error)
            finally:
                self.job = self.progress = None
                self._after_job()

    async def _due(self) -> Job:
        """Wait until a training is due, and request it."""
        changed = self._pipeline.state.changed
        while True:
            changed.clear()
            judged = await self._call(self._ledger.judged_position)
            facts = TriggerFacts(await self._call(self._ledger.changed_since, judged), self._pipeline.state.counts[Home.VALIDATED])
            self.decision = decide(facts, self._settings.trigger)
            if self.decision.due:
                break
            await changed.wait()
        log.info("trigger.due", why=self.decision.why)
        now = self._clock()
        job = Job(await self._new_id(now), JobState.REQUESTED, self.decision.why, now, now)
        await self._call(self._ledger.put_job, job)
        return job

    async def _new_id(self, now: float) -> str:
        taken = {job.id for job in await self._call(self._ledger.jobs)}
        stem = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
        return next(id_ for number in range(1, len(taken) + 2) if (id_ := stem if number == 1 else f"{stem}-{number}") not in taken)

    async def _take_through(self, job: Job) -> None:
        self.job = job
        self.decision = Decision(due=False, why=f"wait: job {job.id} is under way")
        while self.job is not None and self.job.state in _UNFINISHED:
            match JobState(self.job.state):
                case JobState.REQUESTED:
                    await self._set(JobState.FORMING)
                case JobState.FORMING:
                    await self._form()
                case JobState.QUEUED:
                    await self._set(JobState.RUNNING)
                case JobState.RUNNING:
                    await self._run_worker()
                case JobState.ACCEPTED:
                    await self._install()
                case state:
                    raise AssertionError(state)

    async def _set(self, state: JobState, *, why: str | None = None, **changes: Any) -> None:
        job = self._current()
        advance(JobState(job.state), state)
        self.job = replace(job, state=state, why=why, changed=self._clock(), **changes)
        await self._call(self._ledger.put_job, self.job)
        log.info("job.state", job=job.id, state=state, before=job.state, why=why)

    async def _fail(self, error: AzaionError) -> None:
        """A job that failed counts as judged, so that it is not repeated before as many annotations have changed again."""
        job = self._current()
        position = self._pipeline.state.position if job.position is None else job.position
        log.error("job.failed", job=job.id, why=str(error))
        await self._set(JobState.FAILED, why=str(error), judged=True, position=position)

    def _current(self) -> Job:
        assert self.job is not None
        return self.job

    async def _form(self) -> None:
        job = self._current()
        log.info("dataset.forming", job=job.id)

        def at(position: int | None) -> None:
            self.job = replace(job, position=position)

        weights = self._layout.models / self._settings.training.model
        snapshot = await self._former.form(self._settings.dataset, at, weights=weights)
        log.info(
            "dataset.formed",
            job=job.id,
            dataset=snapshot.name,
            id=snapshot.id,
            images=dict(snapshot.counts.images),
            objects=dict(snapshot.counts.objects),
            excluded=dict(snapshot.counts.excluded),
            remarks=[remark.code for remark in snapshot.remarks],
        )
        chosen = await self._choose_gpus()
        await asyncio.to_thread(JobDirectory(self._layout.jobs / job.id).create, self._spec(job.id, snapshot, chosen))
        await self._set(JobState.QUEUED, dataset=snapshot.name)

    async def _choose_gpus(self) -> Chosen:
        while True:
            found = await asyncio.to_thread(self._gpus.discover)
            locks = self._layout.gpu_locks
            busy = await asyncio.to_thread(leased, locks, [gpu.uuid for gpu in found.gpus])
            match choose(self._settings.training.gpus, found, busy):
                case Chosen() as chosen:
                    return chosen
                case Wait(reason=reason):
                    log.warning("worker.waiting", job=self._current().id, why=reason)
                    await asyncio.sleep(_GPU_POLL_S)

    def _spec(self, id_: str, snapshot: Snapshot, chosen: Chosen) -> JobSpec:
        training, export = self._settings.training, self._settings.export
        local = self._layout.models / training.model
        return JobSpec(
            id=id_,
            dataset_id=snapshot.id,
            dataset_name=snapshot.name,
            data_yaml=snapshot.data_yaml,
            class_names=snapshot.class_names,
            model=str(local) if local.exists() else training.model,
            epochs=training.epochs,
            batch_size=training.batch_size,
            imgsz=training.imgsz,
            save_period=training.save_period,
            workers=training.workers,
            seed=training.seed,
            deterministic=training.deterministic,
            overrides=training.overrides,
            export_imgsz=export.imgsz,
            export_batch=export.batch,
            gpus=chosen.uuids,
            gpu_locks=self._layout.gpu_locks,
            nice=training.nice,
        )

    async def _run_worker(self) -> None:
        job = self._current()
        directory = JobDirectory(self._layout.jobs / job.id)
        while True:
            result = await self._workers.run(directory, self._on_progress)
            if result.outcome is not Outcome.INFRASTRUCTURE or result.attempts >= _MAX_ATTEMPTS:
                break
            log.warning("worker.retried", job=job.id, why=result.reason, attempt=result.attempts)
            if directory.read_result() is not None:
                await asyncio.to_thread(directory.retire_result)
        if result.outcome is not Outcome.DONE:
            raise TrainingError(f"{result.outcome}: {result.reason}")
        await self._set(JobState.ACCEPTED, judged=True, result=result.model_dump(mode="json"))

    def _on_progress(self, progress: Progress) -> None:
        before, self.progress = self.progress, progress
        job = self._current().id
        if before is None or before.phase is not progress.phase:
            log.info("worker.phase", job=job, phase=progress.phase.name.lower(), attempt=progress.attempt)
        if progress.phase is Phase.TRAIN and before is not None and before.epoch and progress.epoch > before.epoch:
            log.info(
                "worker.epoch",
                job=job,
                epoch=before.epoch,
                epochs=progress.epochs,
                map50=progress.map50,
                map50_95=progress.map50_95,
                losses=before.losses,
            )

    async def _install(self) -> None:
        """Make an accepted model the current one, and order its release."""
        job = self._current()
        directory = JobDirectory(self._layout.jobs / job.id)
        result = await asyncio.to_thread(directory.read_result)
        if result is None or result.onnx is None or result.pt is None or result.metrics is None:
            raise TrainingError(f"the result of the job {job.id} is gone from {directory.path}; train again")
        kept = self._layout.models / str(job.dataset)
        await asyncio.to_thread(_keep_model, directory, kept, self._layout)
        metrics = result.metrics.model_dump(mode="json")
        await self._call(
            self._ledger.put_current_model,
            Model(
                result.onnx.sha256,
                job.id,
                result.dataset_id,
                metrics,
                str(kept / self._layout.onnx.name),
                current=True,
                created=self._clock(),
            ),
        )
        log.info("model.current", job=job.id, sha256=result.onnx.sha256, map50=result.metrics.map50, map50_95=result.metrics.map50_95)
        await self._order_release(result.onnx.sha256)
        await self._set(JobState.RELEASING)


def _keep_model(directory: JobDirectory, kept: Path, layout: Layout) -> None:
    """Copy what came out of a job to a directory of its own, and make it the current model. Again is the same as once."""
    with storage("keeping a model"):
        kept.mkdir(exist_ok=True)
        _copy_durably(directory.path / "result.json", kept / "result.json")
        for source, current in ((directory.pt, layout.pt), (directory.onnx, layout.onnx)):
            _copy_durably(source, kept / current.name)
            _copy_durably(source, current)


def _copy_durably(source: Path, target: Path) -> None:
    aside = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, aside)
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(target)
    fsync_directory(target.parent)
