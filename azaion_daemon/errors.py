"""One small hierarchy of errors, by who can do something about them.

Every message names what failed, on what, and what to do; the command line prints it as it is, without a traceback, and ends with the
class's exit code. Anything else that escapes is a fault of ours and keeps its traceback.
"""

import os
from collections.abc import Iterable


class AzaionError(Exception):
    """What every expected failure derives from. `exit_code` is the process's status when it ends a command."""

    exit_code = 1


class OperatorError(AzaionError):
    """The operator asked for what cannot be done: a wrong setting, a missing file, an unknown name."""

    exit_code = os.EX_CONFIG  # 78: the unit's RestartPreventExitStatus, since starting again would not help


class ConfigError(OperatorError):
    """The configuration is missing, unreadable or impossible."""


class RootError(OperatorError):
    """The root directory is not one that the daemon may work in: not mounted, not initialised, not writable, in use."""


class OutsideError(AzaionError):
    """Something outside failed: broker, platform, object store. Waiting or trying again may help."""


class NoAnswerError(OutsideError):
    """No daemon runs, or it does not say in time what became of what it was asked for."""


class StreamMismatchError(OutsideError):
    """The stream is not the one that the ledger's position belongs to."""

    exit_code = os.EX_CONFIG  # starting again would find the same stream; the operator decides


class StorageError(OutsideError):
    """The disk failed. What is in memory must not be trusted any more: stop, and start again from the ledger."""

    exit_code = os.EX_IOERR


class DamagedLedgerError(StorageError):
    """The ledger is no ledger any more. Starting again would find the same; the operator restores or rebuilds it."""

    exit_code = os.EX_CONFIG


class DiskFullError(StorageError):
    """No space is left, or a quota is reached. Nothing was lost; wait for space."""


class DatasetError(OperatorError):
    """The annotations at hand cannot be trained on. The message lists every problem."""


class DatasetPlaceError(DatasetError):
    """The annotations could be trained on, but not here and now: too little disk, files of another user. That may pass without them."""


class ResizeError(AzaionError):
    """Images could not be resized, whatever they were."""


class TrainingError(AzaionError):
    """A training job ended without a model."""


class ReleaseError(OutsideError):
    """A model could not be published, or what was published does not verify."""


def gravest(errors: Iterable[BaseException]) -> BaseException | None:
    """The one of several failures that must not hide behind the others: a disk that fails, before one that is only full. None of none."""
    return min(errors, key=_gravity, default=None)


def _gravity(error: BaseException) -> int:
    match error:
        case DiskFullError():
            return 2
        case StorageError():
            return 0
        case _:
            return 1


def raise_if_disk_failed(error: AzaionError) -> None:
    """A full disk fails the step that it happened to; a disk that fails must end the daemon."""
    if isinstance(error, StorageError) and not isinstance(error, DiskFullError):
        raise error
