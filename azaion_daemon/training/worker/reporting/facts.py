"""What a report says, gathered from a job's directory and its dataset. What is missing or damaged is left out, and that is said."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from azaion_daemon.errors import TrainingError
from azaion_daemon.training.document import Document
from azaion_daemon.training.evaluation import F1, Comparison, Curves, Evaluated, Evaluation, Metrics
from azaion_daemon.training.history import Attempt, EpochRecord
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.journal import read_whole
from azaion_daemon.training.outcomes import Phase

SIDES = ("train", "valid", "test")
_PREFIX_TRAIN, _PREFIX_VALID = "train/", "val/"


class _Lenient(BaseModel):
    """A document of another part: what else it holds does not matter here."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ClassCounts(_Lenient):
    """One class of dataset.json."""

    name: str
    images: dict[str, int]
    objects: dict[str, int]

    @property
    def total(self) -> int:
        """Its objects on all sides."""
        return sum(self.objects.values())


class Remark(_Lenient):
    """What was worth a word when the dataset was formed."""

    code: str
    what: str
    remedy: str


class DatasetDocument(_Lenient):
    """dataset.json, as far as a report shows it."""

    id: str
    name: str
    created: AwareDatetime
    images: dict[str, int]
    objects: dict[str, int]
    backgrounds: dict[str, int] = {}
    media: dict[str, int] = {}
    classes: tuple[ClassCounts, ...]
    excluded: dict[str, int] = {}
    remarks: tuple[Remark, ...] = ()


_D = TypeVar("_D", bound=Document)


@dataclass(frozen=True)
class Facts:
    """All that a report says but for the sample predictions. `problems` are what could not be read, a sentence each."""

    spec: JobSpec
    made: datetime
    metrics: Metrics
    evaluation: Evaluation | None
    comparison: Comparison | None
    dataset: DatasetDocument | None
    curves: Curves | None
    epochs: tuple[EpochRecord, ...]
    attempts: tuple[Attempt, ...]
    attempt: int
    seconds: Mapping[Phase, float]
    versions: Mapping[str, str]
    hardware: str
    problems: tuple[str, ...] = ()


def gather(job: JobDirectory, spec: JobSpec, evaluated: Evaluated, *, versions: Mapping[str, str], hardware: str) -> Facts:
    """Read everything that there is."""
    problems: list[str] = []
    identity = job.read_identity()
    records = {phase: record for phase in Phase if phase is not Phase.REPORT and (record := job.marker(phase)) is not None}
    return Facts(
        spec=spec,
        made=datetime.now(UTC),
        metrics=evaluated.metrics,
        evaluation=evaluated.evaluation,
        comparison=_unless_damaged(job.read_comparison, problems),
        dataset=_dataset(spec.data_yaml.with_name("dataset.json"), problems),
        curves=_unless_damaged(job.read_curves, problems),
        epochs=tuple(_lines(job.epochs, EpochRecord, problems)) or tuple(library_epochs(job.run / "train" / "results.csv")),
        attempts=tuple(_lines(job.attempts, Attempt, problems)),
        attempt=1 if identity is None else identity.attempt,
        seconds={phase: record.seconds for phase, record in records.items()},
        versions=versions,
        hardware=hardware,
        problems=tuple(problems),
    )


def library_epochs(results: Path) -> Iterator[EpochRecord]:
    """The epochs in the library's own results.csv; what is no number there is none here. Nothing where there is no such file."""
    try:
        rows = list(csv.DictReader(results.read_text(encoding="utf-8", errors="replace").splitlines(), skipinitialspace=True))
    except OSError:
        return
    before = 0.0
    finished = datetime.fromtimestamp(results.stat().st_mtime, UTC)
    for row in rows:
        values = {name.strip(): _number(value) for name, value in row.items() if name}
        epoch, elapsed = values.get("epoch"), values.get("time") or before
        if epoch is None:
            continue
        yield EpochRecord(
            epoch=int(epoch),
            attempt=1,
            finished=finished,
            seconds=max(0.0, elapsed - before),
            losses=_part(values, _PREFIX_TRAIN),
            val_losses=_part(values, _PREFIX_VALID),
            map50=values.get("metrics/mAP50(B)"),
            map50_95=values.get("metrics/mAP50-95(B)"),
            learning_rate=values.get("lr/pg0"),
        )
        before = elapsed


def mean_curve(at: Sequence[float], curves: Mapping[str, Sequence[float]]) -> list[tuple[float, float | None]]:
    """The mean of all classes at each place; None where there is no number."""
    return [(x, _mean(column)) for x, column in zip(at, zip(*curves.values(), strict=False), strict=False)]


def best_confidence(f1: F1) -> float | None:
    """Where the mean F1 is highest; None without a number."""
    points = [(value, confidence) for confidence, value in mean_curve(f1.confidence, f1.f1) if value is not None]
    return max(points)[1] if points else None


def _mean(values: tuple[float, ...]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _part(values: Mapping[str, float | None], prefix: str) -> dict[str, float | None]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _number(text: str | None) -> float | None:
    with suppress(TypeError, ValueError):
        value = float(text or "")
        return value if math.isfinite(value) else None
    return None


def _unless_damaged(read: Callable[[], _D | None], problems: list[str]) -> _D | None:
    try:
        return read()
    except (OSError, TrainingError) as error:
        problems.append(str(error))
        return None


def _dataset(path: Path, problems: list[str]) -> DatasetDocument | None:
    try:
        return DatasetDocument.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        problems.append(f"{path} cannot be read ({type(error).__name__}); what it says is left out.")
        return None


def _lines(path: Path, kind: type[_D], problems: list[str]) -> list[_D]:
    """The lines of a file that are whole; a power cut may have torn one."""
    try:
        found, torn = read_whole(path, kind)
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({type(error).__name__}); what it says is left out.")
        return []
    if torn:
        problems.append(f"{torn} of the {len(found) + torn} lines of {path.name} are torn and left out.")
    return found
