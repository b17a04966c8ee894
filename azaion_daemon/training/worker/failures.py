"""What an exception means for what to do next, and the sentence that tells the operator.

Everything here goes by an exception's type name and text, since torch is not to be imported for it.
"""

import errno
import re
from collections.abc import Callable

from azaion_daemon.errors import StorageError, TrainingError
from azaion_daemon.training.jobs import Outcome


class PhaseError(TrainingError):
    """A phase found out by itself what is wrong."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


def _matching(pattern: str) -> Callable[[str], bool]:
    expression = re.compile(pattern, re.IGNORECASE)
    return lambda text: expression.search(text) is not None


# The first rule that matches `TypeName: text` decides. Texts are those of torch 2.14 and ultralytics 8.4.190.
_RULES: tuple[tuple[Callable[[str], bool], Outcome, str], ...] = (
    (
        _matching(r"DataLoader worker .* killed by signal: Killed"),
        Outcome.OUT_OF_MEMORY,
        "A data loader was killed, most likely for the machine's memory: lower training.workers or training.batch_size.",
    ),
    (
        _matching(r"insufficient shared memory|killed by signal: Bus error"),
        Outcome.INFRASTRUCTURE,
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
_LONGEST = 300


def classify(error: BaseException) -> tuple[Outcome, str]:
    """The outcome, and one sentence for the operator. What no rule knows may go away by itself: infrastructure."""
    match error:
        case PhaseError():
            return error.outcome, str(error)
        case StorageError():
            return Outcome.INFRASTRUCTURE, str(error)
        case TrainingError():
            return Outcome.BAD_JOB, str(error)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Outcome.INFRASTRUCTURE, f"The disk is full: {error}"
        case _:
            pass
    text = f"{type(error).__name__}: {error}"
    for matches, outcome, sentence in _RULES:
        if matches(text):
            return outcome, sentence if sentence.endswith(".") else f"{sentence}: {_shortened(str(error))}"
    return Outcome.INFRASTRUCTURE, f"The worker failed: {_shortened(text)}"


def _shortened(text: str) -> str:
    line = " ".join(re.sub(r"[^\x20-\x7e\s]", "", text).split())  # the library decorates its errors
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
