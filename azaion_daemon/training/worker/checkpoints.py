"""Checkpoints that survive: whole pairs of last.pt and best.pt, with the results.csv of that moment.

The library truncates its last.pt and rewrites it in place, so a kill at that moment leaves none. Here a pair is a directory
`checkpoints/NNNNNN` (the epoch, from 0), filled under a temporary name, synced, loaded once, and renamed. The newest two are kept: should
the newest turn out unreadable after all, one epoch or `save_period` is lost and not the training. Only while a pair is being written there
is a third.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from azaion_daemon.store.durable import copy_durably, fsync_directory, storage
from azaion_daemon.training.worker.progress import say

_KEPT = 2
_FILES = ("last.pt", "best.pt", "results.csv")


@dataclass(frozen=True)
class Pair:
    """One directory of checkpoints; `epoch` counts from 0."""

    path: Path
    epoch: int

    @property
    def last(self) -> Path:
        """The state after the epoch, to resume from."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The best model up to the epoch."""
        return self.path / "best.pt"


def pairs(directory: Path) -> list[Pair]:
    """The pairs there are, the newest first."""
    found = [Pair(path, int(path.name)) for path in directory.iterdir() if path.name.isdecimal()]
    return sorted(found, key=lambda pair: pair.epoch, reverse=True)


def newest_good(candidates: Iterable[Pair], is_good: Callable[[Pair], bool]) -> Pair | None:
    """The first that is good; those before it are torn."""
    return next((pair for pair in candidates if is_good(pair)), None)


def loads(pair: Pair) -> bool:
    """Whether a pair can be resumed from: both load, and last.pt has its epoch and the optimizer's state, which a finished one has not."""
    from ultralytics.nn.tasks import torch_safe_load  # noqa: PLC0415 - heavy, and the choice of a pair is tested without it

    try:
        # Only ever what this job wrote itself; should another lie there, nothing in it runs.
        last, _ = torch_safe_load(pair.last, safe_only=True)
        best, _ = torch_safe_load(pair.best, safe_only=True)
        return bool(last["epoch"] == pair.epoch and last["optimizer"] and last["ema"] and (best["ema"] or best["model"]))
    except (MemoryError, ImportError):  # says nothing about the file: better to fail than to begin a training anew
        raise
    except Exception as error:  # noqa: BLE001 - a torn pickle raises anything at all
        say(f"{pair.path} cannot be loaded: {type(error).__name__}: {error}")
        return False


def keep(weights: Path, directory: Path, epoch: int, *, is_good: Callable[[Pair], bool] = loads) -> bool:
    """Copy the library's weights of an epoch into a pair of their own, and drop the oldest; False when the copy is no good.

    Args:
        weights: The library's directory with last.pt and best.pt; results.csv lies beside it.
        directory: Where the pairs are.
        epoch: The epoch that was just saved, from 0.
        is_good: The check that a pair must pass before older ones go.
    """
    temporary = directory / f".{epoch:06d}.tmp"
    with storage("Keeping a checkpoint"):
        _remove_debris(directory)
        temporary.mkdir()
        try:
            for name in _FILES:
                source = weights / name if name.endswith(".pt") else weights.parent / name
                copy_durably(source, temporary / name)
            if not is_good(Pair(temporary, epoch)):
                return False
            final = directory / f"{epoch:06d}"
            if final.exists():  # of an attempt that was resumed from an older one
                shutil.rmtree(final)
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs its space at once
        fsync_directory(directory)
        for old in pairs(directory)[_KEPT:]:
            shutil.rmtree(old.path)
    return True


def restore(pair: Pair, weights: Path) -> None:
    """Put a pair where the library looks for it, in place of whatever a kill left there. Newer pairs are torn, and go."""
    with storage("Restoring a checkpoint"):
        directory = pair.path.parent
        _remove_debris(directory)
        for torn in (one for one in pairs(directory) if one.epoch > pair.epoch):
            shutil.rmtree(torn.path)
        weights.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            copy_durably(pair.path / name, weights / name if name.endswith(".pt") else weights.parent / name)


def _remove_debris(directory: Path) -> None:
    for debris in directory.glob(".*.tmp"):
        shutil.rmtree(debris)
