"""The library's own validation of an ONNX file on some of a dataset's test images, and what comes of it as documents.

The library finds labels by the images' paths and keeps a cache beside the labels. So the images and labels are reached through two links
in the job's own directory: nothing is written into the dataset, which other jobs may be reading.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator

from azaion_daemon.training.evaluation import F1, ClassMetrics, Confusion, Curves, Metrics, PrecisionRecall

_POINTS = 101
"""Of a curve: enough for a picture."""


class ImageSet:
    """Some test images of a dataset, as the library takes them."""

    def __init__(self, directory: Path, dataset: Path, files: Sequence[str], names: Sequence[str]) -> None:
        """Made anew in `directory`. `files` are names in the dataset's test images, `names` those of the classes."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for kind in ("images", "labels"):
            (directory / kind).symlink_to(dataset / "test" / kind)
        listed = directory / "images.txt"
        listed.write_text("".join(f"{directory / 'images' / file}\n" for file in files), encoding="utf-8")
        self.yaml = directory / "data.yaml"
        document = {"path": str(directory), "train": str(listed), "val": str(listed), "test": str(listed), "names": dict(enumerate(names))}
        self.yaml.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")


class _Validator(DetectionValidator):  # type: ignore[misc] # the library is not typed
    """Fills the confusion matrix too, which the library does only where it draws pictures."""

    def update_metrics(self, preds: Any, batch: Any) -> None:
        super().update_metrics(preds, batch)
        for number, prediction in enumerate(preds):
            self.confusion_matrix.process_batch(self._prepare_pred(prediction), self._prepare_batch(number, batch))


def validate(
    onnx: Path,
    images: ImageSet,
    *,
    imgsz: int,
    workers: int,
    device: str,
    project: Path,
    on_batch: Callable[[int, int], None],
) -> tuple[Any, int]:
    """Validate a model at its own size and batch; the library's metrics object, and how many images it has seen.

    `imgsz`, in pixels, is for a model that takes any size. `on_batch` is told the batch, from 1, and how many there are.
    """
    model = YOLO(str(onnx), task="detect")
    seen = 0

    def on_val_batch_end(validator: Any) -> None:
        nonlocal seen
        seen = int(validator.seen)
        on_batch(validator.batch_i + 1, len(validator.dataloader))

    model.add_callback("on_val_batch_end", on_val_batch_end)
    scores = model.val(
        validator=_Validator,
        data=str(images.yaml),
        split="test",
        imgsz=imgsz,
        workers=workers,
        device=device,
        plots=False,
        project=str(project),
        name="evaluate",
        exist_ok=True,
    )
    return scores, seen


def metrics_of(scores: Any, names: Sequence[str], images: int, known: Sequence[bool] | None = None) -> Metrics:
    """What a model reaches. A class that it does not know, as `known` says, has no figures, whatever the library made of it."""
    rows = {int(index): row for row, index in enumerate(scores.ap_class_index)}
    classes = []
    for index, name in enumerate(names):
        instances = int(scores.nt_per_class[index])
        counts = instances > 0 and index in rows and (known is None or known[index])
        map50, map50_95 = scores.class_result(rows[index])[2:] if counts else (None, None)
        classes.append(
            ClassMetrics(
                name=name,
                images=int(scores.nt_per_image[index]),
                instances=instances,
                map50=None if map50 is None else _finite(map50),
                map50_95=None if map50_95 is None else _finite(map50_95),
            ),
        )
    return Metrics(
        images=images,
        instances=int(scores.nt_per_class.sum()),
        map50=_finite(scores.box.map50),
        map50_95=_finite(scores.box.map),
        classes=tuple(classes),
    )


def curves_of(scores: Any, names: Sequence[str]) -> Curves:
    """What the figures come from, thinned, and only of classes that have instances."""
    present = [int(index) for index in scores.ap_class_index if scores.nt_per_class[int(index)] > 0]
    rows = {int(index): row for row, index in enumerate(scores.ap_class_index)}
    x = list(scores.box.px)
    picked = sorted({round(step * (len(x) - 1) / (_POINTS - 1)) for step in range(_POINTS)}) if x else []

    def thinned(curve: Any) -> tuple[float, ...]:
        return tuple(round(_finite(curve[place]), 5) for place in picked)

    matrix = scores.confusion_matrix.matrix
    shown = [*present, len(matrix) - 1]
    axis = thinned(x)
    return Curves(
        pr=PrecisionRecall(recall=axis, precision={names[index]: thinned(scores.box.prec_values[rows[index]]) for index in present}),
        f1=F1(confidence=axis, f1={names[index]: thinned(scores.box.f1_curve[rows[index]]) for index in present}),
        confusion=Confusion(
            labels=(*(names[index] for index in present), "background"),
            matrix=tuple(tuple(int(matrix[row][column]) for column in shown) for row in shown),
        ),
    )


def _finite(value: Any) -> float:
    number = float(value)
    return number if math.isfinite(number) else 0.0
