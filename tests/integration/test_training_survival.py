"""Trainings that meet what happens in weeks of training: memory that runs out, a GPU that goes away, a full disk, several processes.

Real workers and real (tiny) trainings. Who decides about another attempt is the rule that the daemon follows.
"""

import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import JobDirectory, JobResult, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.pool import WorkerPool
from azaion_daemon.training.retry import Again, GiveUp, decide
from tests.faults.disk import Disk
from tests.integration.trainings import curves, dataset, epochs, make_job, pool

__all__ = ["dataset", "make_job", "pool"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

HERE = Path(__file__).parent


def sabotaged(tmp_path: Path, fault: str, script: str = "sabotaged_worker.py") -> WorkerPool:
    return WorkerPool(
        (sys.executable, "-P", "-u", str(HERE / script), fault), progress_s=0.1, environment={**os.environ, "HOME": str(tmp_path)}
    )


async def train(pool: WorkerPool, job: JobDirectory, see: Callable[[Progress], None] = lambda _: None) -> tuple[JobResult, GiveUp | None]:
    """As the daemon does, without its pauses: until there is a model, or the rule gives up."""
    while True:
        result = await pool.run(job, see)
        if result.outcome is Outcome.DONE:
            return result, None
        spec, progress = job.read_spec(), job.read_progress()
        kept = [int(path.name) + 1 for path in job.checkpoints.glob("[0-9]*")]
        job.append_attempt(
            Attempt(
                number=len(job.read_attempts()) + 1,
                outcome=result.outcome,
                reason=result.reason,
                phase=None if progress is None else progress.phase,
                epoch=max(kept, default=0),
                batch_size=spec.batch_size,
                gpus=spec.gpus,
                ended=datetime.now(UTC),
                counts=result.counts,
            )
        )
        match decide(spec, job.read_attempts()):
            case GiveUp() as end:
                return result, end
            case Again(spec=changed):
                if job.read_result() is not None:
                    job.retire_result()
                job.create(changed)


async def test_memory_that_runs_out_in_the_third_epoch_costs_half_the_batch_and_not_the_training(
    tmp_path: Path, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job(epochs=4, batch_size=4)
    seen: list[Progress] = []
    result, given_up = await train(sabotaged(tmp_path, "big batch"), job, seen.append)
    assert given_up is None, job.log.read_text()
    assert [(one.outcome, one.epoch, one.batch_size) for one in job.read_attempts()] == [(Outcome.OUT_OF_MEMORY, 2, 4)]
    assert result.settings["batch_size"] == 2
    resumed = [one for one in seen if one.attempt == 2 and one.phase is Phase.TRAIN and not one.step and one.batches]
    assert {one.batches for one in resumed} == {4}  # of 8 images
    assert "batch: 2" in (job.run / "train" / "args.yaml").read_text()
    assert curves(job) == epochs(job) == [1, 2, 3, 4]
    assert [record.attempt for record in job.read_epochs()] == [1, 1, 2, 2]


async def test_memory_that_never_suffices_ends_with_a_sentence(tmp_path: Path, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job(epochs=3, batch_size=2)
    _, given_up = await train(sabotaged(tmp_path, "any batch"), job)
    assert given_up is not None
    assert given_up.outcome is Outcome.OUT_OF_MEMORY
    assert given_up.reason.startswith("The memory does not suffice even for one image at a time: lower training.imgsz. ")
    assert [one.batch_size for one in job.read_attempts()] == [2, 1]
    assert epochs(job) == [1]


async def test_a_gpu_that_goes_away_costs_the_epoch_and_not_the_training(tmp_path: Path, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job(epochs=4)
    _, given_up = await train(sabotaged(tmp_path, "lost gpu"), job)
    assert given_up is None, job.log.read_text()
    (failed,) = job.read_attempts()
    assert failed.reason == "The GPU or its driver failed: CUDA error: uncorrectable ECC error encountered"
    assert (failed.outcome, failed.epoch) == (Outcome.INFRASTRUCTURE, 2)
    assert curves(job) == epochs(job) == [1, 2, 3, 4]


async def test_a_data_loader_that_is_killed_is_told_from_a_gpu_that_is_full(tmp_path: Path, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job(epochs=3, workers=2)
    result, given_up = await train(sabotaged(tmp_path, "dead loader"), job)
    assert given_up is None, job.log.read_text()
    (failed,) = job.read_attempts()
    assert (failed.outcome, failed.epoch) == (Outcome.OUT_OF_HOST_MEMORY, 1)
    assert (result.settings["workers"], result.settings["batch_size"]) == (1, 4)
    assert curves(job) == epochs(job) == [1, 2, 3]


async def test_a_training_that_gives_no_numbers_any_more_is_given_up_at_once(tmp_path: Path, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job(epochs=3)
    _, given_up = await train(sabotaged(tmp_path, "no numbers"), job)
    assert given_up is not None
    assert given_up.outcome is Outcome.DIVERGED, job.log.read_text()
    assert given_up.reason.startswith("The training diverged: losses became infinite or NaN.")
    assert job.log.read_text().count("recovering from last.pt") == 3  # by the library itself
    assert len(job.read_attempts()) == 1
    assert epochs(job) == [1]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk.img", tmp_path / "jobs", 256)
    yield disk
    if disk.is_mounted():
        disk.unmount()


def fill(directory: Path) -> Path:
    """Leave no byte."""
    ballast = directory / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return ballast


async def test_a_full_disk_pauses_a_training_and_tears_nothing(
    disk: Disk, tmp_path: Path, pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job(epochs=6)
    ballast = tmp_path / "jobs" / "ballast"

    def fill_in_the_third_epoch(progress: Progress) -> None:
        if progress.epoch >= 3 and not ballast.exists():
            fill(tmp_path / "jobs")

    full = await pool.run(job, fill_in_the_third_epoch)
    assert (full.outcome, full.counts) == (Outcome.INFRASTRUCTURE, False), full.reason
    assert "The disk is full" in full.reason
    assert job.read_result() is None  # there was no space even for that
    again = await pool.run(job)
    assert (again.outcome, again.counts) == (Outcome.INFRASTRUCTURE, False), again.reason
    ballast.unlink()
    result = await pool.run(job)
    assert result.outcome is Outcome.DONE, job.log.read_text()
    assert curves(job) == epochs(job) == [1, 2, 3, 4, 5, 6]
    assert list(job.path.rglob(".*tmp")) == []


async def test_a_result_that_finds_no_space_is_written_once_there_is_some(
    disk: Disk, tmp_path: Path, pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job(model="/nowhere/azaion.pt")
    (job.path / "run").mkdir()
    first = await pool.run(job)
    assert first.outcome is Outcome.BAD_JOB
    job.retire_result()
    ballast = fill(tmp_path / "jobs")
    full = await pool.run(job)
    assert (full.outcome, full.counts) == (Outcome.INFRASTRUCTURE, False), full.reason
    assert "The disk is full" in full.reason
    ballast.unlink()
    assert (await pool.run(job)).outcome is Outcome.BAD_JOB
    assert list(job.path.rglob(".*tmp")) == []
