"""What a model has been trained on, back to the weights that nobody here has trained: a pure reading of what results say.

A model that was fine-tuned has seen what its predecessor was trained on, and so on. The first of a line may be one that was taken over
from a service before; what that has seen nobody knows, but its images are older than its file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from azaion_daemon.store.records import Model


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """A dataset that a model was trained on. `until` is when the model was there, in seconds since the epoch."""

    dataset_id: str
    until: float


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A model that was there before. `until` is the age of its file, in seconds since the epoch; infinite where nobody knows."""

    until: float


Step = TrainedOn | TakenOver


class Lineage:
    """Finds the predecessors of models, by the results of trainings and the models of the ledger."""

    def __init__(self, results: Iterable[tuple[Mapping[str, Any], float]], models: Iterable[Model]) -> None:
        """`results` are those of trainings as documents, each with the time when its model was there."""
        self._by_pt: dict[str, tuple[Mapping[str, Any], float]] = {}
        self._by_onnx: dict[str, tuple[Mapping[str, Any], float]] = {}
        for result, time in results:
            for index, kind in ((self._by_pt, "pt"), (self._by_onnx, "onnx")):
                digest = (result.get(kind) or {}).get("sha256")
                if digest is not None:
                    index.setdefault(digest, (result, time))
        self._taken_over = max((model.created for model in models if model.dataset_id is None), default=float("inf"))

    def of_model(self, model: Model) -> list[Step]:
        """What a model has been trained on."""
        if model.dataset_id is None:
            return [TakenOver(model.created)]
        result, time = self._by_onnx.get(model.sha256, ({}, model.created))
        steps: list[Step] = [TrainedOn(model.dataset_id, max(time, model.created))]
        return [*steps, *self.before(result.get("settings") or {})]

    def before(self, settings: Mapping[str, Any]) -> list[Step]:
        """What was trained on before a training with these settings (those of its job) began."""
        steps: list[Step] = []
        met: set[str] = set()
        while True:
            digest = str(settings.get("model_sha256"))
            found = self._by_pt.get(digest)  # also where an operator has named what a job of ours made as the base model
            if digest in met or (found is None and settings.get("started_from") != "current"):
                break  # damaged records must not be followed for ever
            met.add(digest)
            if found is None or found[0].get("dataset_id") is None:
                steps.append(TakenOver(self._taken_over))
                break
            result, time = found
            steps.append(TrainedOn(str(result["dataset_id"]), time))
            settings = result.get("settings") or {}
        return steps
