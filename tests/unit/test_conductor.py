"""A job's way from its dataset to its model, past what may be missing for a while."""

from typing import Any

import pytest

from azaion_daemon.errors import DiskFullError
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Model
from azaion_daemon.training.jobs import JobDirectory, JobResult
from azaion_daemon.training.outcomes import Outcome
from tests.unit.test_triggering import NIGHT, Worker, layout, settings_of, site

__all__ = ["layout"]


def with_dataset(layout: Layout, **dataset: Any) -> Any:
    settings = settings_of(layout.root)
    return settings.model_copy(update={"dataset": settings.dataset.model_copy(update=dataset)})


async def test_a_worker_that_dies_before_it_says_anything_is_not_started_for_ever(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root)) as one:
        one.worker.outcomes, one.worker.attempts = [Outcome.INFRASTRUCTURE] * 100, 0
        await one.change()
        (job,) = await one.until_states("failed")
        assert (job.blame, len(one.worker.epochs)) == ("infrastructure", 5)


async def test_too_little_disk_is_the_machines_fault_and_passes_by_itself(layout: Layout) -> None:
    now = NIGHT
    async with site(layout, with_dataset(layout, min_free_disk=1 << 60), lambda: now) as one:
        await one.change()
        (job,) = await one.until_states("failed")
        assert job.blame == "infrastructure"
        assert "too_little_disk" in str(job.why)
    now += 301
    async with site(layout, settings_of(layout.root), lambda: now) as one:
        await one.until_states("failed", "releasing")


class Full(Ledger):
    """Has no room for a model at first."""

    times = 2

    def put_current_model(self, model: Model, *, why: str = "", actor: str = "daemon") -> None:
        if type(self).times:
            type(self).times -= 1
            raise DiskFullError("recording the model: no space")
        super().put_current_model(model, why=why, actor=actor)


async def test_a_disk_that_is_full_when_a_model_is_installed_costs_no_training(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.ingest.space._POLL_S", 0.01)
    async with site(layout, settings_of(layout.root), ledger=Full(layout.ledger, clock=lambda: NIGHT)) as one:
        await one.change()
        (job,) = await one.until_states("releasing")
        assert (job.judged, one.worker.epochs, len(one.released), Full.times) == (True, [1], 1, 0)


async def test_a_disk_that_is_full_when_a_worker_is_started_costs_no_training(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.conducting.courses._NO_SPACE_S", 0.01)
    start, full = Worker.run, 2

    async def run(worker: Worker, job: JobDirectory, on_progress: Any) -> JobResult:
        nonlocal full
        if full:
            full -= 1
            raise DiskFullError("starting a worker: no space")
        return await start(worker, job, on_progress)

    monkeypatch.setattr(Worker, "run", run)
    async with site(layout, settings_of(layout.root)) as one:
        await one.change()
        await one.until_states("releasing")
        assert (full, one.worker.ended) == (0, [])


async def test_a_job_that_waits_for_a_gpu_keeps_its_dataset_over_restarts(layout: Layout) -> None:
    settings = settings_of(layout.root)
    absent = settings.model_copy(update={"training": settings.training.model_copy(update={"gpus": ("GPU-absent",)})})
    for _ in range(2):
        async with site(layout, absent) as one:
            if not await one.jobs():
                await one.change()
            await one.until_states("queued")
            assert one.worker.epochs == []
    async with site(layout, settings) as one:
        (job,) = await one.until_states("releasing")
        assert [path.name for path in layout.datasets.iterdir()] == [job.dataset]
        assert JobDirectory(layout.jobs / job.id).read_spec().gpus == ()


async def test_a_reload_while_a_dataset_is_formed_may_cure_what_that_fails_for(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    cured = settings_of(layout.root)
    async with site(layout, with_dataset(layout, min_images=1000)) as one:
        former = one.conductor._shop.former
        form = former.form

        async def reloaded_meanwhile(*arguments: Any, **options: Any) -> Any:
            one.reconfigure(cured)
            return await form(*arguments, **options)

        monkeypatch.setattr(former, "form", reloaded_meanwhile)
        await one.change()
        failed, _ = await one.until_states("failed", "releasing")
        assert "too_few_images" in str(failed.why)
