"""A training on several GPUs: the library's own processes find the job, report, keep checkpoints and tell why they failed."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from azaion_daemon.training.jobs import JobDirectory, Progress
from azaion_daemon.training.nvml import NvmlGpus
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.pool import WorkerPool
from tests.integration.trainings import curves, dataset, epochs, make_job, pool

__all__ = ["dataset", "make_job", "pool"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def two_ranks(tmp_path: Path, fault: str = "none") -> WorkerPool:
    script = Path(__file__).with_name("two_ranks.py")
    return WorkerPool((sys.executable, "-P", "-u", str(script), fault), progress_s=0.1, environment={**os.environ, "HOME": str(tmp_path)})


def processes_of(job: JobDirectory) -> list[int]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"AZAION_JOB={job.path}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
        except OSError:
            continue
    return found


async def test_a_killed_training_of_several_processes_leaves_none_and_goes_on_from_its_checkpoint(
    tmp_path: Path, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job(epochs=4)
    most: list[int] = []

    def kill_in_the_second_epoch(progress: Progress) -> None:
        most.append(len(processes_of(job)))
        if progress.phase is Phase.TRAIN and progress.epoch >= 2 and (identity := job.read_identity()) is not None:
            os.kill(identity.pid, signal.SIGKILL)

    killed = await two_ranks(tmp_path).run(job, kill_in_the_second_epoch)
    assert "SIGKILL in phase train, epoch " in killed.reason, job.log.read_text()
    assert max(most) >= 4  # the worker, the launcher, two ranks
    assert processes_of(job) == []
    seen: list[Progress] = []
    result = await two_ranks(tmp_path).run(job, seen.append)
    assert result.outcome is Outcome.DONE, job.log.read_text()
    assert curves(job) == epochs(job) == [1, 2, 3, 4]
    trained = job.marker(Phase.TRAIN)
    assert trained is not None
    resumed = trained.details["resumed_after_epoch"]
    assert isinstance(resumed, int)
    assert [record.attempt for record in job.read_epochs()] == [1] * resumed + [2] * (4 - resumed)
    assert {one.batches for one in seen if one.phase is Phase.TRAIN and one.epoch and one.batch and not one.step} <= {2}
    assert list((job.path / "home" / "Ultralytics" / "DDP").iterdir()) == []  # the scripts that start the ranks lie in the job, and go
    assert max(one.memory_bytes for one in seen) > 0


async def test_why_a_rank_failed_is_told_by_the_worker(tmp_path: Path, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job(epochs=2)
    result = await two_ranks(tmp_path, "out of memory").run(job)
    assert result.outcome is Outcome.OUT_OF_MEMORY, job.log.read_text()
    assert epochs(job) == [1]
    assert [path.name for path in job.checkpoints.iterdir()] == ["000000"]
    assert processes_of(job) == []


@pytest.mark.gpu
async def test_a_training_on_two_real_gpus(pool: WorkerPool, make_job: Callable[..., JobDirectory]) -> None:
    found = (await asyncio.to_thread(NvmlGpus().discover)).gpus
    usable = tuple(gpu.uuid for gpu in found if not gpu.faults)
    if len(usable) < 2:
        pytest.skip(f"{len(usable)} usable GPUs here, two are needed")
    job = make_job(epochs=2, gpus=usable[:2], leases=usable[:2], gpus_per_job=2, workers=2)
    result = await pool.run(job)
    assert result.outcome is Outcome.DONE, job.log.read_text()
    assert curves(job) == epochs(job) == [1, 2]
    assert "," in result.versions["gpus"]
