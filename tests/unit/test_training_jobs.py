"""A job's states, and what daemon and worker write for each other."""

import json
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from azaion_daemon.errors import TrainingError
from azaion_daemon.training.attempts import unseen_attempt
from azaion_daemon.training.evaluation import ClassMetrics, Metrics
from azaion_daemon.training.jobs import Identity, JobDirectory, JobResult, JobSpec, ModelFile, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.states import JobState, advance

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FINAL = {JobState.RELEASED, JobState.FAILED, JobState.CANCELLED, JobState.TRIED}


def spec(**changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "id": "2026-01-02-1",
        "dataset_id": "abc",
        "dataset_name": "azaion-2026-01-02",
        "data_yaml": Path("/azaion/datasets/azaion-2026-01-02/data.yaml"),
        "class_names": ("car", "truck", "boat"),
        "model": "yolo26n.yaml",
        "epochs": 3,
        "batch_size": 4,
        "imgsz": 64,
        "save_period": 1,
        "workers": 0,
        "overrides": {"lr0": 0.01, "cos_lr": True, "freeze": [0, 1]},
        "export_imgsz": 64,
        "gpus": ("GPU-1", "GPU-2"),
        "gpu_locks": Path("/azaion/state/gpus"),
    }
    return JobSpec(**(values | changes))


def test_a_job_goes_from_requested_to_released() -> None:
    path = ["requested", "forming", "queued", "running", "accepted", "releasing", "released"]
    state = JobState(path[0])
    for name in path[1:]:
        state = advance(state, JobState(name))
    assert state is JobState.RELEASED


@pytest.mark.parametrize(("state", "end"), list(product(sorted(set(JobState) - FINAL), [JobState.FAILED, JobState.CANCELLED])))
def test_every_job_that_goes_on_may_fail_or_be_cancelled(state: JobState, end: JobState) -> None:
    assert advance(state, end) is end


@pytest.mark.parametrize(("state", "to"), list(product(sorted(FINAL), JobState)))
def test_a_job_that_ended_stays_so(state: JobState, to: JobState) -> None:
    with pytest.raises(ValueError, match=f"from {state} to {to}"):
        advance(state, to)


@pytest.mark.parametrize(
    ("state", "to"),
    [("requested", "running"), ("queued", "accepted"), ("rejected", "releasing"), ("held", "releasing"), ("running", "released")],
)
def test_no_step_is_left_out(state: str, to: str) -> None:
    with pytest.raises(ValueError, match="cannot go"):
        advance(JobState(state), JobState(to))


def test_a_spec_survives_its_file(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path / "jobs" / "1")
    job.create(spec())
    assert job.read_spec() == spec()


@pytest.mark.parametrize(
    "damage",
    [{"epochs": "3"}, {"epochs": 0}, {"unknown": 1}, {"id": "../up"}, {"batch_size": 4.5}],
    ids=lambda damage: next(iter(damage)),
)
def test_a_damaged_spec_is_refused_with_the_key(tmp_path: Path, damage: dict[str, Any]) -> None:
    job = JobDirectory(tmp_path)
    job.create(spec())
    document = json.loads((tmp_path / "job.json").read_bytes())
    (tmp_path / "job.json").write_text(json.dumps(document | damage))
    with pytest.raises(TrainingError, match=next(iter(damage))):
        job.read_spec()


@pytest.mark.parametrize("protocol", [0, 2, "1", None])
def test_a_spec_of_another_protocol_is_refused(tmp_path: Path, protocol: object) -> None:
    job = JobDirectory(tmp_path)
    job.create(spec())
    document = json.loads((tmp_path / "job.json").read_bytes())
    (tmp_path / "job.json").write_text(json.dumps(document | {"protocol": protocol, "from_the_future": True}))
    with pytest.raises(TrainingError, match="protocol"):
        job.read_spec()


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff"])
def test_a_missing_or_torn_spec_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "job.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"job\.json"):
        JobDirectory(tmp_path).read_spec()


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().epochs = 4  # type: ignore[misc]


def test_progress_survives_its_file_with_a_loss_that_is_no_number(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path)
    assert job.read_progress() is None
    progress = Progress(phase=Phase.TRAIN, epoch=2, losses={"box": 1.5, "cls": None}, started=NOW, phase_started=NOW, updated=NOW)
    job.write_progress(progress)
    assert job.read_progress() == progress


@pytest.mark.parametrize("content", [b"", b"\0" * 400, b"{"])
def test_progress_that_a_power_cut_has_torn_is_none(tmp_path: Path, content: bytes) -> None:
    job = JobDirectory(tmp_path)
    job.create(spec())
    (tmp_path / "progress.json").write_bytes(content)
    assert job.read_progress() is None
    job.write_identity(Identity(pid=2**22 + 1, start_ticks=1, boot_id="before", token="t", attempt=1))
    unseen = unseen_attempt(job, job.read_spec())
    assert unseen is not None
    assert (unseen.reason, unseen.counts) == ("The machine went down, before it said anything.", False)


def test_a_spec_of_an_earlier_release_stays_one_that_its_worker_can_read(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path)
    job.create(spec())
    earlier = set(json.loads((tmp_path / "job.json").read_bytes()))
    assert "trial" not in earlier  # as if it came with a later release
    job.create(job.read_spec().model_copy(update={"batch_size": 2, "gpus": ("GPU-1",)}))
    assert set(json.loads((tmp_path / "job.json").read_bytes())) == earlier | {"gpus"}
    assert job.read_spec() == spec(batch_size=2, gpus=("GPU-1",))


def test_a_result_survives_its_file_and_is_retired_under_a_number(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path)
    result = JobResult(
        outcome=Outcome.DONE,
        onnx=ModelFile(path="model.onnx", sha256="00", size_bytes=1),
        metrics=Metrics(images=1, instances=1, map50=0.5, map50_95=0.25, classes=(ClassMetrics(name="car", images=1, instances=0),)),
        settings={"epochs": 3},
        seconds={Phase.TRAIN: 1.5},
        finished=NOW,
    )
    job.write_result(result)
    assert job.read_result() == result
    job.retire_result()
    assert job.read_result() is None
    job.write_result(result)
    job.retire_result()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.1.json", "result.2.json"]


def test_a_phase_is_marked_with_its_record(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path)
    assert job.marker(Phase.EXPORT) is None
    job.mark(Phase.EXPORT, 1.25, {"opset": 18})
    record = job.marker(Phase.EXPORT)
    assert record is not None
    assert (record.seconds, record.details) == (1.25, {"opset": 18})
    assert (tmp_path / "exported").exists()
