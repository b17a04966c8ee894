"""Which weights a training starts from: what is asked for where it can be trusted, and a copy that nothing changes afterwards."""

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.errors import TrainingError
from azaion_daemon.sections import TrainingSettings
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Model
from azaion_daemon.training.jobs import JobDirectory, JobResult, ModelFile
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.weights import take_for
from tests.unit.test_triggering import Site, layout, settings_of, site

__all__ = ["layout"]


@pytest.fixture(autouse=True)
def base(layout: Layout) -> None:
    (layout.models / "base.pt").write_bytes(b"base")


@pytest.fixture
def job(layout: Layout) -> JobDirectory:
    return JobDirectory(layout.jobs / "job-2")


def training(start_from: str = "current", model: str = "base.pt") -> TrainingSettings:
    settings = {"model": model, "epochs": 1, "batch_size": 1, "imgsz": 64, "save_period": 1, "workers": 0, "start_from": start_from}
    return TrainingSettings.model_validate(settings)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(layout: Layout, content: bytes = b"fine", onnx: str = "sha-1", job: str | None = "job-1") -> Model:
    """The current model, kept in a directory of its own as its job left it."""
    directory = layout.models / "azaion-2026-03-04"
    directory.mkdir()
    (directory / "azaion.pt").write_bytes(content)
    result = JobResult(
        outcome=Outcome.DONE,
        pt=ModelFile(path="model.pt", sha256=digest(content), size_bytes=len(content)),
        onnx=ModelFile(path="model.onnx", sha256=onnx, size_bytes=1),
        finished=datetime.now(UTC),
    )
    (directory / "result.json").write_bytes(result.render())
    return Model("sha-1", job, "d", {}, str(directory / "azaion.onnx"), current=True, created=1.0)


def test_the_base_model_is_copied_so_that_another_one_in_its_place_changes_nothing(layout: Layout, job: JobDirectory) -> None:
    start = take_for(training("base"), layout, kept(layout), job)
    (layout.models / "base.pt").write_bytes(b"another")
    assert (start.kind, start.sha256, start.why) == ("base", digest(b"base"), "")
    assert Path(start.model).read_bytes() == b"base"
    assert Path(start.model).is_relative_to(job.path)


def test_fine_tuning_starts_from_what_the_current_models_job_made(layout: Layout, job: JobDirectory) -> None:
    start = take_for(training(), layout, kept(layout), job)
    assert (start.kind, start.sha256, Path(start.model).read_bytes(), start.why) == ("current", digest(b"fine"), b"fine", "")
    assert take_for(training(), layout, None, job).kind == "base"


@pytest.mark.parametrize("kind", ["none", "taken over", "no checkpoint", "another checkpoint", "no result", "another model's result"])
def test_without_a_checkpoint_that_its_job_made_the_base_model_is_taken_and_it_is_said(
    layout: Layout, job: JobDirectory, kind: str
) -> None:
    current: Model | None = kept(layout, onnx="sha-0" if kind == "another model's result" else "sha-1")
    directory = layout.models / "azaion-2026-03-04"
    match kind:
        case "none":
            current = None
        case "taken over":
            (layout.models / "azaion.pt").write_bytes(b"a pickle from anywhere")
            current = Model("sha-1", None, None, {}, str(layout.onnx), current=True, created=1.0)
        case "no checkpoint":
            (directory / "azaion.pt").unlink()
        case "another checkpoint":
            (directory / "azaion.pt").write_bytes(b"a pickle from anywhere")
        case "no result":
            (directory / "result.json").write_bytes(b"{")
    start = take_for(training(), layout, current, job)
    assert (start.kind, Path(start.model).read_bytes()) == ("base", b"base")
    assert start.why.endswith("the training starts from base.pt")
    assert [path.name for path in job.start.iterdir()] == ["base.pt"]


def test_an_architecture_keeps_its_name_and_a_missing_file_is_left_to_the_trainer(layout: Layout, job: JobDirectory) -> None:
    (layout.models / "yolo26n.yaml").write_text("nc: 80")
    own = take_for(training("base", "yolo26n.yaml"), layout, None, job)
    assert (Path(own.model).name, own.sha256) == ("yolo26n.yaml", digest(b"nc: 80"))
    for name in ("yolo26m.yaml", "yolo26m.pt"):
        start = take_for(training("base", name), layout, None, job)
        assert (start.model, start.sha256) == (name, None)


def test_weights_that_cannot_be_read_fail_the_job_and_not_the_daemon(
    layout: Layout, job: JobDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(TrainingError, match=r"base.pt cannot be read: Permission denied"):
        take_for(training("base"), layout, None, job)


def fine_tuning(layout: Layout, **changes: Any) -> Settings:
    settings = settings_of(layout.root)
    update = {"start_from": "current", "model": "base.pt", **changes}
    return settings.model_copy(update={"training": settings.training.model_copy(update=update)})


async def started_from(one: Site) -> list[tuple[str, str]]:
    return await asyncio.to_thread(starts, one.layout, [job.id for job in await one.jobs()])


def starts(layout: Layout, jobs: list[str]) -> list[tuple[str, str]]:
    specs = [JobDirectory(layout.jobs / job).read_spec() for job in jobs]
    return [(spec.started_from, Path(spec.model).read_text()) for spec in specs]


async def test_the_first_job_starts_from_the_base_model_and_the_next_from_what_came_out(layout: Layout) -> None:
    async with site(layout, fine_tuning(layout)) as one:
        await one.change()
        (first,) = await one.until_states("releasing")
        await one.change()
        await one.until_states("releasing", "releasing")
        assert await started_from(one) == [("base", "base"), ("current", f"pt of {first.id}")]


async def test_a_job_that_failed_for_its_settings_is_tried_again_from_another_current_model_and_only_then(layout: Layout) -> None:
    async with site(layout, fine_tuning(layout)) as one:
        one.worker.outcomes = [Outcome.DONE, Outcome.DIVERGED, Outcome.DONE]
        await one.change()
        (first,) = await one.until_states("releasing")
        await one.change()
        await one.until_states("releasing", "failed")
        await one.until_why("neither annotations nor settings have changed since")
        (model,) = await one.call(one.call.ledger.models)
        other = Model("b" * 64, first.id, "d", {}, model.path, current=True, created=one.clock())
        await one.call(one.call.ledger.put_current_model, other)
        one.trigger.reconfigure(fine_tuning(layout))  # looks again
        await one.until_states("releasing", "failed", "releasing")
