"""Models for operators: which there are, what one reaches and why it is what it is; promoting and rejecting. Works without a daemon too.

The documents are for programs too: their keys stay. A model is named by its SHA-256 or by its job, or by the beginning of either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azaion_daemon.errors import OperatorError, TrainingError
from azaion_daemon.ops.reading import reading, unreadable
from azaion_daemon.ops.requests import ask, checked_reason
from azaion_daemon.retention.facts import look_at_disk
from azaion_daemon.retention.rules import predecessor
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Job, Model, Release
from azaion_daemon.store.root import identify_root
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.states import JobState

_WAIT_S = 300.0  # a promotion copies a model and reads it to its end
_SHORTEST_PREFIX = 4
_LEFT_TO_OPERATORS = frozenset({JobState.HELD, JobState.REJECTED})


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is or was kept, or one that was judged and is not: then there is only its job."""

    model: Model | None
    job: Job | None
    state: str
    """What it is: current, predecessor, kept, gone (its files), held or rejected."""

    @property
    def id(self) -> str:
        """What it is named by."""
        return self.model.sha256 if self.model is not None else self.job.id if self.job is not None else ""


class Catalogue:
    """All models, as the ledger and the disk have them."""

    def __init__(self, layout: Layout) -> None:
        """Read everything.

        Raises:
            RootError: The root or its ledger cannot be read.
        """
        identify_root(layout)
        self._layout = layout
        try:
            with reading(layout) as ledger:
                models, jobs = ledger.models(), ledger.jobs()
                self._releases = ledger.releases()
            self._datasets = {one.id: one.name for one in look_at_disk(layout).datasets}
        except OSError as error:
            raise unreadable(error) from error
        by_id = {job.id: job for job in jobs}
        before = predecessor(models)
        kept = sorted(models, key=lambda model: (model.current, model is before, model.current_since or model.created), reverse=True)
        judged = [job for job in jobs if job.state in _LEFT_TO_OPERATORS and not job.trial]
        self.subjects = [
            *(Subject(model, by_id.get(model.job or ""), _state(model, before)) for model in kept),
            *(
                Subject(None, job, str(job.state))
                for job in sorted(judged, key=lambda job: (job.ended or job.changed, job.id), reverse=True)
            ),
        ]

    def find(self, wanted: str | None) -> Subject:
        """The one that is meant, by default the current model.

        Raises:
            OperatorError: There is none, or several.
        """
        if wanted is None:
            if not self.subjects or self.subjects[0].state != "current":
                raise OperatorError("there is no current model yet. See: azaion-daemon model list")
            return self.subjects[0]
        exact = [one for one in self.subjects if wanted in _names(one)]
        if not exact and len(wanted) < _SHORTEST_PREFIX:
            raise OperatorError(f"{wanted} is too short for the beginning of a name: give {_SHORTEST_PREFIX} characters at least")
        found = exact or [one for one in self.subjects if any(name.startswith(wanted) for name in _names(one))]
        if len(found) != 1:
            several = f"{wanted} stands for several models: {', '.join(one.id[:24] for one in found)}"
            raise OperatorError(
                f"{several if found else f'there is no model {wanted}, nor a job that was judged'}. See: azaion-daemon model list"
            )
        return found[0]

    def listed(self) -> list[dict[str, Any]]:
        """Every model: the current one, its predecessor, older ones, and those that were held or rejected."""
        return [self._line(one) for one in self.subjects]

    def shown(self, subject: Subject) -> dict[str, Any]:
        """Everything that is known of a model."""
        result = self._result(subject)
        evaluation = result.get("evaluation") or {}
        return {
            **self._line(subject),
            "verdict": None if subject.job is None else subject.job.verdict,
            "metrics": result.get("metrics") or (subject.model.metrics if subject.model is not None else None) or None,
            "compared_on": None
            if evaluation.get("rival") is None
            else {name: evaluation.get(name) for name in ("rival", "images", "candidate", "current", "problem", "left_out")},
            "dataset_id": result.get("dataset_id") or (subject.model.dataset_id if subject.model is not None else None),
            "settings": result.get("settings") or {},
            "versions": result.get("versions") or {},
            "seconds": result.get("seconds") or {},
            "attempts": result.get("attempts"),
            "releases": [
                {"serial": one.serial, "state": one.state, "why": one.why, "changed": _iso(one.changed)}
                for one in self._releases_of(subject)
            ],
        }

    def _line(self, subject: Subject) -> dict[str, Any]:
        model, job = subject.model, subject.job
        metrics = (model.metrics if model is not None else None) or self._result(subject).get("metrics") or {}
        releases = self._releases_of(subject)
        verdict = (job.verdict if job is not None else None) or {}
        return {
            "id": subject.id,
            "sha256": model.sha256 if model is not None else ((self._result(subject).get("onnx") or {}).get("sha256")),
            "job": model.job if model is not None else subject.id,
            "state": subject.state,
            "why": verdict.get("reason") or (job.why if job is not None else None),
            "by": verdict.get("by"),
            "map50": metrics.get("map50"),
            "map50_95": metrics.get("map50_95"),
            "created": _iso(model.created if model is not None else (job.ended or job.changed) if job is not None else 0.0),
            "current_since": None if model is None or model.current_since is None else _iso(model.current_since),
            "dataset": self._dataset(subject),
            "serial": releases[-1].serial if releases else None,
            "release": releases[-1].state if releases else None,
            "path": str(self._path(subject)),
            "report": self._report(subject),
        }

    def _releases_of(self, subject: Subject) -> Sequence[Release]:
        return [one for one in self._releases if subject.model is not None and one.model_sha256 == subject.model.sha256]

    def _dataset(self, subject: Subject) -> str | None:
        if subject.job is not None and subject.job.dataset is not None:
            return subject.job.dataset
        return self._datasets.get(subject.model.dataset_id or "") if subject.model is not None else None

    def _path(self, subject: Subject) -> Path:
        return Path(subject.model.path) if subject.model is not None else JobDirectory(self._layout.jobs / subject.id).onnx

    def _report(self, subject: Subject) -> str | None:
        beside = [self._path(subject).with_name("report.html")]
        if subject.job is not None:
            beside.append(JobDirectory(self._layout.jobs / subject.job.id).report)
        return next((str(path) for path in beside if path.is_file()), None)

    def _result(self, subject: Subject) -> dict[str, Any]:
        """What the training left, in the ledger or beside the model."""
        if subject.job is not None and subject.job.result is not None:
            return subject.job.result
        try:
            result = JobDirectory(self._path(subject).parent).read_result()
        except (TrainingError, OSError):
            return {}
        return {} if result is None else result.model_dump(mode="json")


def promote(layout: Layout, wanted: str, reason: str) -> str:
    """Make a model the current one: one that was kept, or one that was held or rejected. What became of that, as a sentence.

    Raises:
        OperatorError: There is no such model, it cannot be promoted, or no answer came.
    """
    reason = checked_reason(reason)
    subject = Catalogue(layout).find(wanted)
    match subject:
        case Subject(state="current"):
            raise OperatorError(f"model {subject.id[:12]} is the current one already")
        case Subject(state="gone", model=Model(path=path)):
            raise OperatorError(
                f"model {subject.id[:12]} is gone from {Path(path).parent}: retention.models_keep and models_keep_days let it go"
            )
        case Subject(model=Model(sha256=sha256)):
            return _asked(layout, "promote_model", {"sha256": sha256, "reason": reason}, f"model {sha256[:12]} becomes the current one")
        case _:
            return _asked(
                layout, "promote", {"job": subject.id, "reason": reason}, f"the model of job {subject.id} becomes the current one"
            )


def reject(layout: Layout, wanted: str, reason: str) -> str:
    """Reject a model that is held; what became of that, as a sentence.

    Raises:
        OperatorError: There is no such model, it is not held, or no answer came.
    """
    reason = checked_reason(reason)
    subject = Catalogue(layout).find(wanted)
    if subject.state != JobState.HELD:
        raise OperatorError(f"{subject.id[:24]} is {subject.state}: only a model that is held can be rejected")
    return _asked(layout, "reject", {"job": subject.id, "reason": reason}, f"job {subject.id} is rejected")


def _asked(layout: Layout, kind: str, arguments: dict[str, Any], what: str) -> str:
    answer = ask(layout, kind, arguments, wait_s=_WAIT_S)
    if answer is None:
        return f"No daemon is running; {what} at its next start."
    if not answer["ok"]:
        raise OperatorError(answer["error"])
    return str(answer["said"])


def _state(model: Model, before: Model | None) -> str:
    if model.current:
        return "current"
    if not Path(model.path).is_file():
        return "gone"
    return "predecessor" if model is before else "kept"


def _names(subject: Subject) -> tuple[str, ...]:
    job = subject.job.id if subject.job is not None else subject.model.job if subject.model is not None else None
    return (*(() if subject.model is None else (subject.model.sha256,)), *(() if job is None else (job,)))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
