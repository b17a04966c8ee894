"""GPUs in the status: which job has which, and drivers that hang or stumble."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from azaion_daemon.ops.job_status import GpuWatch
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.gpus import Discovery, Gpu, GpuProcess
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from tests.unit.builders import make_root

TWO = Discovery((Gpu("GPU-a", "H100", 80, 40, (GpuProcess(77),)), Gpu("GPU-b", "H100", 80, 80)))


class Driver:
    def __init__(self, find: Callable[[], Discovery]) -> None:
        self.discover = find


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = make_root(tmp_path / "azaion")
    made.gpu_locks.mkdir(parents=True, exist_ok=True)
    JobDirectory(made.jobs / "J").create(
        JobSpec(
            id="J", dataset_id="d", dataset_name="n", data_yaml=Path("/d"), class_names=("car",), model="m.yaml", epochs=10,
            batch_size=1, imgsz=64, save_period=1, workers=0, export_imgsz=64, gpu_locks=made.gpu_locks, gpus=("GPU-a", "GPU-b"),
        )
    )  # fmt: skip
    return made


@asynccontextmanager
async def watching(layout: Layout, find: Callable[[], Discovery]) -> AsyncIterator[GpuWatch]:
    watch = GpuWatch(Driver(find), layout, lambda: ["J", "not formed yet"], period_s=0.01, patience_s=0.05)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of the watch
            await asyncio.sleep(0.01)


async def test_a_gpu_is_a_jobs_as_long_as_its_worker_has_the_lease(layout: Layout) -> None:
    with exclusive_lock(layout.gpu_locks / "GPU-a.lock", busy="busy"):
        async with watching(layout, lambda: TWO) as watch:
            await until(lambda: bool(watch.documents))
            found = [(one["uuid"], one["leased"], one["job"], one["memory_free_bytes"]) for one in watch.documents]
            assert found == [("GPU-a", True, "J", 40), ("GPU-b", False, None, 80)]
            assert watch.problem is None


async def test_a_driver_that_stumbles_or_is_broken_is_said_and_comes_back(layout: Layout) -> None:
    answers: list[Exception | Discovery] = [UnicodeDecodeError("utf-8", b"", 0, 1, "a name"), Discovery(broken="it fell off the bus")]

    def find() -> Discovery:
        answer = answers[0] if answers else TWO
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with watching(layout, find) as watch:
        await until(lambda: "cannot be looked at" in str(watch.problem))
        answers.pop(0)
        await until(lambda: watch.problem == "it fell off the bus")
        answers.pop(0)
        await until(lambda: watch.problem is None and len(watch.documents) == 2)


async def test_a_driver_that_hangs_is_said_and_waited_for_by_nobody(layout: Layout) -> None:
    answer = threading.Event()

    def find() -> Discovery:
        answer.wait(30)
        return TWO

    async with watching(layout, find) as watch:
        await until(lambda: "does not answer" in str(watch.problem))
        assert len([thread for thread in threading.enumerate() if thread.name == "gpus"]) == 1
        answer.set()
        await until(lambda: watch.problem is None and len(watch.documents) == 2)
