"""Each epoch is logged once, however fast they come; those from before are summed up."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from blockbuster import BlockBuster

from azaion_daemon.conducting.following import EpochLog
from azaion_daemon.training.history import EpochRecord
from azaion_daemon.training.jobs import JobDirectory, JobSpec


@pytest.fixture
def job(tmp_path: Path) -> JobDirectory:
    directory = JobDirectory(tmp_path / "job-1")
    directory.create(
        JobSpec(
            id="job-1", dataset_id="d", dataset_name="n", data_yaml=Path("/d"), class_names=("car",), model="m.yaml", epochs=10,
            batch_size=1, imgsz=64, save_period=1, workers=0, export_imgsz=64, gpu_locks=Path("/l"),
        )
    )  # fmt: skip
    return directory


def line(epoch: int, attempt: int = 1, seconds: float = 2.0) -> bytes:
    record = EpochRecord(
        epoch=epoch, attempt=attempt, finished=datetime.now(UTC), seconds=seconds, losses={"box": 1.0}, val_losses={"box": None}, map50=0.5,
    )  # fmt: skip
    return record.model_dump_json().encode() + b"\n"


async def add(job: JobDirectory, content: bytes) -> None:
    def append() -> None:
        with (job.path / "epochs.jsonl").open("ab") as file:
            file.write(content)

    await asyncio.to_thread(append)


async def until(logs: list[Any], number: int) -> None:
    async with asyncio.timeout(10):
        while len(logs) < number:  # noqa: ASYNC110 - of the log
            await asyncio.sleep(0.01)


async def test_fast_epochs_and_the_last_one_are_logged_each_once(job: JobDirectory, no_blocking_calls: BlockBuster) -> None:
    with structlog.testing.capture_logs() as logs:
        async with EpochLog(job) as epochs:
            await add(job, line(1, seconds=2.0) + line(2, seconds=4.0))
            epochs.tell()
            await until(logs, 2)
            epochs.tell()
            await add(job, line(3, seconds=6.0) + b'{"epoch": 4, "att')  # torn, or being written
            epochs.tell()
            await until(logs, 3)
            await add(job, b'empt": 1')
        assert [(one["event"], one["epoch"], one["epochs"], one["remaining_s"]) for one in logs] == [
            ("worker.epoch", 1, 10, 18),
            ("worker.epoch", 2, 10, 24),
            ("worker.epoch", 3, 10, 28),
        ]
        assert (
            logs[0].items() >= {"job": "job-1", "losses": {"box": 1.0}, "val_losses": {"box": None}, "map50": 0.5, "seconds": 2.0}.items()
        )


async def test_a_cancellation_that_comes_while_it_is_left_is_not_swallowed(job: JobDirectory) -> None:
    entered, may_leave = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        async with EpochLog(job):
            entered.set()
            await may_leave.wait()

    task = asyncio.create_task(work())
    await entered.wait()
    may_leave.set()
    await asyncio.sleep(0)  # it waits for its own task now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_ended_when_nobody_was_told_is_logged_at_the_end(job: JobDirectory) -> None:
    with structlog.testing.capture_logs() as logs:
        with suppress(ValueError):
            async with EpochLog(job):
                await add(job, line(1))
                raise ValueError("whatever")
        assert [(one["event"], one["epoch"]) for one in logs] == [("worker.epoch", 1)]


async def test_epochs_from_before_are_summed_up_and_those_of_another_attempt_are_new(job: JobDirectory) -> None:
    await add(job, line(1) + line(2) + line(3))
    with structlog.testing.capture_logs() as logs:
        async with EpochLog(job):
            await add(job, line(3, attempt=2))  # resumed from the checkpoint of the second
    assert [(one["event"], one["epoch"]) for one in logs] == [("worker.epochs_before", 3), ("worker.epoch", 3)]


async def test_another_start_of_the_worker_goes_on_with_the_log(job: JobDirectory) -> None:
    with structlog.testing.capture_logs() as logs:
        epochs = EpochLog(job)
        async with epochs:
            await add(job, line(1))
        async with epochs:
            await add(job, line(2, attempt=2))
    assert [(one["event"], one["epoch"]) for one in logs] == [("worker.epoch", 1), ("worker.epoch", 2)]


async def test_a_history_that_cannot_be_read_stops_no_training(job: JobDirectory) -> None:
    (job.path / "epochs.jsonl").mkdir()
    (job.path / "job.json").write_text("{}")
    with structlog.testing.capture_logs() as logs:
        async with EpochLog(job) as epochs:
            epochs.tell()
    assert logs == []
