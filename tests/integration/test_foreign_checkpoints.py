"""A checkpoint is a pickle, and may run anything when it is loaded. One from outside is not, wherever it lies."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.pool import WorkerPool
from tests.integration.trainings import curves, dataset, make_job, pool

__all__ = ["dataset", "make_job", "pool"]

pytestmark = pytest.mark.slow


def child(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "tests.integration.foreign_child", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return done.stdout


async def plant(mark: Path, *files: Path) -> None:
    await asyncio.to_thread(child, "plant", mark, *files)


async def test_a_training_runs_nothing_of_what_lies_where_its_own_checkpoints_and_caches_would(
    tmp_path: Path, dataset: Path, pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    mark = tmp_path / "it was run"
    job = make_job()
    pair, weights = job.checkpoints / "000003", job.run / "train" / "weights"
    pickles = [place / name for place in (pair, weights) for name in ("last.pt", "best.pt")]
    caches = [dataset / part / "labels.cache" for part in ("train", "valid", "test")]
    await plant(mark, *pickles, *caches)
    (pair / "results.csv").write_text("epoch\n4\n")
    result = await pool.run(job)
    assert result.outcome is Outcome.DONE, job.log.read_text()
    assert f"{pair} cannot be loaded" in job.log.read_text()
    assert curves(job) == [1]
    assert not mark.exists()


def test_nothing_that_loads_a_checkpoint_runs_what_is_in_it(tmp_path: Path, make_job: Callable[..., JobDirectory]) -> None:
    mark = tmp_path / "it was run"
    base = tmp_path / "base.pt"
    job = make_job(model=str(base), model_sha256=None)
    pair = job.checkpoints / "000000"
    child("plant", mark, base, job.pt, pair / "last.pt", pair / "best.pt")
    said = json.loads(child("offer", job.path).splitlines()[-1])
    assert said.pop("resume") == "False"
    assert "Nothing in it was run" in said.pop("base")
    assert "somebody has replaced it" in said.pop("replaced")
    assert len(said) == 3
    assert all("references types outside the supported" in sentence for sentence in said.values()), said
    assert not mark.exists()
