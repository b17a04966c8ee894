"""The second phase: the training itself, from the start or from the newest checkpoint."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from ultralytics import YOLO
from ultralytics.utils.torch_utils import strip_optimizer

from azaion_daemon.store.durable import copy_durably
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.processes import oom_kills
from azaion_daemon.training.stalls import SETTING_UP
from azaion_daemon.training.worker import checkpoints, ranks, trainer
from azaion_daemon.training.worker.failures import PhaseError
from azaion_daemon.training.worker.progress import ProgressReport, say

_NAME = "train"


def device(spec: JobSpec) -> str:
    """The device in the library's terms: GPUs are numbered among those that this process may see."""
    return ",".join(str(index) for index in range(len(spec.gpus))) or "cpu"


def run(job: JobDirectory, spec: JobSpec, report: ProgressReport) -> dict[str, JsonValue]:
    """Train to the end and leave the best model in `model.pt`; returns how many epochs it took and where it was resumed.

    Raises:
        PhaseError: It diverged, or one of several GPUs' processes failed.
    """
    weights = job.run / _NAME / "weights"
    kept = checkpoints.pairs(job.checkpoints)
    pair = checkpoints.newest_good(kept, checkpoints.loads)
    done = 0 if pair is None else pair.epoch + 1
    if pair is not None:
        checkpoints.restore(pair, weights)
    else:
        if kept:
            say("No checkpoint can be loaded: the training begins anew.")
        shutil.rmtree(weights, ignore_errors=True)  # what lies there came from no epoch of this training
    job.forget_epochs_after(done)
    if done < spec.epochs:  # at the last epoch there is nothing to resume: the library refuses
        report.update(step=SETTING_UP, epoch=done, epochs=spec.epochs, batches=_images(job))
        _train(job, spec, None if pair is None else weights / "last.pt")
    epochs = _deliver(weights / "best.pt", job.pt)
    return {"epochs": epochs, "resumed_after_epoch": None if pair is None else done}


def _images(job: JobDirectory) -> int:
    prepared = job.marker(Phase.PREPARE)
    parts = () if prepared is None else prepared.details.values()
    return sum(images for part in parts if isinstance(part, dict) and isinstance(images := part.get("images"), int))


def _train(job: JobDirectory, spec: JobSpec, last: Path | None) -> None:
    model = YOLO(spec.model if last is None else str(last))
    # What may change between two attempts; on resuming, the rest comes from the checkpoint.
    given: dict[str, Any] = {
        "trainer": trainer.JobTrainer,
        "data": str(spec.data_yaml),
        "batch": spec.batch_size,
        "imgsz": spec.imgsz,
        "workers": spec.workers,
        "device": device(spec),
        "save_period": -1,  # ours: the library would keep every one of its copies
    }
    if last is not None:
        given["resume"] = True
    else:
        given = {
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
        }
    ranks.clear(job)
    killed = oom_kills()
    try:
        model.train(**given)
    except subprocess.CalledProcessError as error:  # of several GPUs' processes
        outcome, reason, counts = ranks.failure(job, killed)
        raise PhaseError(outcome, reason, counts=counts) from error


def _deliver(best: Path, to: Path) -> int:
    if not best.exists():  # the library saves a best one only where the fitness is a number
        raise PhaseError(Outcome.DIVERGED, "The training diverged: no epoch has a finite fitness. Lower lr0 in training.overrides.")
    stripped = best.with_name("stripped.pt")
    content = strip_optimizer(best, stripped)
    copy_durably(stripped, to)
    return len(content.get("train_results", {}).get("epoch", ()))
