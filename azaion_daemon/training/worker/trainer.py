"""The library's trainer, as a job needs it: in the worker itself, or in each of the processes that it starts for several GPUs.

Those processes get the class by its name and nothing of the worker's memory: they find the job in their environment. Only the first of
them (rank 0) reports, and keeps checkpoints.
"""

import os
import statistics
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import RANK

from azaion_daemon.training.history import EpochRecord
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.processes import JOB_VARIABLE
from azaion_daemon.training.worker import checkpoints, ranks
from azaion_daemon.training.worker.failures import PhaseError, classify
from azaion_daemon.training.worker.progress import ProgressReport, finite

_MEDIAN_BATCHES = 100
_MEDIAN_EPOCHS = 10


class JobTrainer(DetectionTrainer):  # type: ignore[misc]  # the library has no types
    """Trains a job: with its reports, its checkpoints, and its failures told to the worker."""

    def train(self) -> None:
        """To the end, or to a failure."""
        job = JobDirectory(Path(os.environ[JOB_VARIABLE]))
        if RANK in {-1, 0} and not self.ddp:
            watcher = _Watcher(job, job.read_spec(), ProgressReport.going_on(job))
            for event in _Watcher.EVENTS:
                self.add_callback(event, getattr(watcher, event))
        try:
            super().train()
        except Exception as error:
            if RANK != -1:
                ranks.leave(job, RANK, classify(error))
            raise


class _Watcher:
    """The library's callbacks: progress for the daemon, epochs for people, checkpoints for the next attempt."""

    EVENTS = (
        "on_train_epoch_start", "on_train_batch_end", "on_val_start", "on_val_batch_end", "on_model_save", "on_fit_epoch_end",
    )  # fmt: skip

    def __init__(self, job: JobDirectory, spec: JobSpec, report: ProgressReport) -> None:
        identity = job.read_identity()
        self._job = job
        self._save_period = spec.save_period
        self._report = report
        self._attempt = 1 if identity is None else identity.attempt
        self._batch = 0
        self._batches_s: deque[float] = deque(maxlen=_MEDIAN_BATCHES)
        self._epochs_s = deque((record.seconds for record in job.read_epochs()), maxlen=_MEDIAN_EPOCHS)
        self._last_batch = self._epoch_began = time.monotonic()
        self._trained_s = 0.0
        self._in_epoch = False  # the library reports the best model's validation like one more epoch

    def on_train_epoch_start(self, trainer: Any) -> None:
        self._batch = 0
        self._in_epoch = True
        self._last_batch = self._epoch_began = time.monotonic()
        self._report.update(step="", epoch=trainer.epoch + 1, epochs=trainer.epochs, batch=0, batches=len(trainer.train_loader))

    def on_train_batch_end(self, trainer: Any) -> None:
        now = time.monotonic()
        self._batch += 1
        if self._batch > 1:  # the first one waits for the data loaders
            self._batches_s.append(now - self._last_batch)
        self._last_batch = now
        self._trained_s = now - self._epoch_began
        if self._report.due:  # reading a loss waits for the GPU
            median = statistics.median(self._batches_s) if self._batches_s else None
            self._report.update(
                batch=self._batch,
                losses=finite(trainer.tloss),
                gpu_memory_bytes=_gpu_memory(trainer),
                batch_s=median,
                images_per_s=round(trainer.batch_size / median, 2) if median else None,
            )

    def on_val_start(self, validator: Any) -> None:
        self._report.update(step="validating", batch=0, batches=len(validator.dataloader))

    def on_val_batch_end(self, validator: Any) -> None:
        if self._report.due:
            self._report.update(batch=validator.batch_i + 1)

    def on_model_save(self, trainer: Any) -> None:
        if not all(bool(torch.isfinite(weight).all()) for weight in trainer.model.parameters()):
            # The library goes back to an earlier epoch by itself; in the first one there is none, and it goes on with zeros.
            raise PhaseError(Outcome.DIVERGED, f"The training diverged in epoch {trainer.epoch + 1}. Lower lr0 in training.overrides.")
        self._report.update(step="saving", batch=0, batches=0)
        # Before the checkpoint: a record too many is forgotten when the training goes on from an earlier one, one too few never comes.
        self._job.append_epoch(self._record(trainer))
        if trainer.stop or (trainer.epoch + 1) % self._save_period == 0:  # stop: this was the last epoch
            checkpoints.keep(trainer.wdir, self._job.checkpoints, trainer.epoch)

    def _record(self, trainer: Any) -> EpochRecord:
        seconds = time.monotonic() - self._epoch_began
        self._epochs_s.append(seconds)
        scores = _scores(trainer)
        validated = {name.removeprefix("val/"): value for name, value in trainer.metrics.items() if name.startswith("val/")}
        images = len(trainer.train_loader.dataset)
        return EpochRecord(
            epoch=trainer.epoch + 1,
            attempt=self._attempt,
            finished=datetime.now(UTC),
            seconds=round(seconds, 3),
            losses=finite(trainer.tloss),
            val_losses=finite(validated),
            map50=scores["mAP50"],
            map50_95=scores["mAP50-95"],
            learning_rate=max(trainer.lr.values()),
            images_per_s=round(images / self._trained_s, 2) if self._trained_s > 0 else None,
            gpu_memory_bytes=_gpu_memory(trainer),
        )

    def on_fit_epoch_end(self, trainer: Any) -> None:
        if not self._in_epoch:
            return
        self._in_epoch = False
        scores = _scores(trainer)
        self._report.update(
            step="",
            losses=finite(trainer.tloss),
            map50=scores["mAP50"],
            map50_95=scores["mAP50-95"],
            epoch_s=round(statistics.median(self._epochs_s), 3) if self._epochs_s else None,
        )


def _scores(trainer: Any) -> Mapping[str, float | None]:
    return finite({name: trainer.metrics.get(f"metrics/{name}(B)", 0.0) for name in ("mAP50", "mAP50-95")})


def _gpu_memory(trainer: Any) -> int:
    return torch.cuda.memory_reserved(trainer.device) if trainer.device.type == "cuda" else 0
