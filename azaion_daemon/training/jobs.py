"""A training job: its states, what it is asked to do, what it reports, and the directory that all of it lives in.

    job.json          what the run needs, written by the daemon (`JobSpec`)
    start/            a copy of the file that it starts from, so that nothing that happens to the original changes the job
    lock              locked (flock) by the worker for as long as it lives
    identity.json     which process that is, and how often this job was started
    progress.json     replaced about once a second
    prepared, trained, exported, evaluated, reported
                      one marker for each finished phase: a restart begins at the first phase without one
    comparison.json   what the model is to be evaluated on and compared with, written by the daemon (`Comparison`)
    curves.json       what its figures come from, for its report (`Curves`)
    run/              the library's own directory; it may remove it
    checkpoints/      whole pairs of last.pt and best.pt, the newest two
    model.pt, model.onnx
                      what came out
    report.html       the same for people, one self-contained page; the daemon puts the verdict into it
    reporting         a byte for each start of the phase that makes it, until it is made
    epochs.jsonl      a line for each finished epoch (`history.EpochRecord`)
    worker.log        the worker's stdout and stderr, of all its starts
    result.json       outcome and reason, written last; result.N.json are those of earlier attempts
    attempts.jsonl    each start of a worker as it ended, a line each, written by the daemon
    dataset/          of a trial: the sample that it is trained on

There is no other channel between daemon and worker, so either may die, and the worker may run on another machine.
"""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, Field, JsonValue, ValidationError

from azaion_daemon.errors import TrainingError
from azaion_daemon.store.durable import fsync_directory, replace_atomically, replace_durably, storage
from azaion_daemon.training.document import Document
from azaion_daemon.training.evaluation import Comparison, Curves, Evaluation, Metrics
from azaion_daemon.training.history import Attempt, EpochRecord
from azaion_daemon.training.journal import append_line, read_lines, replace_lines
from azaion_daemon.training.outcomes import Outcome, Phase

PROTOCOL = 1  # raise it when a worker of the release before could not run or report a job of this one


_MARKERS: Mapping[Phase, str] = MappingProxyType(
    {
        Phase.PREPARE: "prepared",
        Phase.TRAIN: "trained",
        Phase.EXPORT: "exported",
        Phase.EVALUATE: "evaluated",
        Phase.REPORT: "reported",
    },
)


_D = TypeVar("_D", bound=Document)


class JobSpec(Document):
    """Everything that a run needs. Paths are absolute; `imgsz` and `export_imgsz` are pixels of a square side."""

    protocol: Annotated[int, Field(ge=PROTOCOL, le=PROTOCOL)] = PROTOCOL
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    dataset_id: str
    dataset_name: str
    data_yaml: Path
    class_names: tuple[str, ...]
    model: str  # an absolute path of a .pt, or the bare name of an architecture such as yolo26n.yaml
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    imgsz: Annotated[int, Field(ge=32)]
    save_period: Annotated[int, Field(ge=1)]
    workers: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)] = 0
    deterministic: bool = True
    overrides: dict[str, JsonValue] = {}
    export_imgsz: Annotated[int, Field(ge=32)]
    export_batch: Annotated[int, Field(ge=1)] = 4
    gpus: tuple[str, ...] = ()  # UUIDs; none means the CPU
    leases: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], ...] = ()  # the worker holds all of them
    gpus_per_job: Annotated[int, Field(ge=1)] = 1
    max_attempts: Annotated[int, Field(ge=1)] = 5
    trial: bool = False  # on a sample, for one epoch, to see whether everything works
    started_from: Literal["base", "current"] = "base"  # what `model` is
    model_sha256: str | None = None  # of `model`, where it is a file
    python: str = ""  # the interpreter of the release that the job began with; it is resumed with the same one
    gpu_locks: Path  # the directory of the leases' lock files
    nice: Annotated[int, Field(ge=0, le=19)] = 10

    @property
    def held(self) -> tuple[str, ...]:
        """The names of the leases, in the order in which every worker takes them. Jobs of earlier releases name their GPUs alone."""
        return tuple(sorted(self.leases or self.gpus))

    def render(self) -> bytes:
        """As JSON: what it was made or read with, and what was changed since.

        A job is resumed by the release that it began with, which refuses a field that only a later one has.
        """
        spec = self.model_copy(update={"protocol": self.protocol})
        return spec.model_dump_json(indent=1, exclude_unset=True).encode() + b"\n"


class Progress(Document):
    """How far a worker is. `epoch` and `batch` count from 1; a loss that is not a number is null.

    Within a phase, `step`, `epoch`, `batch` and `batches` change only where the work itself gets on: by that it is told from a hang.
    """

    phase: Phase
    epoch: int = 0
    epochs: int = 0
    batch: int = 0
    batches: int = 0
    losses: dict[str, float | None] = {}
    map50: float | None = None
    map50_95: float | None = None
    gpu_memory_bytes: int = 0
    memory_bytes: int = 0  # of the worker and its children, without what they share
    step: str = ""  # what is done within the phase, where that needs a word
    batch_s: float | None = None  # median
    epoch_s: float | None = None  # median, validation included
    images_per_s: float | None = None
    attempt: int = 1
    started: AwareDatetime
    phase_started: AwareDatetime
    updated: AwareDatetime


class ModelFile(Document):
    """A file that came out; `path` is relative to the job's directory."""

    path: str
    sha256: str
    size_bytes: int


class PhaseRecord(Document):
    """The content of a marker: a phase's end, its duration and what later ones and the result take from it."""

    finished: AwareDatetime
    seconds: float
    details: dict[str, JsonValue] = {}


class JobResult(Document):
    """How an attempt ended. `reason` is one sentence for the operator; empty when all went well."""

    outcome: Outcome
    reason: str = ""
    log_tail: str = ""  # of worker.log, when the worker could not say anything itself
    pt: ModelFile | None = None
    onnx: ModelFile | None = None
    metrics: Metrics | None = None  # on the candidate's own test images
    evaluation: Evaluation | None = None
    dataset_id: str | None = None
    settings: dict[str, JsonValue] = {}
    versions: dict[str, str] = {}
    seconds: dict[Phase, float] = {}
    attempts: int = 0
    counts: bool = True  # False for what is no failure of the job: a full disk, a lease that another one had
    finished: AwareDatetime


class Identity(Document):
    """A process, beyond doubt: a pid alone is used again. `token` stands in the environment of all its children."""

    pid: int
    start_ticks: int  # field 22 of /proc/PID/stat
    boot_id: str
    token: str
    attempt: int


class JobDirectory:
    """The one place that knows the names in a job's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "lock"
        self.log = path / "worker.log"
        self.run = path / "run"
        self.checkpoints = path / "checkpoints"
        self.library_home = path / "home"  # where the library keeps its settings and fonts
        self.start = path / "start"
        self.sample = path / "dataset"
        self.attempts = path / "attempts.jsonl"
        self.pt = path / "model.pt"
        self.onnx = path / "model.onnx"
        self.report = path / "report.html"
        self.reporting = path / "reporting"
        self.epochs = path / "epochs.jsonl"

    def worked_with(self) -> list[Path]:
        """What is worthless once the job has ended, and large."""
        directories = (self.start, self.run, self.checkpoints, self.library_home, self.sample)
        return [path for path in directories if path.is_dir() and not path.is_symlink()]

    def drop_weights(self) -> None:
        """Remove what nobody needs once all phases are finished: checkpoints, and the library's own weights. Its curves stay."""
        for directory in (self.checkpoints, *self.run.glob("*/weights"), self.run / "export"):
            shutil.rmtree(directory, ignore_errors=True)

    def create(self, spec: JobSpec) -> None:
        """Make the directory, durably, with the job in it. Once more with the same job changes nothing."""
        with storage("Making a job's directory"):
            self.path.mkdir(parents=True, exist_ok=True)
            replace_durably(self.path / "job.json", spec.render())
            fsync_directory(self.path.parent)

    def read_interpreter(self) -> str:
        """The Python that the job began with, also of a job that this release cannot read; empty where none is named."""
        try:
            document = json.loads((self.path / "job.json").read_bytes())
        except (OSError, ValueError):
            return ""
        named = document.get("python") if isinstance(document, dict) else None
        return named if isinstance(named, str) else ""

    def read_spec(self) -> JobSpec:
        """What the run needs.

        Raises:
            TrainingError: job.json is missing, damaged, or of a protocol that this release does not speak.
        """
        file = self.path / "job.json"
        try:
            content = file.read_bytes()
            document = json.loads(content)
            protocol = document.get("protocol") if isinstance(document, dict) else None
            if protocol != PROTOCOL:
                raise TrainingError(
                    f"{file} has protocol {protocol}, this release speaks {PROTOCOL}. Run it with the release that wrote it."
                )
            return JobSpec.parse(content)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{file} is not a training job: {_first_line(error)}") from error

    def read_progress(self) -> Progress | None:
        """How far the worker is, as far as it said. It is never synced: what a power cut has left of it is worth no training."""
        try:
            return self._read("progress.json", Progress)
        except TrainingError:
            return None

    def write_progress(self, progress: Progress) -> None:
        """Replace the progress."""
        replace_atomically(self.path / "progress.json", progress.render())

    def read_epochs(self) -> list[EpochRecord]:
        """The epochs that were finished, the first one first."""
        return read_lines(self.epochs, EpochRecord)

    def append_epoch(self, record: EpochRecord) -> None:
        """Say that an epoch is finished; by the holder of the lock."""
        append_line(self.epochs, record)

    def forget_epochs_after(self, epoch: int) -> None:
        """Before going on from a checkpoint: what was finished after it is going to be finished again."""
        known = self.read_epochs()
        kept = {record.epoch: record for record in known if record.epoch <= epoch}
        if len(kept) < len(known):
            replace_lines(self.epochs, [kept[number] for number in sorted(kept)])

    def read_attempts(self) -> list[Attempt]:
        """The starts of workers that have ended, the first one first."""
        return read_lines(self.attempts, Attempt)

    def append_attempt(self, attempt: Attempt) -> None:
        """Say how a start of a worker ended; by the daemon."""
        append_line(self.attempts, attempt)

    def read_identity(self) -> Identity | None:
        """Which process was the last to hold the lock."""
        return self._read("identity.json", Identity)

    def write_identity(self, identity: Identity) -> None:
        """Say who holds the lock; by the holder only."""
        replace_durably(self.path / "identity.json", identity.render())

    def marker(self, phase: Phase) -> PhaseRecord | None:
        """The record of a phase, if it is finished."""
        return self._read(_MARKERS[phase], PhaseRecord)

    def mark(self, phase: Phase, seconds: float, details: dict[str, JsonValue]) -> None:
        """Say that a phase is finished; what it made must be durable by now."""
        record = PhaseRecord(finished=datetime.now(UTC), seconds=round(seconds, 3), details=details)
        replace_durably(self.path / _MARKERS[phase], record.render())

    def reopen(self, phase: Phase) -> None:
        """Have a phase and those after it done once more, durably. No worker may have the job."""
        phases = list(Phase)
        for later in reversed(phases[phases.index(phase) :]):
            (self.path / _MARKERS[later]).unlink(missing_ok=True)
        fsync_directory(self.path)

    def read_comparison(self) -> Comparison | None:
        """What the model is to be evaluated on; None where that is not said."""
        return self._read("comparison.json", Comparison)

    def write_comparison(self, comparison: Comparison) -> None:
        """Say what the model is to be evaluated on."""
        replace_durably(self.path / "comparison.json", comparison.render())

    def read_curves(self) -> Curves | None:
        """What the model's figures come from, once it is evaluated."""
        return self._read("curves.json", Curves)

    def write_curves(self, curves: Curves) -> None:
        """Say what the model's figures come from."""
        replace_durably(self.path / "curves.json", curves.render())

    def read_result(self) -> JobResult | None:
        """How the attempt ended, if it has."""
        return self._read("result.json", JobResult)

    def write_result(self, result: JobResult) -> None:
        """Say how the attempt ended; nothing is written after it."""
        replace_durably(self.path / "result.json", result.render())

    def retire_result(self) -> None:
        """Make room for another attempt: while there is a result, no worker does anything."""
        earlier = len(list(self.path.glob("result.*.json")))
        with storage("retiring a result"):
            (self.path / "result.json").rename(self.path / f"result.{earlier + 1}.json")
            fsync_directory(self.path)

    def _read(self, name: str, kind: type[_D]) -> _D | None:
        try:
            return kind.parse((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise TrainingError(
                f"{self.path / name} cannot be understood: {_first_line(error)}. Was it written by another release?"
            ) from error


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
    return str(error).splitlines()[0]
