"""The moment to train, waited for: events and a driven clock, restarts, one job at a time, and what a job's end means for the next."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.conducting.conductor import Conductor
from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.conducting.judging import Judge
from azaion_daemon.conducting.triggering import Trigger
from azaion_daemon.dataset.classes import load_classes
from azaion_daemon.errors import DiskFullError
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.settings import Settings
from azaion_daemon.store.due import DueRecord, DueTables, TrainingRequest
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Job, Position
from azaion_daemon.training.evaluation import Evaluation, Metrics
from azaion_daemon.training.gpus import Discovery, Gpus
from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec, ModelFile, Progress
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.pool import WorkerPool
from azaion_daemon.training.report_verdict import pending
from azaion_daemon.training.retry import Again, GiveUp, decide
from tests.unit.builders import SMALL, make_root, put_files, row

NIGHT = datetime(2026, 3, 4, 1, 59, 58, tzinfo=UTC).timestamp()
"""Two seconds before two o'clock."""
MEDIA = 12


class Worker(WorkerPool):
    """Ends as it is told to, with a model when that is well, without training for hours."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[Outcome] = []
        self.attempts = 0
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.specs: list[JobSpec] = []
        """What it was started with, each time."""
        self.ended: list[Path] = []
        """The jobs of which workers were ended."""

    @property
    def epochs(self) -> list[int]:
        return [spec.epochs for spec in self.specs]

    async def run(self, job: JobDirectory, on_progress: Callable[[Progress], None] = lambda _: None) -> JobResult:
        if (earlier := job.read_result()) is not None:
            return earlier
        self.specs.append(job.read_spec())
        self.started.set()
        await self.may_end.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome.DONE
        files: dict[str, Any] = {}
        for kind, path in (("pt", job.pt), ("onnx", job.onnx)):
            path.write_text(f"{kind} of {job.path.name}")
            files[kind] = ModelFile(path=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size_bytes=path.stat().st_size)
        job.report.write_text(pending(trial=False))
        metrics = Metrics(images=1, instances=1, map50=0.5, map50_95=0.5, classes=())
        comparison = job.read_comparison()
        rival = None if comparison is None or comparison.rival is None else comparison.rival.sha256
        evaluation = Evaluation(rival=rival, images=1000, digest="", candidate=metrics, current=None if rival is None else metrics)
        result = JobResult(
            outcome=outcome,
            reason="so it is told",
            metrics=metrics,
            evaluation=evaluation,
            attempts=self.attempts,
            finished=datetime.now(UTC),
            **files,
        )
        if outcome is not Outcome.INFRASTRUCTURE:  # as one that was killed
            job.write_result(result)
        return result

    async def cancel(self, job: JobDirectory) -> None:
        self.ended.append(job.path)


def at_once(spec: JobSpec, attempts: Sequence[Attempt]) -> Again | GiveUp:
    """As it is decided, without the pause."""
    decided = decide(spec, attempts)
    return replace(decided, pause_s=0.0) if isinstance(decided, Again) else decided


class NoGpus:
    def discover(self) -> Discovery:
        return Discovery()


def settings_of(root: Path, *, epochs: int = 1, training: Mapping[str, Any] | None = None, **trigger: Any) -> Settings:
    return Settings.model_validate(
        {
            "api": {"url": "http://h", "email": "e", "password": "p"},
            "stream": {"host": "h", "port": 1, "user": "u", "password": "p", "name": "s"},
            "directories": {"root": root, "data": "data", "data_seed": "data-seed", "data_deleted": "data_deleted"},
            "ingest": {"min_free_disk": 0},
            "dataset": SMALL.model_dump(),
            "training": {
                "model": "m.yaml",
                "epochs": epochs,
                "batch_size": 8,
                "imgsz": 64,
                "save_period": 1,
                "workers": 0,
                "gpus": "none",
                **(training or {}),
            },
            "export": {"imgsz": 64},
            "trigger": {"new_annotations": MEDIA, "min_total": 1, "quiet_minutes": 0, "cooldown_hours": 0, **trigger},
        }
    )


class Site:
    """The part of a daemon that trains, over a real root."""

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        clock: Callable[[], float],
        ledger: Ledger,
        pause_s: float,
        *,
        retry: Callable[[JobSpec, Sequence[Attempt]], Again | GiveUp],
        judge: Callable[[LedgerThread], Judge] | None,
        gpus: Gpus,
    ) -> None:
        self.layout = layout
        self.call = LedgerThread(ledger)
        self.clock = clock
        self.pipeline = Pipeline("s", settings.ingest, layout, self.call, Inbox(1 << 20), known_classes=frozenset(range(5)))
        digester = Digester(layout, self.call, self.pipeline)
        classes = load_classes(layout.classes)
        former = DatasetFormer(layout, classes, self.call, digester, stream="s", clock=clock)
        self.trigger = Trigger(settings, layout, classes, self.call, self.pipeline.state, pause_s=pause_s, clock=clock)
        self.worker = Worker()
        self.released: list[str] = []
        self.conductor = Conductor(
            settings, layout, self.call, self.pipeline, former, self.trigger, workers=self.worker, gpus=gpus,
            judge=Judge(settings, layout, self.call, clock=clock) if judge is None else judge(self.call),
            order_release=self._release, retry=retry, clock=clock,
        )  # fmt: skip
        self._offset = MEDIA

    async def _release(self, sha256: str) -> None:
        self.released.append(sha256)

    async def change(self, number: int = MEDIA) -> None:
        """A message changes so many annotations, one of each media."""
        mark = await self.call(self.call.ledger.due.mark)
        self._offset = max(self._offset, mark.position) + 1
        rows = [
            row(Home.VALIDATED, name=f"{index:02}", media=f"{index}.mp4", position=self._offset, validated_position=self._offset)
            for index in range(number)
        ]
        await self.call(self.call.ledger.commit_batch, "s", Position(self._offset, b"d"), rows)
        self.pipeline.state.changed.set()

    async def ask(self, id_: str = "r", reason: str = "new camera", *, trial: bool = False, epochs: int | None = None) -> None:
        await self.trigger.ask(TrainingRequest(id_, self.clock(), reason, trial, epochs))

    def reconfigure(self, settings: Settings) -> None:
        self.trigger.reconfigure(settings)
        self.conductor.reconfigure(settings)

    async def jobs(self) -> list[Job]:
        return await self.call(self.call.ledger.jobs)

    async def schedules(self, number: int) -> bool:
        """Whether the ledger remembers so many."""
        db = self.call.ledger._db
        (found,) = await self.call(lambda: db.execute("SELECT count(*) FROM schedule").fetchone())
        return bool(found == number)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(20):
            while not await condition():  # noqa: ASYNC110 - of the ledger
                await asyncio.sleep(0.01)

    async def until_states(self, *states: str) -> list[Job]:
        async def reached() -> bool:
            return [job.state for job in await self.jobs()] == [*states]

        await self.until(reached)
        return await self.jobs()

    async def until_why(self, text: str) -> str:
        async def said() -> bool:
            return text in self.trigger.decision.why

        await self.until(said)
        return self.trigger.decision.why


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = make_root(tmp_path / "azaion")
    made.classes.write_text(json.dumps([{"Id": number, "Name": f"Class{number}"} for number in range(5)]))
    rows = [row(Home.VALIDATED, name=f"{index:02}", media=f"{index}.mp4") for index in range(MEDIA)]
    put_files(made, *rows)
    return made


@asynccontextmanager
async def site(
    layout: Layout,
    settings: Settings,
    clock: Callable[[], float] = lambda: NIGHT,
    *,
    ledger: Ledger | None = None,
    pause_s: float = 0.02,
    retry: Callable[[JobSpec, Sequence[Attempt]], Again | GiveUp] = at_once,
    judge: Callable[[LedgerThread], Judge] | None = None,
    gpus: Gpus | None = None,
) -> AsyncIterator[Site]:
    """A daemon's life, from its start to a kill."""
    one = Site(
        layout, settings, clock, ledger or Ledger(layout.ledger, clock=clock), pause_s, retry=retry, judge=judge, gpus=gpus or NoGpus()
    )
    one.pipeline.state.counts = {home: MEDIA if home is Home.VALIDATED else 0 for home in Home}
    await one.conductor.recover()
    tasks = [asyncio.create_task(part.run()) for part in (one.trigger, one.conductor)]
    try:
        yield one
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        one.pipeline.close()
        one.call.close()
        assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []


@pytest.fixture
def settings(layout: Layout) -> Settings:
    return settings_of(layout.root)


async def test_enough_changes_become_a_job_and_what_it_was_formed_of_is_judged(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings) as one:
        await one.until_why(f"0 annotations are new, changed or gone since the last training, {MEDIA} are validated")
        await one.change()
        (job,) = await one.until_states("releasing")
        assert job.reason.startswith(f"train now because {MEDIA} annotations are new, changed or gone since the last training")
        assert (job.judged, job.position, job.blame) == (True, MEDIA + 1, None)
        assert job.ended is not None
        assert len(one.released) == 1
        await one.until_why("wait because 0 annotations are")


async def test_what_comes_due_while_a_job_is_under_way_fires_after_it(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings) as one:
        one.worker.may_end.clear()
        await one.change()
        await one.worker.started.wait()
        (job,) = await one.jobs()
        await one.change()
        await one.ask()
        await one.until_why(f"wait because job {job.id} is under way; what was asked for follows; {MEDIA} annotations are new")
        assert len(await one.jobs()) == 1
        one.worker.may_end.set()
        _, second = await one.until_states("releasing", "releasing")
        assert "an operator asked for it (new camera)" in second.reason


async def test_a_request_needs_nothing_else_and_is_done_once(layout: Layout, settings: Settings) -> None:
    never = settings_of(layout.root, new_annotations=None, min_total=10**6, cooldown_hours=100)
    async with site(layout, never) as one:
        await one.change(MEDIA)
        for number in range(2):
            await one.ask(f"{number}")
            await one.until_states(*["releasing"] * (number + 1))
            await one.ask(f"{number}")
        await asyncio.sleep(0.1)
        assert len(await one.jobs()) == 2


async def test_a_kill_between_requested_and_formed_neither_loses_a_request_nor_fires_twice(layout: Layout, settings: Settings) -> None:
    never = settings_of(layout.root, new_annotations=None)
    async with site(layout, never) as one:
        await one.change()
        one.worker.may_end.clear()
        async with one.pipeline.still():  # forming waits
            await one.ask()
            await one.until_states("forming")
    async with site(layout, never) as one:
        await one.ask()  # the command's file is still there
        (job,) = await one.until_states("releasing")
        assert "new camera" in job.reason
        await asyncio.sleep(0.05)
        assert len(await one.jobs()) == 1


async def test_a_bad_job_is_not_repeated_until_its_settings_change(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings) as one:
        one.worker.outcomes = [Outcome.BAD_JOB]
        await one.change()
        (job,) = await one.until_states("failed")
        assert (job.blame, job.judged) == ("settings", False)
        await one.until_why("failed (bad_job: so it is told), and neither annotations nor settings have changed since")
    async with site(layout, settings) as one:
        await one.until_why("neither annotations nor settings have changed since")
        one.reconfigure(settings_of(layout.root, epochs=2, quiet_minutes=60))
        await asyncio.sleep(0.05)
        one.reconfigure(settings_of(layout.root, epochs=3))
        await one.until_states("failed", "releasing")
        assert one.worker.epochs == [3]


async def test_data_that_cannot_be_trained_on_is_waited_with_until_it_changes(layout: Layout, settings: Settings) -> None:
    now = NIGHT
    async with site(layout, settings_of(layout.root, new_annotations=1, min_total=1), lambda: now) as one:
        await one.change(1)
        (job,) = await one.until_states("failed")
        assert job.blame == "data"
        await one.until_why("neither annotations nor settings have changed since")
        await one.change()
        await one.until_why("is not tried again before 2026-03-04 02:04 UTC; 12 annotations are new, changed or gone since")
        now += 300
        one.reconfigure(settings_of(layout.root, new_annotations=1, min_total=1))
        await one.until_states("failed", "releasing")
        await one.until_why("0 annotations are")


async def test_a_failed_job_is_tried_again_for_other_settings_that_may_cure_it_and_for_new_weights(
    layout: Layout, settings: Settings
) -> None:
    async with site(layout, settings) as one:
        before = await one.trigger.digest_of(settings)
        assert before == await one.trigger.digest_of(settings_of(layout.root, quiet_minutes=3))
        more = settings_of(layout.root, training={"max_attempts": 9, "max_parallel_jobs": 2, "nice": 1})
        assert before == await one.trigger.digest_of(more)
        for cure in ({"gpus": ["GPU-larger"]}, {"gpus_per_job": 2}, {"epochs": 3}):
            assert before != await one.trigger.digest_of(settings_of(layout.root, training=cure))
        (layout.models / "m.yaml").write_text("weights")
        assert before != await one.trigger.digest_of(settings)


async def test_what_failed_for_the_machine_is_tried_again_by_itself(layout: Layout, settings: Settings) -> None:
    now = NIGHT
    async with site(layout, settings, lambda: now) as one:
        one.worker.outcomes = [Outcome.INFRASTRUCTURE] * 5
        await one.change()
        (job,) = await one.until_states("failed")
        assert job.blame == "infrastructure"
        await one.until_why("it is tried again 2026-03-04 02:04 UTC")
    now += 301
    async with site(layout, settings, lambda: now) as one:
        _, again = await one.until_states("failed", "releasing")
        assert "for a cause that may have passed" in again.reason


# Time


async def test_the_schedule_wakes_it(layout: Layout) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    nightly = settings_of(layout.root, new_annotations=None, schedule="0 2 * * *")
    async with site(layout, nightly, lambda: NIGHT + loop.time() - began) as one:
        await one.change(MEDIA)
        await one.until_why("wait because neither the schedule")
        (job,) = await one.until_states("releasing")
        assert "the schedule 0 2 * * * (UTC) says so" in job.reason
        assert 1.9 < loop.time() - began < 10
        await asyncio.sleep(0.1)
        assert one.trigger.next_schedule() == NIGHT + 2 + 86400


async def test_a_downtime_over_many_scheduled_times_is_made_up_for_once(layout: Layout) -> None:
    now = NIGHT
    hourly = settings_of(layout.root, new_annotations=None, schedule="0 * * * *")
    async with site(layout, hourly, lambda: now) as one:
        await one.until_why("neither the schedule")
    now += 10 * 86400
    async with site(layout, hourly, lambda: now) as one:
        await one.until_why("neither the schedule")
        await one.change()
        (job,) = await one.until_states("releasing")
        assert "the schedule 0 * * * * (UTC) was missed while the daemon was not running" in job.reason
        await one.change()
        await one.until_why("neither the schedule")
    async with site(layout, hourly, lambda: now) as one:
        await one.until_why("neither the schedule")
        assert len(await one.jobs()) == 1


async def test_a_schedule_that_is_given_while_it_runs_begins_then(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root, new_annotations=None)) as one:
        await one.change()
        await one.until_why("neither the schedule")
        one.reconfigure(settings_of(layout.root, new_annotations=None, schedule="* * * * *"))
        await asyncio.sleep(0.1)
        assert await one.jobs() == []


async def test_a_schedule_that_is_taken_away_and_given_again_begins_anew(layout: Layout) -> None:
    now = NIGHT
    without = settings_of(layout.root, new_annotations=None)
    nightly = settings_of(layout.root, new_annotations=None, schedule="0 2 * * *")
    async with site(layout, nightly, lambda: now) as one:
        await one.change()
        await one.until_why("neither the schedule")
        one.reconfigure(without)
        await one.until(lambda: one.schedules(0))
        now += 5 * 86400
        one.reconfigure(nightly)
        await one.until(lambda: one.schedules(1))
        await asyncio.sleep(0.1)
        assert await one.jobs() == []


async def test_after_a_downtime_changes_from_before_it_are_not_trained_on_at_once(layout: Layout) -> None:
    now = NIGHT
    patient = settings_of(layout.root, quiet_minutes=10, max_wait_hours=100)
    async with site(layout, patient, lambda: now) as one:
        await one.change()
        await one.until_why("the last change came 2026-03-04 01:59 UTC")
    now += 86400
    async with site(layout, patient, lambda: now) as one:
        await one.until_why("the daemon started 2026-03-05 01:59 UTC: what came meanwhile is taken in")
        now += 300
        await one.change()  # the backlog
        await one.until_why("the last change came 2026-03-05 02:04 UTC")
        now += 600
        one.reconfigure(patient)
        await one.until_states("releasing")


async def test_a_clock_that_is_set_back_by_a_year_delays_nothing_by_more_than_its_own_wait(layout: Layout) -> None:
    now = NIGHT
    waiting = settings_of(layout.root, new_annotations=1, quiet_minutes=10, cooldown_hours=1)
    async with site(layout, waiting, lambda: now) as one:
        await one.ask()
        await one.change()
        await one.until_states("releasing")
        await one.change()
    now -= 365 * 86400
    async with site(layout, waiting, lambda: now) as one:
        await one.until_why("and 1 h must lie between two")
        now += 3600
        one.reconfigure(waiting)
        await one.until_states("releasing", "releasing")


async def test_a_clock_that_was_set_forward_and_back_does_not_fire_a_schedule_twice(layout: Layout) -> None:
    now = NIGHT
    nightly = settings_of(layout.root, new_annotations=None, schedule="0 2 * * *")
    async with site(layout, nightly, lambda: now) as one:
        await one.change()
        await one.until_why("neither the schedule")
        now = NIGHT + 400 * 86400
        one.reconfigure(nightly)
        await one.until_states("releasing")
        await one.change()
        now = NIGHT + 3600
        for _ in range(3):
            one.reconfigure(nightly)
            await asyncio.sleep(0.02)
        assert len(await one.jobs()) == 1
        assert one.trigger.next_schedule() == NIGHT + 2 + 86400


async def test_changes_that_never_pause_are_looked_at_once_a_second(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings_of(layout.root, new_annotations=10**6), pause_s=1.0) as one:
        await one.until_why("0 annotations are")
        looks = [one.trigger.facts]
        for _ in range(50):
            await one.change(1)
            await asyncio.sleep(0.01)
            if one.trigger.facts is not looks[-1]:
                looks.append(one.trigger.facts)
        assert len(looks) <= 2
        await one.until_why("1 annotation is")


class FullTables(DueTables):
    """On a disk that is full for the first looks."""

    full = True

    def record(self, schedule: str) -> DueRecord:
        if self.full:
            raise DiskFullError("recording: no space")
        return super().record(schedule)


async def test_a_full_disk_is_said_and_looked_past(layout: Layout, settings: Settings) -> None:
    ledger = Ledger(layout.ledger, clock=lambda: NIGHT)
    ledger.due = tables = FullTables(ledger._db, lambda: NIGHT)
    async with site(layout, settings, ledger=ledger) as one:
        assert (await one.until_why("no space")).startswith("wait because recording: no space")
        await one.change()
        tables.full = False
        one.reconfigure(settings)
        await one.until_states("releasing")


async def test_jobs_are_kept_as_they_are_recorded(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings) as one:
        await one.change()
        (job,) = await one.until_states("releasing")
        again = replace(job, state="released")
        await one.call(one.call.ledger.put_job, again)
        assert await one.jobs() == [again]
