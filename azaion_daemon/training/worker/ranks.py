"""What the processes of a training on several GPUs leave for the worker that started them, which sees no more than an exit status."""

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime

from azaion_daemon.store.durable import replace_atomically
from azaion_daemon.training.document import Document
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.processes import oom_kills
from azaion_daemon.training.worker.failures import Failure

_NO_SPACE_BYTES = 1 << 20


class _Word(Document):
    rank: int
    outcome: Outcome
    reason: str
    counts: bool
    at: AwareDatetime


def clear(job: JobDirectory) -> None:
    """Before they are started: what a killed start has left, the library's scripts with their copies of the model too."""
    for left in (_place(job), job.library_home / "Ultralytics" / "DDP"):
        shutil.rmtree(left, ignore_errors=True)
    _place(job).mkdir(parents=True)


def leave(job: JobDirectory, rank: int, failure: Failure) -> None:
    """Say why a rank ends."""
    word = _Word(rank=rank, outcome=failure.outcome, reason=failure.reason, counts=failure.counts, at=datetime.now(UTC))
    with suppress(OSError):  # the error itself goes on, and is in worker.log
        replace_atomically(_place(job) / f"{rank}.json", word.render())


def failure(job: JobDirectory, oom_kills_before: int) -> Failure:
    """Why they failed: the first of them, but those that only lost a neighbour come last."""
    words = [_Word.parse(file.read_bytes()) for file in _place(job).glob("[0-9]*.json")]
    if words:
        first = min(words, key=lambda word: (word.outcome is Outcome.INFRASTRUCTURE and word.counts, word.at))
        return Failure(first.outcome, first.reason, first.counts)
    if shutil.disk_usage(job.path).free < _NO_SPACE_BYTES:
        return Failure(Outcome.INFRASTRUCTURE, "The disk is full. Free some space.", counts=False)
    if oom_kills() > oom_kills_before:
        return Failure(Outcome.OUT_OF_HOST_MEMORY, "A process of the training was killed for the machine's memory: lower training.workers.")
    return Failure(Outcome.INFRASTRUCTURE, "A process of the training died without a word: see the end of worker.log.")


def _place(job: JobDirectory) -> Path:
    return job.run / "ranks"
