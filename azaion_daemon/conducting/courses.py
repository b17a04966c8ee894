"""The way of one job, from a due training to a released model: each step leaves its result in the ledger, and any start goes on from there.

    requested -> forming -> queued <-> running -> accepted -> releasing -> released
                                               -> rejected | held           (for the operator to overrule)
                                               -> tried                     (a trial)
    failed and cancelled from any

Before each start of a worker the job is queued, and what becomes of it there follows from its directory alone: how the starts before ended
says whether there is another one, with what, and after which pause. So a kill at any moment is made good by doing it again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from azaion_daemon.conducting.following import EpochLog
from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.conducting.gpu_queue import GpuQueue
from azaion_daemon.conducting.installing import Installer
from azaion_daemon.conducting.judging import Judge
from azaion_daemon.conducting.specs import settings_for, spec_for
from azaion_daemon.conducting.stamping import stamp_report
from azaion_daemon.conducting.starts import BadEndError, Retry, Starts
from azaion_daemon.conducting.trials import Peak, remove_what_it_worked_with, sentence, try_encryption
from azaion_daemon.errors import AzaionError, DatasetError, DatasetPlaceError, DiskFullError, TrainingError, raise_if_disk_failed
from azaion_daemon.health import holding, waiting_for
from azaion_daemon.ingest.space import Space
from azaion_daemon.logs import get_logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.settings import Settings
from azaion_daemon.store.due import Mark
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Blame, Job
from azaion_daemon.training.gate import Decision
from azaion_daemon.training.gpus import Chosen, Wait
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec, Progress
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.pool import WorkerPool
from azaion_daemon.training.rulings import verdict_document
from azaion_daemon.training.states import IN_TRAINING, UNFINISHED, JobState, advance
from azaion_daemon.training.weights import Start, choose_source, take_for

log = get_logger(__name__)

T = TypeVar("T")

_GPU_POLL_S = 30.0
_NO_SPACE_S = 60.0
_WAITED_FOR = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.ACCEPTED})
"""What these states begin with can be done again as soon as there is space. A dataset gives its space back and fails."""
_BLAMED = {
    Outcome.BAD_JOB: Blame.SETTINGS,
    Outcome.BAD_DATA: Blame.DATA,
    Outcome.OUT_OF_MEMORY: Blame.SETTINGS,
    Outcome.OUT_OF_HOST_MEMORY: Blame.SETTINGS,
    Outcome.DIVERGED: Blame.SETTINGS,
}
_STATE_OF = {Decision.ACCEPTED: JobState.ACCEPTED, Decision.REJECTED: JobState.REJECTED, Decision.HELD: JobState.HELD}


@dataclass
class Workshop:
    """What all courses work with."""

    settings: Settings
    """Those in force; a reload replaces them."""
    layout: Layout
    ledger: LedgerThread
    space: Space
    former: DatasetFormer
    digest_of: Callable[[Settings], Awaitable[str]]
    workers: WorkerPool
    gpus: GpuQueue
    judge: Judge
    installer: Installer
    retry: Retry
    clock: Callable[[], float]


class Course:
    """Takes one job through its states."""

    def __init__(self, job: Job, shop: Workshop) -> None:
        self.job = job
        self.progress: Progress | None = None
        self._shop = shop
        self._directory = JobDirectory(shop.layout.jobs / job.id)
        self._epochs = EpochLog(self._directory)
        self._starts = Starts(self._directory, shop.retry, self._store)
        self._waits: str | None = None
        self._repeats = Repeats()
        self._storing = 0
        self._peak = Peak()
        self._formed_with: str | None = None
        self._taken_over = job.state == JobState.RUNNING  # from a daemon before this one

    @property
    def waits_for(self) -> str | None:
        """What it waits for, where it does."""
        return self._waits or (self._shop.space.paused if self._storing else None)

    async def run(self) -> None:
        """Work until nothing more happens by itself. When cancelled, a worker under way is left running.

        Raises:
            StorageError: The disk failed.
        """
        while (state := JobState(self.job.state)) in UNFINISHED:
            try:
                await self._take(state)
            except AzaionError as error:
                raise_if_disk_failed(error)
                if isinstance(error, DiskFullError) and self.job.state in _WAITED_FOR:
                    # A training of days is not given up for want of space, least of all by a daemon that stops: its next start goes on.
                    self._say_waiting(str(error))
                    self._waits = str(error)
                    with waiting_for(f"space: {error}"):
                        await asyncio.sleep(_NO_SPACE_S)
                else:
                    await self._end_worker(error)
                    await self._fail(error)
            finally:
                self._waits = None
                if self.job.state != JobState.RUNNING:
                    self._shop.gpus.give_back(self.job.id)
                    self.progress = None

    def _say_waiting(self, why: str) -> None:
        if (seen := self._repeats.count(why)) is not None:
            log.warning("worker.waiting", job=self.job.id, why=why, repeated=seen.times, for_s=seen.for_s)

    async def _take(self, state: JobState) -> None:
        match state:
            case JobState.REQUESTED:
                await self._set(JobState.FORMING)
            case JobState.FORMING:
                await self._form()
            case JobState.QUEUED:
                await self._queue()
            case JobState.RUNNING:
                await self._run_worker()
            case JobState.ACCEPTED:
                # before anything is awaited: what was accepted first is installed first
                async with holding(self._shop.installer.lock, "another model, which is being installed"):
                    await self._install()
            case _:
                raise AssertionError(state)

    # States in the ledger

    async def _set(self, state: JobState, *, why: str | None = None, **changes: Any) -> None:
        job = self.job
        advance(JobState(job.state), state)
        now = self._shop.clock()
        if state not in IN_TRAINING and job.ended is None:
            changes["ended"] = now
        self._repeats.clear()
        after = self.job = replace(job, state=state, why=why, changed=now, **changes)
        await self._store(lambda: self._shop.ledger(self._shop.ledger.ledger.put_job, after))
        log.info("job.state", job=job.id, state=state, before=job.state, why=why)

    async def _store(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do something that may be done again, as soon as there is space for it."""
        self._storing += 1
        try:
            return await self._shop.space.repeat(step)
        finally:
            self._storing -= 1

    async def _fail(self, error: AzaionError) -> None:
        """What a failed job was formed of does not count as trained on; what it failed for says when it is tried again."""
        match error:
            case BadEndError(outcome=outcome):
                blame = _BLAMED.get(outcome, Blame.INFRASTRUCTURE)
            case DatasetError() if not isinstance(error, DatasetPlaceError):
                blame = Blame.DATA
            case _:
                blame = Blame.INFRASTRUCTURE
        if self.job.position is None:
            await self.take_mark()
        log.error("job.failed", job=self.job.id, why=str(error), blame=blame)
        await self._set(JobState.FAILED, why=str(error), judged=False, blame=blame)

    async def _end_worker(self, error: AzaionError) -> None:
        """Before a job fails for something else than its worker's end: the worker may live, and nothing would come of it."""
        if self.job.state != JobState.RUNNING or isinstance(error, BadEndError):
            return
        try:
            await self._shop.workers.cancel(self._directory)
        except TrainingError as stray:
            log.warning("worker.stray", job=self.job.id, why=str(stray))

    async def take_mark(self) -> None:
        """Have the job show the present moment, with the settings it was formed with: for one that ended before its snapshot was taken."""
        shop = self._shop
        mark = await shop.ledger(shop.ledger.ledger.due.mark)
        self._took(mark, self._formed_with or await shop.digest_of(settings_for(self.job, shop.settings)))

    def _took(self, mark: Mark, digest: str) -> None:
        self.job = replace(self.job, position=mark.position, audit=mark.audit, settings=digest)

    # Forming

    async def _form(self) -> None:
        job, shop = self.job, self._shop
        settings = settings_for(job, shop.settings)
        log.info("dataset.forming", job=job.id)
        digest = self._formed_with = await shop.digest_of(settings)  # a reload meanwhile may be what cures it
        source = choose_source(settings.training, shop.layout, await shop.ledger(shop.ledger.ledger.current_model))
        weights = source.file or shop.layout.models / settings.training.model
        into = self._directory.sample if job.trial else None
        snapshot = await shop.former.form(settings, lambda mark: self._took(mark, digest), weights=weights, sample=into)
        spec = spec_for(job, snapshot, await self._start_from(settings), settings, shop.layout)
        log.info(
            "dataset.formed",
            job=job.id,
            dataset=spec.dataset_name,
            id=snapshot.id,
            images=dict(snapshot.counts.images),
            objects=dict(snapshot.counts.objects),
            excluded=dict(snapshot.counts.excluded),
            remarks=[remark.code for remark in snapshot.remarks],
        )
        await self._create(spec)
        await self._set(JobState.QUEUED, dataset=None if job.trial else snapshot.name)

    async def _start_from(self, settings: Settings) -> Start:
        """Copy the weights that the job starts from into its directory."""
        current = await self._shop.ledger(self._shop.ledger.ledger.current_model)
        start = await self._store(
            lambda: asyncio.to_thread(take_for, settings.training, self._shop.layout, current, self._directory),
        )
        log.info("job.weights", job=self.job.id, started_from=start.kind, model=start.model, sha256=start.sha256, why=start.why or None)
        return start

    async def _create(self, spec: JobSpec) -> None:
        await self._store(lambda: asyncio.to_thread(self._directory.create, spec))

    # Queued

    async def _queue(self) -> None:
        """Wait for the next start of a worker: for the pause after one that ended badly, then for GPUs. The dataset is kept meanwhile."""
        spec, avoid = await self._next_start()
        chosen = await self._choose_gpus(spec, avoid)
        await self._create(spec.model_copy(update={"gpus": chosen.uuids, "leases": chosen.leases}))
        if await asyncio.to_thread(self._directory.read_result) is not None:
            await self._store(lambda: asyncio.to_thread(self._directory.retire_result))
        await self._set(JobState.RUNNING)

    async def _next_start(self) -> tuple[JobSpec, Sequence[str]]:
        """What to start a worker with, and the GPUs to avoid."""
        spec = await asyncio.to_thread(self._directory.read_spec)
        again, attempts = await self._starts.again(spec)
        if again is None:
            return spec, ()
        last = attempts[-1]
        log.warning("worker.retried", job=self.job.id, why=last.reason, attempt=len(attempts), pause_s=again.pause_s)
        at = datetime.fromtimestamp(self._shop.clock() + again.pause_s, UTC)
        self._waits = f"the pause before start {len(attempts) + 1}, until {at:%H:%M:%S} UTC, since the last one ended: {last.reason}"
        with waiting_for(self._waits):
            await asyncio.sleep(again.pause_s)
        self._waits = None
        return again.spec, again.avoid

    async def _choose_gpus(self, spec: JobSpec, avoid: Sequence[str]) -> Chosen:
        """Wait for as many GPUs as the job takes."""
        while True:
            match await self._shop.gpus.choose(spec, self._shop.settings.training, avoid):
                case Chosen() as chosen:
                    return chosen
                case Wait(reason=reason):
                    if reason != self._waits:
                        self._say_waiting(reason)
                    self._waits = reason
                    with waiting_for(f"GPUs: {reason}"):
                        await self._shop.gpus.wait(_GPU_POLL_S)

    # Running

    async def _run_worker(self) -> None:
        """Have a worker run to its end, and act on that."""
        directory, shop = self._directory, self._shop
        spec = await asyncio.to_thread(directory.read_spec)
        shop.gpus.take(spec)
        taken_over, self._taken_over = self._taken_over, False
        if not taken_over:
            await self._store(lambda: shop.judge.prepare(directory, spec))
        elif not await self._starts.goes_on(spec):
            # What a dead one has started may hold its GPUs, and would be waited for; one that has not said its first word begins anew.
            await shop.workers.cancel(directory)
            await self._set(JobState.QUEUED, why="no worker of it lives")
            return
        async with self._epochs:
            result = await shop.workers.run(directory, self._on_progress)
        await self._starts.record(spec, result)
        again, _ = await self._starts.again(spec)
        if again is not None:
            await self._set(JobState.QUEUED, why=f"{result.outcome}: {result.reason}")
        elif self.job.trial:
            await self._end_trial(result)
        else:
            await self._judge(result)

    def _on_progress(self, progress: Progress) -> None:
        before, self.progress = self.progress, progress
        self._peak = Peak(max(self._peak.gpu_bytes, progress.gpu_memory_bytes), max(self._peak.bytes, progress.memory_bytes))
        job = self.job.id
        if before is None or before.phase is not progress.phase:
            log.info("worker.phase", job=job, phase=progress.phase.name.lower(), attempt=progress.attempt)
        if before is None or (before.epoch, before.step) != (progress.epoch, progress.step):
            self._epochs.tell()  # no epoch ends without a change of these; to read them all each second would be in vain

    # Tried, or judged

    async def _end_trial(self, result: JobResult) -> None:
        """Try the rest of the way too, and let go of what is large. No model comes of it."""
        directory = self._directory
        encryption = await asyncio.to_thread(try_encryption, directory.onnx, self._shop.settings.publish)
        await asyncio.to_thread(remove_what_it_worked_with, directory)
        why = sentence(result, encryption, self._peak)
        await self._set(JobState.TRIED, why=why, result=result.model_dump(mode="json"))

    async def _judge(self, result: JobResult) -> None:
        """Decide about the model and, if it is accepted, make it the current one before any other is decided about."""
        shop = self._shop
        async with holding(shop.installer.lock, "another model, which is being installed"):
            verdict = await self._store(lambda: shop.judge.verdict(self._directory, result))
            if verdict is None:
                await self._set(JobState.QUEUED, why="another model has become the current one: it is evaluated against that")
                return
            document = verdict_document(verdict, by="gate", time=shop.clock())
            log.info("job.judged", job=self.job.id, decision=verdict.decision, why=verdict.reason, by="gate")
            document_of_result = result.model_dump(mode="json")
            state = _STATE_OF[verdict.decision]
            await self._set(state, why=verdict.reason, judged=True, result=document_of_result, verdict=document)
            await stamp_report(shop.layout, self.job)
            if state is JobState.ACCEPTED:
                await self._install()

    async def _install(self) -> None:
        await self._shop.installer.install(self.job)
        await self._set(JobState.RELEASING, why=self.job.why)
