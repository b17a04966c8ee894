"""What an exception of the worker means."""

import errno
from importlib import metadata

import pytest

from azaion_daemon.errors import DiskFullError, StorageError, TrainingError
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.worker.failures import PhaseError, classify, is_the_machines_fault
from azaion_daemon.training.worker.versions import versions


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def wrapped(cause: Exception, text: str = "PytorchStreamWriter failed writing file data/3") -> Exception:
    error = RuntimeError(text)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), Outcome.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Outcome.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), Outcome.OUT_OF_MEMORY),
        (MemoryError(), Outcome.OUT_OF_MEMORY),
        (RuntimeError("DataLoader worker (pid(s) 12) is killed by signal: Killed."), Outcome.OUT_OF_HOST_MEMORY),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Bus error."), Outcome.OUT_OF_HOST_MEMORY),
        (RuntimeError("Training failed: NaN persisted for 4 epochs"), Outcome.DIVERGED),
        (RuntimeError("Checkpoint last.pt is corrupted with NaN/Inf weights"), Outcome.DIVERGED),
        (RuntimeError("Loss NaN/Inf detected but no valid last.pt is available for recovery"), Outcome.DIVERGED),
        (RuntimeError("Dataset 'data.yaml' error ❌ missing path"), Outcome.BAD_DATA),
        (TypeError("ERROR ❌️ a.pt is not a loadable checkpoint — the file is empty"), Outcome.BAD_JOB),
        (SyntaxError("'lr' is not a valid YOLO argument. Similar arguments are lr0."), Outcome.BAD_JOB),
        (NotImplementedError("Optimizer 'Best' not found in list of available optimizers"), Outcome.BAD_JOB),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Outcome.INFRASTRUCTURE),
        (ModuleNotFoundError("No module named 'onnxslim'"), Outcome.INFRASTRUCTURE),
        (OSError(errno.ENOSPC, "No space left on device"), Outcome.INFRASTRUCTURE),
        (wrapped(OSError(errno.EIO, "Input/output error"), "Error loading data from train/images"), Outcome.INFRASTRUCTURE),
        (wrapped(FileNotFoundError(errno.ENOENT, "No such file"), "Error loading data from train/images"), Outcome.BAD_DATA),
        (DiskFullError("Keeping a checkpoint: No space left on device."), Outcome.INFRASTRUCTURE),
        (TrainingError("job.json has protocol 2, this release speaks 1."), Outcome.BAD_JOB),
        (PhaseError(Outcome.BAD_DATA, "The dataset has no part test."), Outcome.BAD_DATA),
        (ZeroDivisionError("division by zero"), Outcome.INFRASTRUCTURE),
    ],
    ids=lambda value: f"{type(value).__name__}: {value}"[:50],
)
def test_every_failure_has_its_outcome_and_one_sentence(error: Exception, outcome: Outcome) -> None:
    found, reason, _ = classify(error)
    assert found is outcome
    assert reason
    assert "\n" not in reason


def test_a_long_text_is_shortened_and_loses_its_decoration() -> None:
    _, reason, _ = classify(ValueError("❌ first\n   second " + "x" * 1000))
    assert reason.startswith("The worker failed: ValueError: first second xxx")
    assert len(reason) < 400


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "last.pt"), False),
        (DiskFullError("Keeping a checkpoint: No space left on device."), False),
        (wrapped(OSError(errno.EDQUOT, "Disk quota exceeded")), False),
        (wrapped(ValueError("anything")), True),
        (StorageError("Keeping a checkpoint: Input/output error."), True),
    ],
    ids=["the library's own file", "ours", "behind another error", "no full disk", "a disk that fails"],
)
def test_a_full_disk_is_no_failure_of_the_job(error: Exception, *, counts: bool) -> None:
    failure = classify(error)
    assert (failure.outcome, failure.counts) == (Outcome.INFRASTRUCTURE, counts)
    assert ("The disk is full" in failure.reason) is not counts


def test_what_is_not_installed_has_no_version_and_costs_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name.startswith("torch"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert versions(None)["torch"] == "unknown"
    assert versions(None)["onnxruntime"] != "unknown"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (FileNotFoundError("train: Error loading data from /d/train/images"), False),
        (ValueError("could not determine a constructor for the tag"), False),
    ],
)
def test_a_fault_of_the_machine_is_none_of_the_data(error: Exception, *, expected: bool) -> None:
    assert is_the_machines_fault(error) is expected
