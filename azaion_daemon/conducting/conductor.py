"""Which jobs run: those that a stop or a kill has left unfinished, each taken up at its state, and those that come due.

What the trigger finds due runs alone; what operators ask for may run beside it, as far as `training.max_parallel_jobs` goes. Each job has a
task of its own (see `courses`). Recovery is the same code as normal work.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Never

from azaion_daemon.conducting.courses import Course, Workshop
from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.conducting.gpu_queue import GpuQueue
from azaion_daemon.conducting.installing import Installer, complete_result
from azaion_daemon.conducting.judging import Judge
from azaion_daemon.conducting.stamping import stamp_report, stamp_reports
from azaion_daemon.conducting.starts import Retry
from azaion_daemon.conducting.triggering import Due, Trigger
from azaion_daemon.dataset.snapshot import remove_debris
from azaion_daemon.errors import OperatorError, TrainingError
from azaion_daemon.health import JOB_LIMIT_S, LOCK_LIMIT_S, holding, strand, waiting_for
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.logs import get_logger
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import is_locked
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Job
from azaion_daemon.training.gate import Decision, Verdict
from azaion_daemon.training.gpus import Gpus
from azaion_daemon.training.jobs import JobDirectory, Progress
from azaion_daemon.training.pool import WorkerPool
from azaion_daemon.training.retry import decide as decide_retry
from azaion_daemon.training.rulings import check_overruling, find_to_cancel, verdict_document
from azaion_daemon.training.states import IN_TRAINING, UNFINISHED, JobState, advance

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A job that is under way: how far its worker is, and what it waits for, where it does."""

    job: Job
    progress: Progress | None = None
    waits_for: str | None = None


class Conductor:
    """Starts, recovers and ends the daemon's jobs."""

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
        judge: Judge,
        order_release: Callable[[str], Awaitable[None]],
        after_job: Callable[[], None] = lambda: None,
        retry: Retry = decide_retry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shop = Workshop(
            settings, layout, ledger, pipeline.space, former, trigger.digest_of, workers, GpuQueue(gpus, layout.gpu_locks), judge,
            Installer(layout, ledger, pipeline.space, order_release, clock=clock), retry, clock,
        )  # fmt: skip
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._space = pipeline.space
        self._trigger = trigger
        self._after_job = after_job
        self._clock = clock
        self._courses: dict[str, Course] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._begun = asyncio.Event()
        self._ruling = asyncio.Lock()  # one thing at a time: a new job, a cancelling, an overruling
        self._cancelling: set[str] = set()

    @property
    def under_way(self) -> tuple[UnderWay, ...]:
        """The jobs that are under way, the oldest first."""
        courses = sorted(self._courses.values(), key=lambda course: (course.job.created, course.job.id))
        return tuple(UnderWay(course.job, course.progress, course.waits_for) for course in courses)

    @property
    def installer(self) -> Installer:
        """Who makes models the current one."""
        return self._shop.installer

    @property
    def has_room(self) -> bool:
        """Whether what operators ask for may begin now."""
        return not self._courses or len(self._courses) < self._shop.settings.training.max_parallel_jobs

    async def begun(self) -> None:
        """Wait until all that was under way before the start is taken up: whatever comes later is installed after what was accepted."""
        with waiting_for("the jobs from before the start to be taken up", at_most_s=LOCK_LIMIT_S):
            await self._begun.wait()

    async def recover(self) -> None:
        """Remove what a crash has left unfinished. To be awaited before `run`."""
        for name in await asyncio.to_thread(remove_debris, self._layout):
            log.info("dataset.debris_removed", dataset=name)

    def reconfigure(self, settings: Settings) -> None:
        """Form the next job with other settings."""
        self._shop.settings = settings
        self._tell_trigger()

    async def run(self) -> Never:
        """Work until cancelled. Workers under way are left running then."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            jobs = await self._call(self._ledger.jobs)
            await stamp_reports(self._layout, jobs)
            unfinished = [job for job in jobs if JobState(job.state) in UNFINISHED]
            # What is accepted is installed before any other is decided about, in the order in which that was accepted.
            for job in sorted(unfinished, key=lambda job: (job.state != JobState.ACCEPTED, job.changed, job.id)):
                self._begin(group, job)
            await asyncio.sleep(0)  # each has taken its first step: what is accepted holds the lock of installing, or waits for it
            self._begun.set()
            group.create_task(self._end_strays([job for job in jobs if JobState(job.state) not in UNFINISHED]), name="end strays")
            while True:
                due = await self._trigger.due()
                async with holding(self._ruling, "an order of an operator, which is being carried out"):
                    self._begin(group, await self._request(due))

    async def cancel(self, job_id: str | None, reason: str) -> str:
        """End a job, its worker and everything that the worker started; by default the only one under way. Says so in a sentence.

        What it was formed of counts as trained on, so the trigger does not begin it anew at once. Done again it is the same as once.

        Raises:
            OperatorError: There is no such job, its training has ended, or it is not clear which one is meant.
        """
        await self.begun()
        async with holding(self._ruling, "another order, which is being carried out"):
            job = find_to_cancel(await self._call(self._ledger.jobs), job_id)
            if job.state == JobState.CANCELLED:
                if job.why == reason:
                    return f"Job {job.id} is cancelled."  # a kill came before it was answered
                raise OperatorError(f"job {job.id} is cancelled already")
            course = self._courses.get(job.id)
            if course is None or course.job.state not in IN_TRAINING:
                raise OperatorError(f"the training of job {job.id} has just ended; see: azaion-daemon train list")
            self._cancelling.add(job.id)
            try:
                left = await self._end(course)
                if course.job.position is None:
                    await course.take_mark()
                now = self._clock()
                cancelled = replace(course.job, state=JobState.CANCELLED, why=reason, changed=now, ended=now)
                await self._space.repeat(lambda: self._call(self._ledger.put_job, cancelled, actor="operator"))
            finally:
                self._cancelling.discard(job.id)
                self._forget(job.id)
            log.info("job.state", job=job.id, state=cancelled.state, before=course.job.state, why=reason)
            return f"Job {job.id} is cancelled{left}."

    async def _end(self, course: Course) -> str:
        """End a course and its worker; what is left of that, as an addition to a sentence."""
        task = self._tasks[course.job.id]
        task.cancel()
        await asyncio.wait([task])
        try:
            await self._shop.workers.cancel(JobDirectory(self._layout.jobs / course.job.id))
        except TrainingError as error:
            log.warning("worker.stray", job=course.job.id, why=str(error))
            return f", but not all of its worker has ended: {error}"
        return ""

    async def overrule(self, job_id: str, decision: Decision, reason: str) -> str:
        """Accept or reject a model against the gate, or where it was left to the operator. Says so in a sentence.

        An accepted model becomes the current one and is released, by the same steps as any other. Done again it is the same as once.

        Raises:
            OperatorError: There is no such job, or its state does not allow it.
        """
        await self.begun()
        async with holding(self._ruling, "another order, which is being carried out"):
            jobs = await self._call(self._ledger.jobs)
            job = next((job for job in jobs if job.id == job_id), None)
            if job is None:
                raise OperatorError(f"there is no job {job_id}. See: azaion-daemon train list --all")
            done = f"Job {job.id} is {decision.value}."
            if decision is Decision.ACCEPTED:
                done = f"Job {job.id} is accepted; its model becomes the current one and is released."
            verdict = job.verdict or {}
            if (verdict.get("by"), verdict.get("decision"), verdict.get("reason")) == ("operator", decision, reason):
                return done  # a kill came before it was answered
            check_overruling(job, decision)
            if decision is Decision.ACCEPTED:
                await self._check_model(job)
            now = self._clock()
            document = {**verdict_document(Verdict(decision, reason), by="operator", time=now), "before": job.verdict}
            state = advance(JobState(job.state), JobState(decision))
            ruled = replace(job, state=state, why=reason, changed=now, verdict=document)
            await self._space.repeat(lambda: self._call(self._ledger.put_job, ruled, actor="operator"))
            await stamp_report(self._layout, ruled)
            log.info("job.judged", job=job.id, decision=decision, why=reason, by="operator")
            log.info("job.state", job=job.id, state=state, before=job.state, why=reason)
            if state is JobState.ACCEPTED and self._group is not None:
                self._begin(self._group, ruled)
            return done

    async def _check_model(self, job: Job) -> None:
        try:
            await asyncio.to_thread(complete_result, JobDirectory(self._layout.jobs / job.id))
        except TrainingError as error:
            raise OperatorError(f"job {job.id} cannot be promoted: {error}") from error

    async def _end_strays(self, ended: Sequence[Job]) -> None:
        """End workers that still live although their jobs have ended: a kill came amid that."""

        def locked() -> list[JobDirectory]:
            directories = [JobDirectory(self._layout.jobs / job.id) for job in ended]
            return [directory for directory in directories if is_locked(directory.lock)]

        for directory in await asyncio.to_thread(locked):
            log.warning("worker.stray", job=directory.path.name, why="its job has ended; it is ended too")
            try:
                await self._shop.workers.cancel(directory)
            except TrainingError as error:
                log.warning("worker.stray", job=directory.path.name, why=str(error))

    async def _request(self, due: Due) -> Job:
        """Record the job that is due."""
        now = self._clock()
        asked = due.requests[0] if due.requests else None
        job = Job(
            await self._new_id(now), JobState.REQUESTED, due.why, now, now, asked=asked is not None,
            trial=asked is not None and asked.trial, epochs=None if asked is None else asked.epochs,
        )  # fmt: skip
        await self._space.repeat(lambda: self._call(self._ledger.due.take_up, job, due.requests))
        log.info("trigger.due", why=due.why, job=job.id)
        return job

    async def _new_id(self, now: float) -> str:
        taken = {job.id for job in await self._call(self._ledger.jobs)}
        stem = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
        return next(id_ for number in range(1, len(taken) + 2) if (id_ := stem if number == 1 else f"{stem}-{number}") not in taken)

    def _begin(self, group: asyncio.TaskGroup, job: Job) -> None:
        course = self._courses[job.id] = Course(job, self._shop)
        self._tell_trigger()
        self._tasks[job.id] = group.create_task(self._follow(course), name=f"job {job.id}")

    async def _follow(self, course: Course) -> None:
        try:
            with strand(f"job {course.job.id}", limit_s=JOB_LIMIT_S):
                await course.run()
        finally:
            # One that is being cancelled is under way until the ledger says so; one that was overruled meanwhile has another course.
            if course.job.id not in self._cancelling and self._courses.get(course.job.id) is course:
                self._forget(course.job.id)

    def _forget(self, job: str) -> None:
        self._courses.pop(job, None)
        self._tasks.pop(job, None)
        self._shop.gpus.give_back(job)
        self._tell_trigger()
        self._after_job()

    def _tell_trigger(self) -> None:
        self._trigger.under_way(tuple(self._courses), room=self.has_room)
