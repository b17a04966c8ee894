"""Which weights a training starts from, and a copy of them in the job's directory.

A checkpoint is a pickle: loading one runs what is in it. So only two kinds are ever loaded: what the operator named as `training.model`,
and what a job of ours made, which is told by the digest in that job's result. A job keeps its own copy, so that neither a new current model
nor another file in the base model's place changes a training under way or its next attempt.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from azaion_daemon.errors import TrainingError
from azaion_daemon.sections import TrainingSettings
from azaion_daemon.store.digests import file_digest
from azaion_daemon.store.durable import copy_durably, fsync_directory, storage
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Model
from azaion_daemon.training.jobs import JobDirectory, JobResult

StartedFrom = Literal["base", "current"]


@dataclass(frozen=True, slots=True)
class Source:
    """Weights to start from. `why` says, in a sentence, why they are not those that the settings ask for."""

    kind: StartedFrom
    model: str
    """As the settings name it: a name, or an absolute path."""
    file: Path | None
    """None for an architecture that the library knows by its name, and for a file that is not there."""
    sha256: str | None = None
    """What it must have, where that is known."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """What a job starts from, as its spec says it."""

    kind: StartedFrom
    model: str
    sha256: str | None
    why: str = ""


def choose_source(training: TrainingSettings, layout: Layout, current: Model | None) -> Source:
    """The weights that the next job starts from; `current` is the current model. Looks at files.

    Fine-tuning needs the current model's checkpoint as its job made it: a model that was taken over has none that could be told from any
    other file, and is left alone.
    """
    file = layout.models / training.model
    base = Source("base", training.model, file if file.is_file() else None)
    if training.start_from == "base":
        return base
    if current is None:
        return _instead(base, "there is no current model")
    if current.job is None:
        return _instead(base, f"the current model {current.sha256[:12]} was taken over, so whose checkpoint lies beside it is not known")
    checkpoint = Path(current.path).with_name(layout.pt.name)
    try:
        result = JobResult.parse(checkpoint.with_name("result.json").read_bytes())
    except (OSError, ValidationError):
        return _instead(base, f"{checkpoint.parent} does not say what the checkpoint of the current model is")
    if not checkpoint.is_file() or result.pt is None or result.onnx is None or result.onnx.sha256 != current.sha256:
        return _instead(base, f"{checkpoint.parent} has no checkpoint of the current model")
    return Source("current", str(checkpoint), checkpoint, result.pt.sha256)


def _instead(base: Source, why: str) -> Source:
    return Source(base.kind, base.model, base.file, why=f"{why}: the training starts from {base.model}")


def take(source: Source, directory: JobDirectory) -> Start | None:
    """Copy the weights, durably, into a job's directory, which is made if need be; None when they are not what they must be.

    Once more is the same as once.

    Raises:
        TrainingError: They cannot be read.
        StorageError: They cannot be written.
    """
    if source.file is None:
        return Start(source.kind, source.model, None, source.why)
    try:
        source.file.open("rb").close()
    except OSError as error:
        raise TrainingError(f"{source.file} cannot be read: {error.strerror}. Give it to the user of the daemon.") from error
    copy = directory.start / source.file.name  # the library reads the size of an architecture (n, s, m) from its name
    with storage("keeping the weights that a job starts from"):
        directory.start.mkdir(parents=True, exist_ok=True)
        copy_durably(source.file, copy)
        fsync_directory(directory.path)
        sha256 = file_digest(copy)
        if source.sha256 is not None and sha256 != source.sha256:
            copy.unlink()
            return None
    return Start(source.kind, str(copy), sha256, source.why)


def take_for(training: TrainingSettings, layout: Layout, current: Model | None, directory: JobDirectory) -> Start:
    """Choose the weights of a job and copy them into its directory. What is not as its job made it is not used.

    Raises:
        TrainingError: They cannot be read.
        StorageError: They cannot be written.
    """
    source = choose_source(training, layout, current)
    start = take(source, directory)
    if start is None:
        base = choose_source(training.model_copy(update={"start_from": "base"}), layout, None)
        start = take(_instead(base, f"{source.file} is not the checkpoint that the job of the current model made"), directory)
    assert start is not None  # a base model may be anything
    return start
