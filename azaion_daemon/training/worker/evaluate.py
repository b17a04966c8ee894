"""The fourth phase: what the exported model reaches on the test images, and beside it the current model, by the library's own validation.

Each of at most three validations is kept with its model's digest and its images' digest, so that a worker that was killed, and the next
job, do not repeat it. What is wrong with the current model is a remark for the gate, and fails no job.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import onnxruntime
import torch
import ultralytics
from pydantic import JsonValue

from azaion_daemon.errors import StorageError
from azaion_daemon.store.digests import file_digest
from azaion_daemon.training.evaluation import CachedEvaluation, Comparison, Evaluated, Evaluation, Metrics, Rival
from azaion_daemon.training.evaluations import EvaluationCache
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.worker.failures import is_the_machines_fault
from azaion_daemon.training.worker.progress import ProgressReport, say
from azaion_daemon.training.worker.rival import RivalError, open_rival
from azaion_daemon.training.worker.train import device
from azaion_daemon.training.worker.validation import ImageSet, curves_of, metrics_of, validate

_NOTHING = Metrics(images=0, instances=0, map50=0.0, map50_95=0.0, classes=())


class _Images(NamedTuple):
    """What to validate on; without a digest nothing is kept."""

    files: tuple[str, ...]
    digest: str


class _Candidate(NamedTuple):
    """A model to validate: the new one or the current one."""

    onnx: Path
    sha256: str
    imgsz: int
    known: tuple[bool, ...] | None = None


def run(job: JobDirectory, spec: JobSpec, report: ProgressReport) -> dict[str, JsonValue]:
    """Validate `model.onnx`, and compare it with the current model where there is one; returns `Evaluated` as a document."""
    comparison = job.read_comparison()
    evaluator = _Evaluator(job, spec, report, comparison)
    candidate = _Candidate(job.onnx, file_digest(job.onnx), spec.export_imgsz)
    own = _Images(comparison.own, comparison.own_digest) if comparison is not None else _Images(_every_image(spec), "")
    metrics = evaluator.metrics(candidate, own, "the model", curves=True)
    report.update(map50=metrics.map50, map50_95=metrics.map50_95)
    evaluation = None if comparison is None else _compared(evaluator, candidate, metrics, comparison, spec)
    report.update(step="")
    return Evaluated(metrics=metrics, evaluation=evaluation).model_dump(mode="json")


def _compared(evaluator: "_Evaluator", candidate: _Candidate, own: Metrics, comparison: Comparison, spec: JobSpec) -> Evaluation:
    if comparison.rival is None:
        return Evaluation(rival=None, images=own.images, digest=comparison.own_digest, candidate=own)
    images = _Images(comparison.images, comparison.digest)
    mine, theirs, problem = _NOTHING, None, ""
    if images.files:
        mine = own if comparison.images == comparison.own else evaluator.metrics(candidate, images, "comparison")
        theirs, problem = _rivals(evaluator, comparison.rival, images, spec)
    return Evaluation(
        rival=comparison.rival.sha256,
        images=len(images.files),
        digest=images.digest,
        candidate=mine,
        current=theirs,
        problem=problem,
        left_out=comparison.left_out,
    )


def _rivals(evaluator: "_Evaluator", rival: Rival, images: _Images, spec: JobSpec) -> tuple[Metrics | None, str]:
    """What the current model reaches, or why that cannot be told."""
    try:
        opened = open_rival(rival, spec.class_names, reduced_to=reduced_to(spec))
        current = _Candidate(opened.onnx, rival.sha256, opened.imgsz or spec.export_imgsz, opened.known)
        return evaluator.metrics(current, images, "the current model"), ""
    except RivalError as error:
        problem = str(error)
    except (OSError, MemoryError, StorageError):
        raise
    except Exception as error:
        if is_the_machines_fault(error):
            raise
        problem = f"validating it failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    say(f"The current model cannot be evaluated: {problem}")
    return None, problem


def reduced_to(spec: JobSpec) -> int | None:
    """The side in pixels that the images of the job's dataset were reduced to; None when they are as they were taken."""
    try:
        dataset = json.loads((spec.data_yaml.parent / "dataset.json").read_bytes())
        resized = dataset["settings"]["images"] == "resized"
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return max(spec.imgsz, spec.export_imgsz) if resized else None


class _Evaluator:
    """Validates models, unless that was done before."""

    def __init__(self, job: JobDirectory, spec: JobSpec, report: ProgressReport, comparison: Comparison | None) -> None:
        self._job = job
        self._spec = spec
        self._report = report
        self._cache = None if comparison is None else EvaluationCache(comparison.cache)
        self._device = _device(spec)

    def metrics(self, model: _Candidate, images: _Images, step: str, *, curves: bool = False) -> Metrics:
        """What a model reaches; with `curves`, what that comes from is left in the job's directory."""
        self._report.update(step=step, batch=0, batches=0)
        wanted = self._record(model, images)
        found = None if self._cache is None or (curves and self._job.read_curves() is None) else self._cache.get(wanted)
        if found is not None:
            say(f"--- {step}: evaluated before")
            return found
        say(f"--- {step}: {len(images.files)} images")
        metrics = self._validate(model, images, curves=curves)
        if self._cache is not None:
            try:
                self._cache.put(wanted.model_copy(update={"metrics": metrics}))
            except OSError as error:
                say(f"The evaluation cannot be kept: {error}")
        return metrics

    def _validate(self, model: _Candidate, images: _Images, *, curves: bool) -> Metrics:
        spec = self._spec
        name = f"evaluate-{images.digest[:16] or 'all'}"
        scores, seen = validate(
            model.onnx,
            ImageSet(self._job.run / name, spec.data_yaml.parent, images.files, spec.class_names),
            imgsz=model.imgsz,
            workers=spec.workers,
            device=self._device,
            project=self._job.run,
            on_batch=self._on_batch,
        )
        if curves:
            self._job.write_curves(curves_of(scores, spec.class_names))
        return metrics_of(scores, spec.class_names, seen, model.known)

    def _record(self, model: _Candidate, images: _Images) -> CachedEvaluation:
        return CachedEvaluation(
            model=model.sha256,
            images=images.digest,
            class_names=self._spec.class_names,
            imgsz=model.imgsz,
            device="cpu" if self._device == "cpu" else "cuda",
            library=ultralytics.__version__,
            metrics=_NOTHING,
        )

    def _on_batch(self, batch: int, batches: int) -> None:
        if self._report.due:
            self._report.update(batch=batch, batches=batches)


def _device(spec: JobSpec) -> str:
    """The worker's device, as far as the installed ONNX Runtime can use it. One GPU is enough."""
    if not spec.gpus or not torch.cuda.is_available():
        return "cpu"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        say("The installed ONNX Runtime cannot use the GPU: models are evaluated on the CPU. Install onnxruntime-gpu in its place.")
        return "cpu"
    return device(spec).partition(",")[0]


def _every_image(spec: JobSpec) -> tuple[str, ...]:
    with os.scandir(spec.data_yaml.parent / "test" / "images") as entries:
        return tuple(sorted(entry.name for entry in entries))
