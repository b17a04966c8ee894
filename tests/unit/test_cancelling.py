"""A job is cancelled at any moment of its training: its worker ends, and the trigger does not begin it anew."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from azaion_daemon.errors import DiskFullError, OperatorError
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Job
from azaion_daemon.training.gpus import Discovery, Gpu
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.outcomes import Outcome
from tests.unit.test_courses import HELD, halving, judging, parallel, until_running
from tests.unit.test_triggering import MEDIA, NIGHT, Site, layout, settings_of, site

__all__ = ["layout"]


@pytest.fixture
def settings(layout: Layout) -> Settings:
    return settings_of(layout.root)


async def assert_cancelled(one: Site, reason: str = "wrong settings") -> Job:
    said = await one.conductor.cancel(None, reason)
    (job,) = await one.until_states("cancelled")
    assert said == f"Job {job.id} is cancelled."
    assert (job.why, job.judged, job.position, job.ended is not None) == (reason, False, MEDIA + 1, True)
    await one.until_why("wait because 0 annotations are new, changed or gone since the last training")
    await asyncio.sleep(0.05)
    assert len(await one.jobs()) == 1
    assert one.conductor.under_way == ()
    assert one.released == []
    return job


class NoRoom(Ledger):
    """Has no room for what a job becomes after it was requested."""

    def put_job(self, job: Job, **others: Any) -> None:
        if job.state == "forming":
            raise DiskFullError("recording the job: no space")
        super().put_job(job, **others)


async def test_when_it_was_just_requested(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings, ledger=NoRoom(layout.ledger, clock=lambda: NIGHT)) as one:
        await one.change()
        await one.until_states("requested")

        async def waits() -> bool:
            return any("no space" in str(way.waits_for) for way in one.conductor.under_way)

        await one.until(waits)
        await assert_cancelled(one)


async def test_while_its_dataset_is_formed_and_that_is_given_up(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings) as one:
        async with one.pipeline.still():
            await one.change()
            await one.until_states("forming")
            await assert_cancelled(one)
        assert list(layout.datasets.iterdir()) == []
        async with one.pipeline.still():  # nobody holds the tree
            pass


async def test_while_it_waits_for_a_gpu(layout: Layout) -> None:
    absent = settings_of(layout.root, training={"gpus": ["GPU-absent"]})
    async with site(layout, absent) as one:
        await one.change()
        await one.until_states("queued")

        async def waits() -> bool:
            return any("GPU-absent" in str(way.waits_for) for way in one.conductor.under_way)

        await one.until(waits)
        job = await assert_cancelled(one)
        assert one.worker.specs == []
        with pytest.raises(OperatorError, match="no job is under way"):
            await one.conductor.cancel(None, "again")
        with pytest.raises(OperatorError, match="is cancelled already"):
            await one.conductor.cancel(job.id, "for another reason")
        assert await one.conductor.cancel(job.id, "wrong settings") == f"Job {job.id} is cancelled."  # the request again, after a kill


async def test_while_its_worker_runs(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        job = await assert_cancelled(one)
        assert one.worker.ended == [JobDirectory(layout.jobs / job.id).path]


class OneGpu:
    def discover(self) -> Discovery:
        return Discovery((Gpu("GPU-1", "a", 8, 8),))


async def test_a_gpu_that_it_had_is_free_for_the_next_job(layout: Layout) -> None:
    auto = settings_of(layout.root, training={"gpus": "auto", "max_parallel_jobs": 2})
    async with site(layout, auto, gpus=OneGpu()) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        await one.ask()
        first, second = await one.until_states("running", "queued")
        await one.conductor.cancel(first.id, "r")
        await one.conductor.cancel(second.id, "r")  # it looks again in half a minute only
        await one.ask("again")
        await until_running(one, 2)
        assert [spec.gpus for spec in one.worker.specs] == [("GPU-1",), ("GPU-1",)]
        one.worker.may_end.set()


async def test_in_the_pause_before_it_is_tried_again(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings, retry=halving) as one:
        one.worker.outcomes = [Outcome.OUT_OF_MEMORY]
        await one.change()

        async def pauses() -> bool:
            return any("pause" in str(way.waits_for) for way in one.conductor.under_way)

        await one.until(pauses)
        await assert_cancelled(one)
        assert len(one.worker.specs) == 1


async def test_after_a_restart_too(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
    async with site(layout, settings) as one:
        one.worker.may_end.clear()
        await assert_cancelled(one)


async def test_of_several_one_is_named_and_the_others_go_on(layout: Layout) -> None:
    async with site(layout, parallel(layout, 2)) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        await one.ask()
        await until_running(one, 2)
        first, second = await one.jobs()
        with pytest.raises(OperatorError, match=f"say which: {first.id}, {second.id}"):
            await one.conductor.cancel(None, "r")
        await one.conductor.cancel(second.id, "r")
        one.worker.may_end.set()
        await one.until_states("releasing", "cancelled")


async def test_a_training_that_has_ended_is_not_cancelled(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings, judge=judging(HELD)) as one:
        await one.change()
        (job,) = await one.until_states("held")
        with pytest.raises(
            OperatorError, match=f"is held: its training has ended. Reject its model with: azaion-daemon model reject {job.id}"
        ):
            await one.conductor.cancel(job.id, "r")
        await one.call(one.call.ledger.put_job, replace(job, state="released"))
        with pytest.raises(OperatorError, match="has ended: it is released"):
            await one.conductor.cancel(job.id, "r")
        with pytest.raises(OperatorError, match="there is no job X"):
            await one.conductor.cancel("X", "r")


async def test_what_changes_after_the_snapshot_of_a_cancelled_job_counts(layout: Layout, settings: Settings) -> None:
    async with site(layout, settings) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        await one.change()
        await one.conductor.cancel(None, "r")
        one.worker.may_end.set()
        await one.until_states("cancelled", "releasing")
