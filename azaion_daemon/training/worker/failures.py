"""What an exception means for what to do next, and the sentence that tells the operator.

Everything here goes by an exception's type name and text, since torch is not to be imported for it.
"""

import errno
import re
from collections.abc import Callable
from typing import NamedTuple

from azaion_daemon.errors import DiskFullError, StorageError, TrainingError
from azaion_daemon.training.outcomes import Outcome


class Failure(NamedTuple):
    """What went wrong, in one sentence; `counts` is False for what is no failure of the job."""

    outcome: Outcome
    reason: str
    counts: bool = True


class PhaseError(TrainingError):
    """A phase found out by itself what is wrong."""

    def __init__(self, outcome: Outcome, reason: str, *, counts: bool = True) -> None:
        super().__init__(reason)
        self.failure = Failure(outcome, reason, counts)


def _matching(pattern: str) -> Callable[[str], bool]:
    expression = re.compile(pattern, re.IGNORECASE)
    return lambda text: expression.search(text) is not None


# The first rule that matches `TypeName: text` decides. Texts are those of torch 2.14 and ultralytics 8.4.190.
_RULES: tuple[tuple[Callable[[str], bool], Outcome, str], ...] = (
    (
        _matching(r"DataLoader worker .* killed by signal: Killed"),
        Outcome.OUT_OF_HOST_MEMORY,
        "A data loader was killed, most likely for the machine's memory: lower training.workers or training.batch_size.",
    ),
    (
        _matching(r"insufficient shared memory|killed by signal: Bus error"),
        Outcome.OUT_OF_HOST_MEMORY,
        "Shared memory is exhausted: give /dev/shm more room, or lower training.workers.",
    ),
    (
        _matching(r"OutOfMemoryError|MemoryError|out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED"),
        Outcome.OUT_OF_MEMORY,
        "The memory does not suffice for this model, image size and batch: lower training.batch_size or training.imgsz.",
    ),
    (
        _matching(r"NaN persisted|NaN/Inf (weights|detected)"),
        Outcome.DIVERGED,
        "The training diverged: losses became infinite or NaN. Lower lr0 in training.overrides, or look at the newest labels.",
    ),
    (
        _matching(r"Dataset '.*' error|No valid images found|No labels found|No images found|Error loading data from"),
        Outcome.BAD_DATA,
        "The dataset cannot be trained on",
    ),
    (
        _matching(r"is not a loadable checkpoint|TorchScript archive|supported Ultralytics checkpoint format|UnpicklingError"),
        Outcome.BAD_JOB,
        "The weights in training.model cannot be loaded",
    ),
    (
        _matching(r"not a valid YOLO argument|invalid (type|value)|must be (of|an?) |Optimizer '.*' not found|final batch=1"),
        Outcome.BAD_JOB,
        "A setting of the training is not possible",
    ),
    (
        _matching(r"CUDA error|CUDA driver|cuDNN|NCCL|no kernel image|No CUDA GPUs|Invalid CUDA|AcceleratorError"),
        Outcome.INFRASTRUCTURE,
        "The GPU or its driver failed",
    ),
    (_matching(r"ModuleNotFoundError|ImportError"), Outcome.INFRASTRUCTURE, "The installation is incomplete"),
)
_UNKNOWN = "The worker failed"
_DISK_FAILED = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT})
_LONGEST = 300


def classify(error: BaseException) -> Failure:
    """What an exception means. What no rule knows may go away by itself: infrastructure."""
    match error:
        case PhaseError():
            return error.failure
        case StorageError() if not is_disk_full(error):
            return Failure(Outcome.INFRASTRUCTURE, str(error))
        case TrainingError():
            return Failure(Outcome.BAD_JOB, str(error))
        case _:
            return _disk_behind(error) or _by_text(error)


def is_the_machines_fault(error: BaseException) -> bool:
    """Whether an exception is known to say something of the machine, and so nothing of what was worked on."""
    outcome, reason, _ = classify(error)
    return outcome in {Outcome.OUT_OF_MEMORY, Outcome.OUT_OF_HOST_MEMORY} or (
        outcome is Outcome.INFRASTRUCTURE and not reason.startswith(_UNKNOWN)
    )


def _by_text(error: BaseException) -> Failure:
    text = f"{type(error).__name__}: {error}"
    for matches, outcome, sentence in _RULES:
        if matches(text):
            return Failure(outcome, sentence if sentence.endswith(".") else f"{sentence}: {_shortened(str(error))}")
    return Failure(Outcome.INFRASTRUCTURE, f"{_UNKNOWN}: {_shortened(text)}")


def _disk_behind(error: BaseException | None) -> Failure | None:
    """Of an error that is, or was caused by, a disk that is full or fails: torch and the library wrap what they have met."""
    while error is not None:
        if is_disk_full(error):
            return Failure(Outcome.INFRASTRUCTURE, f"The disk is full: {_shortened(str(error))}", counts=False)
        if isinstance(error, OSError) and error.errno in _DISK_FAILED:
            return Failure(Outcome.INFRASTRUCTURE, f"The disk failed: {_shortened(str(error))}")
        error = error.__cause__ or error.__context__
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that there is no space left."""
    return isinstance(error, DiskFullError) or (isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT})


def _shortened(text: str) -> str:
    line = " ".join(re.sub(r"[^\x20-\x7e\s]", "", text).split())  # the library decorates its errors
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
