"""What happens from a due training to a published release: each step leaves its result in the ledger, and any start goes on from there.

    requested -> forming -> queued -> running -> accepted -> releasing -> released      (failed from any)

One job at a time. Recovery is the same code as normal work: on every start the newest unfinished job is taken up at its state.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Never

from azaion_daemon.dataset.snapshot import Snapshot, remove_debris
from azaion_daemon.errors import AzaionError, DatasetError, DatasetPlaceError, DiskFullError, TrainingError, raise_if_disk_failed
from azaion_daemon.following import EpochLog
from azaion_daemon.forming import DatasetFormer
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.logs import get_logger
from azaion_daemon.settings import Settings
from azaion_daemon.store.due import Mark
from azaion_daemon.store.durable import copy_durably, storage
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Blame, Job, Model
from azaion_daemon.training.gpus import Chosen, Gpus, Wait, choose, leased
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec, JobState, Outcome, Progress, advance
from azaion_daemon.training.pool import WorkerPool
from azaion_daemon.training.weights import Start, choose_source, take_for
from azaion_daemon.triggering import Trigger

log = get_logger(__name__)

_MAX_ATTEMPTS = 3
_GPU_POLL_S = 30.0
_NO_SPACE_S = 60.0
_UNFINISHED = frozenset({JobState.REQUESTED, JobState.FORMING, JobState.QUEUED, JobState.RUNNING, JobState.ACCEPTED})
_IN_TRAINING = frozenset({JobState.REQUESTED, JobState.FORMING, JobState.QUEUED, JobState.RUNNING})
_BLAMED = {
    Outcome.BAD_JOB: Blame.SETTINGS,
    Outcome.BAD_DATA: Blame.DATA,
    Outcome.OUT_OF_MEMORY: Blame.SETTINGS,
    Outcome.DIVERGED: Blame.SETTINGS,
}


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A job that is under way: how far its worker is, and what it waits for, where it does."""

    job: Job
    progress: Progress | None = None
    waits_for: str | None = None


class _BadEndError(TrainingError):
    """A worker ended without a model."""

    def __init__(self, result: JobResult) -> None:
        super().__init__(f"{result.outcome}: {result.reason}")
        self.outcome = result.outcome


class Conductor:
    """Takes the daemon's jobs through their states."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        ledger: LedgerThread,
        pipeline: Pipeline,
        former: DatasetFormer,
        trigger: Trigger,
        *,
        workers: WorkerPool,
        gpus: Gpus,
        order_release: Callable[[str], Awaitable[None]],
        after_job: Callable[[], None] = lambda: None,
        retry_pause_s: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Before a worker is started once more there are `retry_pause_s` seconds, and each time as many more."""
        self._settings = settings
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._pipeline = pipeline
        self._former = former
        self._trigger = trigger
        self._workers = workers
        self._gpus = gpus
        self._order_release = order_release
        self._after_job = after_job
        self._retry_pause_s = retry_pause_s
        self._clock = clock
        self.job: Job | None = None
        self.progress: Progress | None = None

    @property
    def under_way(self) -> tuple[UnderWay, ...]:
        """The jobs that are under way, the oldest first."""
        return () if self.job is None else (UnderWay(self.job, self.progress),)

    async def recover(self) -> None:
        """Remove what a crash has left unfinished. To be awaited before `run`."""
        for name in await asyncio.to_thread(remove_debris, self._layout):
            log.info("dataset.debris_removed", dataset=name)

    def reconfigure(self, settings: Settings) -> None:
        """Form the next job with other settings."""
        self._settings = settings

    async def run(self) -> Never:
        """Work until cancelled. A worker under way is left running then."""
        while True:
            unfinished = [job for job in await self._call(self._ledger.jobs) if JobState(job.state) in _UNFINISHED]
            job = unfinished[-1] if unfinished else await self._due()
            try:
                await self._take_through(job)
            except AzaionError as error:
                raise_if_disk_failed(error)
                if isinstance(error, DiskFullError) and self._current().state == JobState.ACCEPTED:
                    await asyncio.sleep(_NO_SPACE_S)  # only a daemon that stops gives a full disk up: the next start installs the model
                else:
                    await self._fail(error)
            finally:
                self.job = self.progress = None
                self._after_job()

    async def _due(self) -> Job:
        """Wait until a training is due, and request it."""
        due = await self._trigger.due()
        now = self._clock()
        job = Job(await self._new_id(now), JobState.REQUESTED, due.why, now, now)
        await self._pipeline.space.repeat(lambda: self._call(self._ledger.due.take_up, job, due.requests))
        log.info("trigger.due", why=due.why, job=job.id)
        return job

    async def _new_id(self, now: float) -> str:
        taken = {job.id for job in await self._call(self._ledger.jobs)}
        stem = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
        return next(id_ for number in range(1, len(taken) + 2) if (id_ := stem if number == 1 else f"{stem}-{number}") not in taken)

    async def _take_through(self, job: Job) -> None:
        self.job = job
        self._trigger.under_way(job.id)
        while self.job is not None and self.job.state in _UNFINISHED:
            match JobState(self.job.state):
                case JobState.REQUESTED:
                    await self._set(JobState.FORMING)
                case JobState.FORMING:
                    await self._form()
                case JobState.QUEUED:
                    await self._queue()
                case JobState.RUNNING:
                    await self._run_worker()
                case JobState.ACCEPTED:
                    await self._install()
                case state:
                    raise AssertionError(state)

    async def _set(self, state: JobState, *, why: str | None = None, **changes: Any) -> None:
        job = self._current()
        advance(JobState(job.state), state)
        now = self._clock()
        if state not in _IN_TRAINING and job.ended is None:
            changes["ended"] = now
        after = self.job = replace(job, state=state, why=why, changed=now, **changes)
        await self._pipeline.space.repeat(lambda: self._call(self._ledger.put_job, after))
        log.info("job.state", job=job.id, state=state, before=job.state, why=why)

    async def _fail(self, error: AzaionError) -> None:
        """What a failed job was formed of does not count as trained on; what it failed for says when it is tried again."""
        match error:
            case _BadEndError(outcome=outcome):
                blame = _BLAMED.get(outcome, Blame.INFRASTRUCTURE)
            case DatasetError() if not isinstance(error, DatasetPlaceError):
                blame = Blame.DATA
            case _:
                blame = Blame.INFRASTRUCTURE
        if self._current().position is None:
            self._took(await self._call(self._ledger.due.mark), await self._trigger.digest_of(self._settings))
        log.error("job.failed", job=self._current().id, why=str(error), blame=blame)
        await self._set(JobState.FAILED, why=str(error), judged=False, blame=blame)

    def _took(self, mark: Mark, digest: str) -> None:
        self.job = replace(self._current(), position=mark.position, audit=mark.audit, settings=digest)

    def _current(self) -> Job:
        assert self.job is not None
        return self.job

    async def _form(self) -> None:
        job, settings = self._current(), self._settings
        log.info("dataset.forming", job=job.id)
        digest = await self._trigger.digest_of(settings)
        source = choose_source(settings.training, self._layout, await self._current_model())
        weights = source.file or self._layout.models / settings.training.model
        snapshot = await self._former.form(settings, lambda mark: self._took(mark, digest), weights=weights)
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
        start = await self._start_from(settings)
        await self._create(self._spec(job.id, snapshot, settings, start))
        await self._set(JobState.QUEUED, dataset=snapshot.name)

    async def _current_model(self) -> Model | None:
        return next((model for model in await self._call(self._ledger.models) if model.current), None)

    async def _start_from(self, settings: Settings) -> Start:
        """Copy the weights that the job starts from into its directory."""
        job, current = self._current().id, await self._current_model()
        directory = JobDirectory(self._layout.jobs / job)
        start = await self._pipeline.space.repeat(
            lambda: asyncio.to_thread(take_for, settings.training, self._layout, current, directory),
        )
        log.info("job.weights", job=job, started_from=start.kind, model=start.model, sha256=start.sha256, why=start.why or None)
        return start

    async def _create(self, spec: JobSpec) -> None:
        directory = JobDirectory(self._layout.jobs / spec.id)
        await self._pipeline.space.repeat(lambda: asyncio.to_thread(directory.create, spec))

    async def _queue(self) -> None:
        """Wait for a GPU. The dataset is kept over restarts meanwhile."""
        chosen = await self._choose_gpus()
        spec = await asyncio.to_thread(JobDirectory(self._layout.jobs / self._current().id).read_spec)
        await self._create(spec.model_copy(update={"gpus": chosen.uuids}))
        await self._set(JobState.RUNNING)

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

    def _spec(self, id_: str, snapshot: Snapshot, settings: Settings, start: Start) -> JobSpec:
        training, export = settings.training, settings.export
        return JobSpec(
            id=id_,
            dataset_id=snapshot.id,
            dataset_name=snapshot.name,
            data_yaml=snapshot.data_yaml,
            class_names=snapshot.class_names,
            model=start.model,
            started_from=start.kind,
            model_sha256=start.sha256,
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
            gpu_locks=self._layout.gpu_locks,
            nice=training.nice,
        )

    async def _run_worker(self) -> None:
        job = self._current()
        directory = JobDirectory(self._layout.jobs / job.id)
        async with EpochLog(directory) as epochs:
            result = await self._run_attempts(directory, epochs)
        if result.outcome is not Outcome.DONE:
            raise _BadEndError(result)
        await self._set(JobState.ACCEPTED, judged=True, result=result.model_dump(mode="json"))

    async def _run_attempts(self, directory: JobDirectory, epochs: EpochLog) -> JobResult:
        job = self._current()
        starts = 0  # a worker that dies at once does not count its attempts

        def on_progress(progress: Progress) -> None:
            self._on_progress(progress)
            epochs.tell()

        while True:
            result = await self._workers.run(directory, on_progress)
            starts += 1
            if result.outcome is not Outcome.INFRASTRUCTURE or max(result.attempts, starts) >= _MAX_ATTEMPTS:
                return result
            log.warning("worker.retried", job=job.id, why=result.reason, attempt=max(result.attempts, starts))
            if directory.read_result() is not None:
                await asyncio.to_thread(directory.retire_result)
            await asyncio.sleep(self._retry_pause_s * starts)

    def _on_progress(self, progress: Progress) -> None:
        before, self.progress = self.progress, progress
        job = self._current().id
        if before is None or before.phase is not progress.phase:
            log.info("worker.phase", job=job, phase=progress.phase.name.lower(), attempt=progress.attempt)

    async def _install(self) -> None:
        """Make an accepted model the current one, and order its release."""
        job = self._current()
        directory = JobDirectory(self._layout.jobs / job.id)
        result = await asyncio.to_thread(directory.read_result)
        if result is None or result.onnx is None or result.pt is None or result.metrics is None:
            raise TrainingError(f"the result of the job {job.id} is gone from {directory.path}; train again")
        kept = self._layout.models / str(job.dataset)
        await self._pipeline.space.repeat(lambda: asyncio.to_thread(_keep_model, directory, kept, self._layout))
        metrics = result.metrics.model_dump(mode="json")
        sha256 = result.onnx.sha256
        path = str(kept / self._layout.onnx.name)
        model = Model(sha256, job.id, result.dataset_id, metrics, path, current=True, created=self._clock())
        await self._pipeline.space.repeat(lambda: self._call(self._ledger.put_current_model, model))
        log.info("model.current", job=job.id, sha256=sha256, map50=result.metrics.map50, map50_95=result.metrics.map50_95)
        await self._pipeline.space.repeat(lambda: self._order_release(sha256))
        await self._set(JobState.RELEASING)


def _keep_model(directory: JobDirectory, kept: Path, layout: Layout) -> None:
    """Copy what came out of a job to a directory of its own, and make it the current model. Again is the same as once."""
    with storage("keeping a model"):
        kept.mkdir(exist_ok=True)
        copy_durably(directory.path / "result.json", kept / "result.json")
        for source, current in ((directory.pt, layout.pt), (directory.onnx, layout.onnx)):
            copy_durably(source, kept / current.name)
            copy_durably(source, current)
