"""Evaluations that were made before, a file each: the current model is not evaluated again with every candidate, nor after a kill.

The name is a digest of everything that the figures depend on. So a file is never wrong, at most of no use any more, and any may be removed.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from azaion_daemon.store.durable import replace_durably
from azaion_daemon.training.evaluation import CachedEvaluation, Metrics


class EvaluationCache:
    """A directory of evaluations. It saves time only: what cannot be read or written is made again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, wanted: CachedEvaluation) -> Metrics | None:
        """The figures of an evaluation like `wanted`, whose own do not matter."""
        path = self._path(wanted)
        try:
            found = CachedEvaluation.parse(path.read_bytes())
        except (OSError, ValidationError):
            return None
        if _key(found) != _key(wanted):
            return None
        with suppress(OSError):
            os.utime(path)  # what is used stays longest
        return found.metrics

    def put(self, evaluation: CachedEvaluation) -> None:
        """Keep an evaluation.

        Raises:
            OSError: It cannot be written; the caller may go on without.
        """
        self._directory.mkdir(exist_ok=True)
        replace_durably(self._path(evaluation), evaluation.render())

    def _path(self, evaluation: CachedEvaluation) -> Path:
        return self._directory / f"{evaluation.model[:12]}-{hashlib.sha256(_key(evaluation)).hexdigest()[:32]}.json"


def prune_evaluations(directory: Path, keep: int) -> int:
    """Remove all but the most recently used; how many that were."""
    if not directory.is_dir():
        return 0
    files = sorted(((entry.stat().st_mtime, entry.path) for entry in os.scandir(directory) if entry.name.endswith(".json")), reverse=True)
    for _, path in files[keep:]:
        Path(path).unlink(missing_ok=True)
    return len(files[keep:])


def _key(evaluation: CachedEvaluation) -> bytes:
    return evaluation.model_dump_json(exclude={"metrics"}).encode()
