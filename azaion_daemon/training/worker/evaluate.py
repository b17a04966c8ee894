"""The fourth phase: what the exported model reaches on the test images, by the library's own validation."""

from typing import Any

from pydantic import JsonValue
from ultralytics import YOLO

from azaion_daemon.training.evaluation import ClassMetrics, Evaluated, Metrics
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.worker.progress import ProgressReport
from azaion_daemon.training.worker.train import device


def run(job: JobDirectory, spec: JobSpec, report: ProgressReport) -> dict[str, JsonValue]:
    """Validate `model.onnx`; returns `Evaluated` as a document."""
    model = YOLO(str(job.onnx), task="detect")
    seen = _Watcher(report)
    model.add_callback("on_val_batch_end", seen.on_val_batch_end)
    scores = model.val(
        data=str(spec.data_yaml),
        split="test",
        imgsz=spec.export_imgsz,
        batch=spec.export_batch,
        workers=spec.workers,
        device=device(spec),
        plots=False,
        project=str(job.run),
        name="evaluate",
        exist_ok=True,
    )
    metrics = _metrics(scores, spec.class_names, seen.images)
    report.update(map50=metrics.map50, map50_95=metrics.map50_95)
    return Evaluated(metrics=metrics).model_dump(mode="json")


def _metrics(scores: Any, names: tuple[str, ...], images: int) -> Metrics:
    rows = {int(index): row for row, index in enumerate(scores.ap_class_index)}
    classes = []
    for index, name in enumerate(names):
        map50, map50_95 = scores.class_result(rows[index])[2:] if index in rows else (None, None)
        instances = int(scores.nt_per_class[index])
        classes.append(
            ClassMetrics(
                name=name,
                images=int(scores.nt_per_image[index]),
                instances=instances,
                map50=None if map50 is None or instances == 0 else float(map50),
                map50_95=None if map50_95 is None or instances == 0 else float(map50_95),
            ),
        )
    return Metrics(
        images=images,
        instances=int(scores.nt_per_class.sum()),
        map50=float(scores.box.map50),
        map50_95=float(scores.box.map),
        classes=tuple(classes),
    )


class _Watcher:
    """Counts the images and tells the daemon."""

    def __init__(self, report: ProgressReport) -> None:
        self._report = report
        self.images = 0

    def on_val_batch_end(self, validator: Any) -> None:
        self.images = int(validator.seen)
        if self._report.due:
            self._report.update(batch=validator.batch_i + 1, batches=len(validator.dataloader))
