"""Generated images with known shapes: what a small detector learns from nothing within a few epochs.

Three classes that differ in colour and in form lie on a noisy background. A scene depends on its seed and size alone.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

CLASS_NAMES = ("Car", "Truck", "Boat")
_COLOURS = ("#c83c32", "#3250d2", "#e6c828")

_MAX_SHAPES = 4
_MIN_SIDE, _MAX_SIDE = 0.18, 0.36  # of the image's side
_TRIES = 20  # to place a shape beside the others
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Box:
    """A shape: its class id, and centre and size in 0..1 of the image's width and height."""

    class_id: int
    cx: float
    cy: float
    width: float
    height: float

    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in 0..1."""
        return self.cx - self.width / 2, self.cy - self.height / 2, self.cx + self.width / 2, self.cy + self.height / 2


@dataclass(frozen=True)
class Scene:
    """An image and everything that is to be seen on it."""

    image_jpeg: bytes
    boxes: tuple[Box, ...]


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes given by their corners; 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - width * height
    return width * height / union


def draw_scene(seed: int, size: int = 128) -> Scene:
    """A square image of `size` pixels with one to four shapes that do not overlap; the shapes are the same at every size."""
    random = np.random.default_rng(seed)
    boxes: list[Box] = []
    for _ in range(int(random.integers(1, _MAX_SHAPES + 1))):
        for _ in range(_TRIES):
            box = _random_box(random)
            if all(overlap(box.corners(), other.corners()) == 0 for other in boxes):
                boxes.append(box)
                break
    image = _background(random, size)
    pen = ImageDraw.Draw(image)
    for box in boxes:
        _draw(pen, box, size)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return Scene(encoded.getvalue(), tuple(boxes))


def write_classes(path: Path) -> None:
    """classes.json as the platform's operators keep it."""
    classes = [
        {"Id": number, "Name": name, "ShortName": name[:3], "Color": colour, "MaxSizeM": 10}
        for number, (name, colour) in enumerate(zip(CLASS_NAMES, _COLOURS, strict=True))
    ]
    path.write_text(json.dumps(classes, indent=2) + "\n", encoding="utf-8")


def _background(random: Generator, size: int) -> Image.Image:
    ground = random.integers(70, 150, size=(6, 6, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(ground).resize((size, size), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = random.integers(-18, 19, size=(size, size, 1), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def _random_box(random: Generator) -> Box:
    class_id = int(random.integers(len(CLASS_NAMES)))
    width, height = (float(side) for side in random.uniform(_MIN_SIDE, _MAX_SIDE, size=2))
    cx, cy = float(random.uniform(width / 2, 1 - width / 2)), float(random.uniform(height / 2, 1 - height / 2))
    return Box(class_id, round(cx, 6), round(cy, 6), round(width, 6), round(height, 6))


def _draw(pen: ImageDraw.ImageDraw, box: Box, size: int) -> None:
    left, top, right, bottom = (round(corner * size) for corner in box.corners())
    frame = (left, top, right - 1, bottom - 1)
    colour = _COLOURS[box.class_id]
    match CLASS_NAMES[box.class_id]:
        case "Car":
            pen.rectangle(frame, fill=colour)
        case "Truck":
            pen.rectangle(frame, fill=colour)
            pen.rectangle((left, top, left + (right - left) // 3, bottom - 1), fill="white")
        case _:
            pen.ellipse(frame, fill=colour)
