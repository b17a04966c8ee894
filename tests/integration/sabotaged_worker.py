"""The real worker with a fault at the library's edge: `sabotaged_worker.py FAULT JOBDIR`. No switch for that is in the product."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.detect import DetectionTrainer

from azaion_daemon.training.worker.__main__ import main

FAULT, JOB = sys.argv[1], Path(sys.argv[2])
_preprocess = DetectionTrainer.preprocess_batch


def once() -> bool:
    """Whether this is the first time, of all attempts."""
    marker = JOB / "sabotaged"
    if marker.exists():
        return False
    marker.touch()
    return True


def big_batch(trainer: Any) -> None:
    """A batch of 4 does not fit any more, from the third epoch on."""
    if trainer.epoch >= 2 and trainer.batch_size > 2:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def any_batch(trainer: Any) -> None:
    """Nothing fits, from the second epoch on."""
    if trainer.epoch >= 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def lost_gpu(trainer: Any) -> None:
    """The GPU goes away in the third epoch."""
    if trainer.epoch == 2 and once():
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")


def dead_loader(trainer: Any) -> None:
    """A data loader is killed in the second epoch, as the kernel does when memory runs out."""
    if trainer.epoch == 1 and once():
        for child in psutil.Process().children():
            os.kill(child.pid, signal.SIGKILL)


def no_numbers(trainer: Any) -> None:
    """From the second epoch on the model gives no numbers any more."""
    if trainer.epoch >= 1:
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(torch.nan)


FAULTS: dict[str, Callable[[Any], None]] = {
    "big batch": big_batch,
    "any batch": any_batch,
    "lost gpu": lost_gpu,
    "dead loader": dead_loader,
    "no numbers": no_numbers,
}


def preprocess_batch(trainer: Any, batch: Any) -> Any:
    FAULTS[FAULT](trainer)
    return _preprocess(trainer, batch)


def get_dataloader(trainer: Any, *arguments: Any, **options: Any) -> Any:
    """On a CPU the library has no loader processes."""
    trainer.args.workers = 1
    return _get_dataloader(trainer, *arguments, **options)


DetectionTrainer.preprocess_batch = preprocess_batch
if FAULT == "dead loader":
    _get_dataloader = DetectionTrainer.get_dataloader
    DetectionTrainer.get_dataloader = get_dataloader
assert issubclass(DetectionTrainer, BaseTrainer)

if __name__ == "__main__":
    sys.exit(main(JOB.absolute()))
