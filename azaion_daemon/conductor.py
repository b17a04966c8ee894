"""Which jobs run: those that a stop or a kill has left unfinished, each taken up at its state, and those that come due.

What the trigger finds due runs alone; what operators ask for may run beside it, as far as `training.max_parallel_jobs` goes. Each job has a
task of its own (see `courses`). Recovery is the same code as normal work.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Never

from azaion_daemon.courses import UNFINISHED, Course, Workshop
from azaion_daemon.dataset.snapshot import remove_debris
from azaion_daemon.forming import DatasetFormer
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.installing import Installer
from azaion_daemon.judging import Judge
from azaion_daemon.logs import get_logger
from azaion_daemon.settings import Settings
from azaion_daemon.stamping import stamp_reports
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Job
from azaion_daemon.training.gpus import Gpus
from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import JobSpec, JobState, Progress
from azaion_daemon.training.pool import WorkerPool
from azaion_daemon.training.retry import Again, GiveUp
from azaion_daemon.training.retry import decide as decide_retry
from azaion_daemon.triggering import Trigger

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
        retry: Callable[[JobSpec, Sequence[Attempt]], Again | GiveUp] = decide_retry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shop = Workshop(
            settings, layout, ledger, pipeline.space, former, trigger.digest_of, workers, gpus, judge,
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

    @property
    def under_way(self) -> tuple[UnderWay, ...]:
        """The jobs that are under way, the oldest first."""
        courses = sorted(self._courses.values(), key=lambda course: (course.job.created, course.job.id))
        return tuple(UnderWay(course.job, course.progress, course.waits_for) for course in courses)

    @property
    def installer(self) -> Installer:
        """Who makes models the current one."""
        return self._shop.installer

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
        async with asyncio.TaskGroup() as tasks:
            jobs = await self._call(self._ledger.jobs)
            await stamp_reports(self._layout, jobs)
            unfinished = [job for job in jobs if JobState(job.state) in UNFINISHED]
            # What is accepted is installed before any other is decided about, in the order in which that was accepted.
            for job in sorted(unfinished, key=lambda job: (job.state != JobState.ACCEPTED, job.changed, job.id)):
                self._begin(tasks, job)
            while True:
                self._begin(tasks, await self._due())

    async def _due(self) -> Job:
        """Wait until a training is due, and request it."""
        due = await self._trigger.due()
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

    def _begin(self, tasks: asyncio.TaskGroup, job: Job) -> None:
        course = self._courses[job.id] = Course(job, self._shop)
        self._tell_trigger()
        tasks.create_task(self._follow(course), name=f"job {job.id}")

    async def _follow(self, course: Course) -> None:
        try:
            await course.run()
        finally:
            del self._courses[course.job.id]
            self._tell_trigger()
            self._after_job()

    def _tell_trigger(self) -> None:
        room = len(self._courses) < self._shop.settings.training.max_parallel_jobs
        self._trigger.under_way(tuple(self._courses), room=room)
