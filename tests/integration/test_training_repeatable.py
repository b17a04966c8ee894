"""The real worker on the CPU: the same job gives the same model, and fine-tuning starts from the weights that it is told."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.pool import WorkerPool
from tests.integration.test_training_worker import dataset, make_job, pool

__all__ = ["dataset", "make_job", "pool"]

pytestmark = pytest.mark.slow

IN_PLACE = {"close_mosaic": 0, "optimizer": "SGD", "lr0": 0.0, "lrf": 1.0, "warmup_epochs": 0}
"""Trains without taking a step."""


class Trained:
    """What came out of a job, as numbers."""

    def __init__(self, job: JobDirectory) -> None:
        import onnx  # noqa: PLC0415 - heavy
        import torch  # noqa: PLC0415 - heavy
        from onnx import numpy_helper  # noqa: PLC0415 - heavy

        model = torch.load(job.pt, map_location="cpu", weights_only=False)["model"]
        self.weights = {name: value.float().numpy() for name, value in model.state_dict().items()}
        self.parameters = {name for name, _ in model.named_parameters()}
        content = onnx.load(job.onnx)
        self.initialisers = {one.name: numpy_helper.to_array(one).tobytes() for one in content.graph.initializer}
        self.graph = content.graph.SerializeToString()
        self.metadata = {one.key: one.value for one in content.metadata_props}

    def same_weights(self, other: "Trained") -> bool:
        return self.weights.keys() == other.weights.keys() and all(
            (value == other.weights[name]).all() for name, value in self.weights.items()
        )

    def farthest(self, other: "Trained") -> float:
        """The largest difference of a trained number."""
        return max(float(abs(self.weights[name] - other.weights[name]).max()) for name in self.parameters)


@pytest.fixture
def train(pool: WorkerPool, make_job: Callable[..., JobDirectory], tmp_path: Path) -> Callable[..., Trained]:
    def run(id_: str, **changes: Any) -> Trained:
        spec = make_job().read_spec()
        job = JobDirectory(tmp_path / "jobs" / id_)
        job.create(spec.model_copy(update={"id": id_, **changes}))
        result = asyncio.run(pool.run(job))
        assert result.outcome is Outcome.DONE, job.log.read_text()
        assert (result.settings["seed"], result.settings["started_from"]) == (changes.get("seed", 0), changes.get("started_from", "base"))
        return Trained(job)

    return run


def test_the_same_job_gives_the_same_model_and_another_seed_another_one(train: Callable[..., Trained]) -> None:
    first, again, other = train("first", epochs=2), train("again", epochs=2), train("other", epochs=2, seed=1)
    assert first.same_weights(again)
    assert first.initialisers == again.initialisers
    assert first.graph == again.graph
    assert {key for key, value in first.metadata.items() if again.metadata[key] != value} == {"date"}
    assert not first.same_weights(other)
    assert first.initialisers != other.initialisers


def test_fine_tuning_starts_from_the_weights_that_the_job_names(train: Callable[..., Trained], tmp_path: Path) -> None:
    base = train("base", seed=3)
    start = str(tmp_path / "jobs" / "base" / "model.pt")
    tuned = train("tuned", model=start, started_from="current", overrides=IN_PLACE)
    random = train("random", overrides=IN_PLACE)
    assert tuned.farthest(base) < 1e-3
    assert random.farthest(base) > 0.05
