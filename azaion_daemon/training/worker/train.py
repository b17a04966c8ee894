"""The second phase: the training itself, from the start or from the newest checkpoint."""

from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from ultralytics import YOLO
from ultralytics.utils.torch_utils import strip_optimizer

from azaion_daemon.store.durable import replace_durably
from azaion_daemon.training.jobs import JobDirectory, JobSpec, Outcome
from azaion_daemon.training.worker import checkpoints
from azaion_daemon.training.worker.failures import PhaseError
from azaion_daemon.training.worker.progress import ProgressReport, finite

_NAME = "train"


def device(spec: JobSpec) -> str:
    """The device in the library's terms: GPUs are numbered among those that this process may see."""
    return ",".join(str(index) for index in range(len(spec.gpus))) or "cpu"


def run(job: JobDirectory, spec: JobSpec, report: ProgressReport) -> dict[str, JsonValue]:
    """Train to the end and leave the best model in `model.pt`; returns how many epochs it took and where it was resumed.

    Raises:
        PhaseError: It diverged.
    """
    weights = job.run / _NAME / "weights"
    pair = checkpoints.newest_good(checkpoints.pairs(job.checkpoints), checkpoints.loads)
    if pair is not None:
        checkpoints.restore(pair, weights)
    if pair is None or pair.epoch + 1 < spec.epochs:  # at the last epoch there is nothing to resume: the library refuses
        report.update(epoch=0 if pair is None else pair.epoch + 1, epochs=spec.epochs)
        _train(job, spec, report, None if pair is None else weights / "last.pt")
    epochs = _deliver(weights / "best.pt", job.pt)
    return {"epochs": epochs, "resumed_after_epoch": None if pair is None else pair.epoch + 1}


def _train(job: JobDirectory, spec: JobSpec, report: ProgressReport, last: Path | None) -> None:
    model = YOLO(spec.model if last is None else str(last))
    watcher = _Watcher(job, spec, report)
    for event in ("on_train_epoch_start", "on_train_batch_end", "on_model_save", "on_fit_epoch_end"):
        model.add_callback(event, getattr(watcher, event))
    # What may change between two attempts; on resuming, the rest comes from the checkpoint.
    given: dict[str, Any] = {
        "data": str(spec.data_yaml),
        "batch": spec.batch_size,
        "imgsz": spec.imgsz,
        "workers": spec.workers,
        "device": device(spec),
        "save_period": -1,  # ours: the library would keep every one of its copies
    }
    if last is not None:
        model.train(**given, resume=True)
        return
    model.train(
        **{
            "nms": False,  # validate with the head that is exported, so that `best` is the best of those
            "plots": False,
            **spec.overrides,
            **given,
            "epochs": spec.epochs,
            "seed": spec.seed,
            "deterministic": spec.deterministic,
            "project": str(job.run),
            "name": _NAME,
            "exist_ok": True,
            "save": True,
        },
    )


def _deliver(best: Path, to: Path) -> int:
    if not best.exists():  # the library saves a best one only where the fitness is a number
        raise PhaseError(Outcome.DIVERGED, "The training diverged: no epoch has a finite fitness. Lower lr0 in training.overrides.")
    stripped = best.with_name("stripped.pt")
    content = strip_optimizer(best, stripped)
    replace_durably(to, stripped.read_bytes())
    return len(content.get("train_results", {}).get("epoch", ()))


class _Watcher:
    """The library's callbacks, in a training's own process: progress for the daemon, checkpoints for the next attempt."""

    def __init__(self, job: JobDirectory, spec: JobSpec, report: ProgressReport) -> None:
        self._checkpoints = job.checkpoints
        self._save_period = spec.save_period
        self._report = report
        self._batch = 0

    def on_train_epoch_start(self, trainer: Any) -> None:
        self._batch = 0
        self._report.update(epoch=trainer.epoch + 1, epochs=trainer.epochs, batch=0, batches=len(trainer.train_loader))

    def on_train_batch_end(self, trainer: Any) -> None:
        self._batch += 1
        if self._report.due:  # reading a loss waits for the GPU
            memory = torch.cuda.memory_reserved(trainer.device) if trainer.device.type == "cuda" else 0
            self._report.update(batch=self._batch, losses=finite(trainer.tloss), gpu_memory_bytes=memory)

    def on_model_save(self, trainer: Any) -> None:
        if not all(bool(torch.isfinite(weight).all()) for weight in trainer.model.parameters()):
            # The library goes back to an earlier epoch by itself; in the first one there is none, and it goes on with zeros.
            raise PhaseError(Outcome.DIVERGED, f"The training diverged in epoch {trainer.epoch + 1}. Lower lr0 in training.overrides.")
        if trainer.stop or (trainer.epoch + 1) % self._save_period == 0:  # stop: this was the last epoch
            checkpoints.keep(trainer.wdir, self._checkpoints, trainer.epoch)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        scores = finite({name: trainer.metrics.get(f"metrics/{name}(B)", 0.0) for name in ("mAP50", "mAP50-95")})
        self._report.update(losses=finite(trainer.tloss), map50=scores["mAP50"], map50_95=scores["mAP50-95"])
