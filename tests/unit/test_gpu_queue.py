"""GPUs for several jobs: none is given twice, and those to avoid are taken only when there are no others."""

from pathlib import Path

import pytest

from azaion_daemon.conducting.gpu_queue import GpuQueue
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.training.gpus import Chosen, Discovery, Gpu, Wait
from azaion_daemon.training.jobs import JobSpec
from tests.unit.test_training_jobs import spec
from tests.unit.test_triggering import settings_of


class Three:
    def discover(self) -> Discovery:
        return Discovery(tuple(Gpu(f"GPU-{number}", "a", 8, 8) for number in (1, 2, 3)))


@pytest.fixture
def queue(tmp_path: Path) -> GpuQueue:
    return GpuQueue(Three(), tmp_path)


def on(*uuids: str) -> Chosen:
    return Chosen(uuids, uuids)


AUTO = settings_of(Path("/azaion")).training.model_copy(update={"gpus": "auto"})


async def test_trainings_on_the_cpu_are_as_many_as_may_run_at_a_time(queue: GpuQueue) -> None:
    cpu = AUTO.model_copy(update={"gpus": "none", "max_parallel_jobs": 2})
    assert await queue.choose(job("A"), cpu, ()) == Chosen((), ("cpu-0",))
    assert await queue.choose(job("B"), cpu, ()) == Chosen((), ("cpu-1",))
    assert isinstance(await queue.choose(job("C"), cpu, ()), Wait)


def job(id_: str, count: int = 1) -> JobSpec:
    return spec(id=id_, gpus=(), gpus_per_job=count)


async def test_what_a_job_was_given_is_not_given_to_another_before_its_worker_has_it(queue: GpuQueue) -> None:
    assert await queue.choose(job("A", 2), AUTO, ()) == on("GPU-1", "GPU-2")
    assert await queue.choose(job("B"), AUTO, ()) == on("GPU-3")
    waits = await queue.choose(job("C"), AUTO, ())
    assert isinstance(waits, Wait)
    assert waits.reason.startswith("0 of 3 GPUs are free, a job takes 1")
    queue.give_back("A")
    queue.give_back("A")
    assert await queue.choose(job("C"), AUTO, ()) == on("GPU-1")
    assert await queue.choose(job("C"), AUTO, ()) == on("GPU-1")  # its own does not hinder it


async def test_what_a_worker_of_a_daemon_before_may_be_about_to_take_is_not_given_away(queue: GpuQueue, tmp_path: Path) -> None:
    queue.take(spec(id="A", gpus=("GPU-1",)))
    with exclusive_lock(tmp_path / "GPU-2.lock", busy="leased"):
        assert await queue.choose(job("B"), AUTO, ()) == on("GPU-3")


async def test_a_gpu_that_failed_is_avoided_where_others_are_free(queue: GpuQueue) -> None:
    assert await queue.choose(job("A"), AUTO, ("GPU-1",)) == on("GPU-2")
    assert await queue.choose(job("B"), AUTO, ("GPU-3",)) == on("GPU-1")
    assert await queue.choose(job("C"), AUTO, ("GPU-3",)) == on("GPU-3")  # better than none
