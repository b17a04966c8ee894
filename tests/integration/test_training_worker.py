"""The real worker, in real processes: tiny trainings on generated images."""

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from azaion_daemon.training.jobs import JobDirectory, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.pool import WorkerPool
from tests.integration.trainings import CLASSES, PARTS, SIDE, curves, dataset, epochs, make_job, pool

__all__ = ["dataset", "make_job", "pool"]

# Everything here trains or at least imports torch: seconds each, more on a busy machine.
pytestmark = pytest.mark.slow


async def test_a_job_becomes_a_model_that_consumers_can_run(
    tmp_path: Path, pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    import onnx  # noqa: PLC0415 - heavy, and only this test needs it

    seen: list[Progress] = []
    job = make_job()
    result = await pool.run(job, seen.append)
    assert result.outcome is Outcome.DONE, job.log.read_text()
    assert (result.reason, result.attempts, result.dataset_id) == ("", 1, "d1")
    assert set(result.seconds) == set(Phase)
    assert {"python", "torch", "ultralytics", "onnx", "onnxruntime"} <= set(result.versions)
    assert result.onnx is not None
    assert result.metrics is not None
    assert (result.metrics.images, result.metrics.instances) == (3, 3)
    assert [(one.name, one.instances) for one in result.metrics.classes] == [(name, 1) for name in CLASSES]
    phases = [progress.phase for progress in seen]
    assert phases == sorted(phases, key=list(Phase).index)
    assert Phase.TRAIN in phases
    graph = onnx.load(job.path / result.onnx.path).graph
    shapes = [[one.dim_value for one in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
    anchors = 8 * 8 + 4 * 4 + 2 * 2  # of 64 pixels: fewer than the 300 detections of a larger image
    assert shapes == [[2, 3, SIDE, SIDE], [2, anchors, 6]]
    reported = job.marker(Phase.REPORT)
    assert reported is not None
    assert reported.details == {}, job.log.read_text()
    page = job.report.read_text()
    assert page.count("data:image/jpeg;base64,") == PARTS["test"]
    assert "No image could be looked at" not in page
    assert {"azaion-daemon", "system"} <= set(result.versions)
    assert (result.settings["seed"], result.settings["deterministic"]) == (0, True)
    assert max(progress.memory_bytes for progress in seen) > 100_000_000
    (record,) = job.read_epochs()
    assert (record.epoch, record.attempt, set(record.losses)) == (1, 1, set(record.val_losses))
    assert record.learning_rate is not None
    assert record.learning_rate > 0
    assert (job.run / "train" / "args.yaml").exists()
    assert not any(path.suffix == ".pt" for path in job.path.rglob("*") if path != job.pt)  # gigabytes, of a real training
    assert list((tmp_path / "home").iterdir()) == []  # nothing is left in the user's home
    assert list((job.path / "home").glob("Microsoft")) == []  # ONNX Runtime told nobody


async def test_a_worker_has_its_own_session_and_goes_last(pool: WorkerPool, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job(epochs=100, nice=12)
    seen: list[tuple[int, int, int, bool]] = []

    def look(progress: Progress) -> None:
        identity = job.read_identity()
        if progress.phase is not Phase.TRAIN or identity is None:
            return
        worker = psutil.Process(identity.pid)
        seen.append((worker.nice(), worker.ionice().value, int(worker.ionice().ioclass), os.getsid(identity.pid) == identity.pid))
        worker.kill()

    await pool.run(job, look)
    assert set(seen) == {(12, 7, int(psutil.IOPRIO_CLASS_BE), True)}


async def test_a_killed_training_goes_on_from_its_checkpoint(pool: WorkerPool, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job(epochs=8)

    def kill_in_the_fourth_epoch(progress: Progress) -> None:
        if progress.epoch >= 4 and (identity := job.read_identity()) is not None:
            os.kill(identity.pid, signal.SIGKILL)

    killed = await pool.run(job, kill_in_the_fourth_epoch)
    assert killed.outcome is Outcome.INFRASTRUCTURE
    assert "SIGKILL in phase train" in killed.reason
    newest = max((path for path in job.checkpoints.iterdir() if path.name.isdecimal()), key=lambda path: path.name)
    (newest / "last.pt").write_bytes((newest / "last.pt").read_bytes()[:1000])  # and the disk lost the end of it
    (job.run / "train" / "weights" / ".last.pt.77.tmp").write_bytes(b"half of a copy")
    (job.checkpoints / ".000007.tmp").mkdir()
    result = await pool.run(job)
    assert result.outcome is Outcome.DONE, job.log.read_text()
    assert result.attempts == 2
    assert list(job.path.rglob(".*.tmp")) == []
    trained = job.marker(Phase.TRAIN)
    assert trained is not None
    assert trained.details == {"epochs": 8, "resumed_after_epoch": int(newest.name)}  # pairs are numbered from 0
    assert curves(job) == epochs(job) == list(range(1, 9))  # no epoch twice, none left out
    assert [record.attempt for record in job.read_epochs()] == [1] * int(newest.name) + [2] * (8 - int(newest.name))


@pytest.mark.parametrize(
    ("phase", "unmarked"),
    [(Phase.EXPORT, ()), (Phase.EXPORT, ("trained",)), (Phase.EVALUATE, ())],
    ids=["in its export", "after its last epoch", "in its evaluation"],
)
async def test_a_worker_killed_when_all_epochs_are_done_does_not_train_again(
    pool: WorkerPool, make_job: Callable[..., JobDirectory], phase: Phase, unmarked: tuple[str, ...]
) -> None:
    job = make_job()

    async def kill() -> None:
        while (progress := job.read_progress()) is None or progress.phase is not phase:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.005)  # a phase may be over before the pool looks again
        identity = job.read_identity()
        assert identity is not None
        os.kill(identity.pid, signal.SIGKILL)

    killing = asyncio.create_task(kill())
    killed = await pool.run(job)
    assert killing.done(), killed
    assert f"SIGKILL in phase {phase}" in killed.reason
    for name in unmarked:
        (job.path / name).unlink()
    exported = job.onnx.read_bytes() if phase is Phase.EVALUATE else None
    result = await pool.run(job)
    assert result.outcome is Outcome.DONE, job.log.read_text()
    assert result.attempts == 2
    assert job.log.read_text().count("Starting training for 1 epochs") == 1
    assert curves(job) == epochs(job) == [1]
    assert exported is None or job.onnx.read_bytes() == exported


def without_labels(dataset: Path) -> None:
    for file in (dataset / "train" / "labels").iterdir():
        file.write_text("")


def without_images(dataset: Path) -> None:
    for file in (dataset / "test" / "images").iterdir():
        file.unlink()


def with_other_classes(dataset: Path) -> None:
    file = dataset / "data.yaml"
    file.write_text(file.read_text().replace("truck", "train"))


def without_yaml(dataset: Path) -> None:
    (dataset / "data.yaml").unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_labels, "have not one labelled object"),
        (without_images, "The test images cannot be used: "),
        (with_other_classes, "does not name the 3 classes of the job"),
        (without_yaml, "data.yaml cannot be used: "),
    ],
)
async def test_a_dataset_that_cannot_train_is_bad_data(
    pool: WorkerPool, make_job: Callable[..., JobDirectory], dataset: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(dataset)
    result = await pool.run(make_job())
    assert result.outcome is Outcome.BAD_DATA
    assert sentence in result.reason
    assert result.attempts == 1


@pytest.mark.parametrize(
    ("changes", "outcome", "sentence"),
    [
        ({"model": "/nowhere/azaion.pt"}, Outcome.BAD_JOB, "The weights /nowhere/azaion.pt do not exist"),
        ({"model": "yolo26n.pt"}, Outcome.BAD_JOB, "nothing is ever downloaded"),
        ({"model": "yolo11n.yaml"}, Outcome.BAD_JOB, "has no head without NMS"),
        ({"overrides": {"lr": 0.1}}, Outcome.BAD_JOB, "'lr' is not a valid YOLO argument"),
        ({"overrides": {"cls": 1e38, "warmup_epochs": 0, "nbs": 4, "optimizer": "SGD"}}, Outcome.DIVERGED, "diverged in epoch 1"),
        ({"overrides": {"lr0": 1e30}}, Outcome.BAD_JOB, "'lr0=1e+30' is an invalid value"),
        ({"gpus": ("GPU-1", "GPU-2"), "batch_size": 5}, Outcome.BAD_JOB, "A batch of 5 cannot be divided among 2 GPUs"),
    ],
    ids=[
        "missing weights",
        "weights to download",
        "no NMS-free head",
        "unknown setting",
        "infinite losses",
        "impossible setting",
        "unequal parts",
    ],
)
async def test_a_job_that_cannot_be_done_says_why(
    pool: WorkerPool, make_job: Callable[..., JobDirectory], changes: dict[str, Any], outcome: Outcome, sentence: str
) -> None:
    job = make_job(**changes)
    result = await pool.run(job)
    assert (result.outcome, sentence in result.reason) == (outcome, True), result.reason
    assert "Traceback" in job.log.read_text()


async def test_a_job_of_another_protocol_is_refused(pool: WorkerPool, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job()
    document = json.loads((job.path / "job.json").read_text())
    (job.path / "job.json").write_text(json.dumps(document | {"protocol": 99}))
    result = await pool.run(job)
    assert result.outcome is Outcome.BAD_JOB
    assert "protocol 99" in result.reason


@pytest.mark.parametrize(
    ("spec", "name"),
    [({"gpus": ("GPU-1",)}, "GPU-1"), ({"gpus": ("GPU-1",), "leases": ("GPU-1", "GPU-2")}, "GPU-2"), ({"leases": ("cpu-0",)}, "cpu-0")],
    ids=["a GPU of a job of an earlier release", "one of several", "a slot of the CPU"],
)
async def test_what_is_leased_is_not_taken_twice(
    tmp_path: Path, pool: WorkerPool, make_job: Callable[..., JobDirectory], spec: dict[str, Any], name: str
) -> None:
    (tmp_path / "gpus").mkdir()
    with (tmp_path / "gpus" / f"{name}.lock").open("wb") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        result = await pool.run(make_job(**spec))
    assert (result.outcome, result.counts) == (Outcome.INFRASTRUCTURE, False)
    assert f"The lease of {name} is held by another job" in result.reason


async def test_of_two_real_workers_the_second_leaves_at_once(pool: WorkerPool, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job()
    results = await asyncio.gather(pool.run(job), WorkerPool().run(job))
    assert [(result.outcome, result.attempts) for result in results] == [(Outcome.DONE, 1)] * 2
