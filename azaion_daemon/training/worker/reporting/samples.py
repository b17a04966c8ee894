"""Sample predictions: test images with the boxes that people drew and those that the exported model draws.

Half of them are the most instructive ones, with the most objects overlooked or seen where there are none; the other half is any, by the
hash of their names, so that the same dataset shows the same images.
"""

import base64
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from azaion_daemon.store.labels import Detection, parse_label

SHOWN = 12
_LOOKED_AT = 36
"""Of so many images the most instructive ones are found: it costs as many predictions."""
_PATIENCE_S = 120.0
"""Looking for them ends after this, once there are enough: a large model takes seconds an image on a CPU."""
_MATCH = 0.5
"""The intersection over union from which on two boxes mean the same object."""
_PIXELS = 480
_LARGEST_BYTES = 100_000
"""Of one picture: twelve of them, in base64, stay below 2 MB."""

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of the image."""


@dataclass(frozen=True)
class Box:
    """An object that somebody drew or the model sees; `confidence` is None for the former. `matched`: the other has it, too."""

    name: str
    corners: Corners
    confidence: float | None = None
    matched: bool = False


@dataclass(frozen=True)
class Sample:
    """One image with both. `jpeg` is reduced; `width` and `height` are its pixels."""

    name: str
    jpeg: bytes
    width: int
    height: int
    truth: tuple[Box, ...]
    predicted: tuple[Box, ...]

    @property
    def missed(self) -> list[Box]:
        """Objects that the model overlooked."""
        return [box for box in self.truth if not box.matched]

    @property
    def false(self) -> list[Box]:
        """What the model sees where nobody drew it."""
        return [box for box in self.predicted if not box.matched]

    @property
    def faults(self) -> int:
        """How much there is to learn from it."""
        return len(self.missed) + len(self.false)

    @property
    def data_url(self) -> str:
        """The picture for an `src`."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True)
class Samples:
    """What is shown, and of how many images it was chosen. `problem` says why there are none."""

    shown: tuple[Sample, ...] = ()
    looked_at: int = 0
    of: int = 0
    confidence: float = 0.25
    problem: str = ""


Predict = Callable[[Sequence[Path]], Iterator[tuple[Path, Image.Image, list[Box]]]]
"""Each image, upright, with what the model sees in it; those that cannot be read are left out."""


def take(
    images: Sequence[Path], class_names: Sequence[str], predict: Predict, *, confidence: float, watch: Callable[[int, int], None]
) -> Samples:
    """Choose, predict and compare. `watch` is told how many images of how many are done."""
    ordered = sorted(images, key=lambda path: hashlib.sha256(path.name.encode()).digest())[:_LOOKED_AT]
    began = time.monotonic()
    seen: list[Sample] = []
    for path, image, boxes in predict(ordered):
        seen.append(_sample(path, image, boxes, class_names))
        watch(len(seen), len(ordered))
        if len(seen) >= SHOWN and time.monotonic() - began > _PATIENCE_S:
            break
    return Samples(choose(seen), len(seen), len(images), confidence)


def choose(seen: Sequence[Sample], most: int = SHOWN) -> tuple[Sample, ...]:
    """The most instructive ones, then the first of the others."""
    worst = sorted((sample for sample in seen if sample.faults), key=lambda sample: -sample.faults)[: most // 2]
    others = [sample for sample in seen if sample not in worst]
    return (*worst, *others[: most - len(worst)])


def match(truth: Sequence[Box], predicted: Sequence[Box]) -> tuple[tuple[Box, ...], tuple[Box, ...]]:
    """Both once more, each with whether the other has it: the surest prediction takes the object of its class that it covers best."""
    free = dict(enumerate(truth))
    right = set()
    for index, box in sorted(enumerate(predicted), key=lambda pair: -(pair[1].confidence or 0)):
        overlaps = [(overlap(box.corners, one.corners), number) for number, one in free.items() if one.name == box.name]
        best, number = max(overlaps, default=(0.0, -1))
        if best >= _MATCH:
            del free[number]
            right.add(index)
    return (
        tuple(Box(box.name, box.corners, None, number not in free) for number, box in enumerate(truth)),
        tuple(Box(box.name, box.corners, box.confidence, index in right) for index, box in enumerate(predicted)),
    )


def overlap(one: Corners, other: Corners) -> float:
    """Intersection over union, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - width * height
    return width * height / union


def reduced(image: Image.Image) -> tuple[bytes, int, int]:
    """A JPEG for the page, of bounded size, with its width and height."""
    picture = image.convert("RGB")
    picture.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    jpeg = b""
    for quality in (82, 65, 45, 25):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        jpeg = file.getvalue()
        if len(jpeg) <= _LARGEST_BYTES:
            break
    return jpeg, picture.width, picture.height


def onnx_predictor(onnx: Path, class_names: Sequence[str], *, side: int, batch: int, device: str, confidence: float) -> Predict:
    """The exported model, run by the library as it is in the evaluation. Its batch is fixed, so the last one is filled up."""

    def predict(paths: Sequence[Path]) -> Iterator[tuple[Path, Image.Image, list[Box]]]:
        from ultralytics import YOLO  # noqa: PLC0415 - it imports torch

        model = YOLO(str(onnx), task="detect")
        for start in range(0, len(paths), batch):
            portion = list(paths[start : start + batch])
            filled = [*portion, *[portion[-1]] * (batch - len(portion))]
            results = model.predict(
                [str(path) for path in filled], imgsz=side, batch=batch, device=device, conf=confidence, verbose=False, save=False
            )
            by_path = {result.path: result for result in results}  # what cannot be read is missing
            for path in portion:
                if (result := by_path.get(str(path))) is not None:
                    yield path, Image.fromarray(result.orig_img[..., ::-1]), [*_boxes(result, class_names)]

    return predict


def _boxes(result: Any, class_names: Sequence[str]) -> Iterator[Box]:
    found = result.boxes
    for corners, confidence, class_id in zip(found.xyxyn.tolist(), found.conf.tolist(), found.cls.tolist(), strict=True):
        left, top, right, bottom = corners
        yield Box(class_names[int(class_id)], (left, top, right, bottom), float(confidence))


def _sample(path: Path, image: Image.Image, boxes: Sequence[Box], class_names: Sequence[str]) -> Sample:
    label = path.parent.parent / "labels" / f"{path.stem}.txt"
    drawn = parse_label(label.read_text(encoding="utf-8")) if label.exists() else []
    truth, predicted = match([_truth(one, class_names) for one in drawn], boxes)
    return Sample(path.name, *reduced(image), truth, predicted)


def _truth(one: Detection, class_names: Sequence[str]) -> Box:
    return Box(class_names[one.class_id], (one.cx - one.w / 2, one.cy - one.h / 2, one.cx + one.w / 2, one.cy + one.h / 2))
