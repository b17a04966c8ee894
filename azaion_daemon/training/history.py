"""What a job's directory keeps of its way: each epoch, and each start of a worker."""

from pydantic import AwareDatetime

from azaion_daemon.training.document import Document
from azaion_daemon.training.outcomes import Outcome, Phase


class EpochRecord(Document):
    """One finished epoch, a line of `epochs.jsonl`. `epoch` counts from 1; what is no number is null."""

    epoch: int
    attempt: int
    finished: AwareDatetime
    seconds: float
    losses: dict[str, float | None] = {}
    val_losses: dict[str, float | None] = {}
    map50: float | None = None
    map50_95: float | None = None
    learning_rate: float | None = None
    images_per_s: float | None = None
    gpu_memory_bytes: int = 0


class Attempt(Document):
    """One start of a worker, as it ended, in `attempts.jsonl`. `epoch` is how many were finished and kept then."""

    number: int
    outcome: Outcome
    reason: str
    phase: Phase | None
    epoch: int
    batch_size: int
    gpus: tuple[str, ...]
    ended: AwareDatetime
    counts: bool = True
    """False for what is no failure of the job: the machine went down, the disk was full."""
    workers: int | None = None
    """Of data loaders; None in histories of before it was noted."""
