"""The fifth phase: report.html, which shows people what was trained on what, how well it went, and what the model sees.

A model is worth more than its report: whatever fails here is said in the report and in worker.log, and the job goes on to its result.
"""

import time
import traceback
from html import escape
from pathlib import Path

from pydantic import JsonValue

from azaion_daemon.store.durable import replace_durably
from azaion_daemon.training.evaluation import Evaluated
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.outcomes import Phase
from azaion_daemon.training.report_verdict import pending
from azaion_daemon.training.worker.progress import ProgressReport, say
from azaion_daemon.training.worker.reporting.facts import Facts, best_confidence, gather
from azaion_daemon.training.worker.reporting.samples import Samples, onnx_predictor, take
from azaion_daemon.training.worker.versions import hardware, versions

_CONFIDENCE = 0.25
_CONFIDENCES = (0.05, 0.9)
_KILLED = 2
"""After so many starts that did not come to an end, no predictions are made any more: they may be what kills the worker."""
_FAILED = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<title>Training {id}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}}
.verdict{{border-left:6px solid;padding:.1rem 1rem;margin:1rem 0}}
.decision{{font-size:1.3rem;font-weight:600}}td{{padding-left:1rem}}</style>
</head>
<body>
<h1>Training {id}</h1>
{verdict}
<h2>What it reaches</h2>
<p>mAP50-95 {map50_95:.3f}, mAP50 {map50:.3f}, on {images:,} test images with {instances:,} objects. Dataset: {dataset}.</p>
<h2>The rest of the report could not be made</h2>
<p>{error}</p>
<p>That touches neither the model nor its figures. The file worker.log in the job's directory tells more.</p>
</body>
</html>
"""


def run(job: JobDirectory, spec: JobSpec, report: ProgressReport) -> dict[str, JsonValue]:
    """Make `report.html`; returns the error, where there was one. It never raises what has to do with the report alone."""
    starts = _count_start(job)
    marker = job.marker(Phase.EVALUATE)
    assert marker is not None
    evaluated = Evaluated.model_validate(marker.details, strict=False)
    details: dict[str, JsonValue] = {}
    try:
        page = _page(job, spec, evaluated, report, predict=starts <= _KILLED)
    except Exception as error:  # noqa: BLE001 - no fault of a report may cost a model
        traceback.print_exc()
        details["error"] = f"{type(error).__name__}: {error}"
        page = _FAILED.format(
            id=escape(spec.id),
            dataset=escape(spec.dataset_name),
            verdict=pending(trial=spec.trial),
            error=escape(str(details["error"])),
            **evaluated.metrics.model_dump(include={"map50", "map50_95", "images", "instances"}),
        )
    replace_durably(job.report, page.encode())
    job.reporting.unlink()
    say(f"report.html has {len(page.encode()) / 1e6:.2f} MB")
    return details


def _count_start(job: JobDirectory) -> int:
    """How many times this phase was begun, this time included."""
    starts = 1 + (len(job.reporting.read_bytes()) if job.reporting.exists() else 0)
    replace_durably(job.reporting, b"." * starts)
    return starts


def _page(job: JobDirectory, spec: JobSpec, evaluated: Evaluated, report: ProgressReport, *, predict: bool) -> str:
    from azaion_daemon.training.worker.reporting.page import render  # noqa: PLC0415 - a missing library must not end the worker

    facts = gather(job, spec, evaluated, versions=versions(spec), hardware=hardware(spec))
    if not predict:
        return render(facts, Samples(problem="The worker was ended here before, so no image was looked at once more."))
    return render(facts, _samples(job, facts, report))


def _samples(job: JobDirectory, facts: Facts, report: ProgressReport) -> Samples:
    from azaion_daemon.training.worker.train import device  # noqa: PLC0415 - it imports torch

    spec = facts.spec
    lowest, highest = _CONFIDENCES
    best = None if facts.curves is None else best_confidence(facts.curves.f1)
    confidence = _CONFIDENCE if best is None else min(max(best, lowest), highest)
    began = time.monotonic()
    try:
        samples = take(
            _test_images(facts),
            spec.class_names,
            onnx_predictor(
                job.onnx,
                spec.class_names,
                side=spec.export_imgsz,
                batch=spec.export_batch,
                device=device(spec).split(",")[0],
                confidence=confidence,
            ),
            confidence=confidence,
            watch=lambda done, of: report.update(step="sample predictions", batch=done, batches=of),
        )
    except Exception as error:  # noqa: BLE001 - the page is of use without pictures
        traceback.print_exc()
        return Samples(problem=f"No image could be looked at: {type(error).__name__}: {error}")
    say(f"{samples.looked_at} test images were looked at in {time.monotonic() - began:.1f} s")
    return samples


def _test_images(facts: Facts) -> list[Path]:
    directory = facts.spec.data_yaml.parent / "test" / "images"
    names = facts.comparison.own if facts.comparison is not None else ()
    return [directory / name for name in names] or [path for path in directory.iterdir() if not path.name.startswith(".")]
