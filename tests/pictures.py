"""Pictures that look to a decoder, a filter and a codec as aerial photographs do."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


def aerial(width: int, height: int, seed: int = 0) -> Image.Image:
    """Ground with detail at every scale, each weaker than the one twice as coarse, as in natural images, with objects on it.

    The finest detail is two pixels wide, as a lens and a colour filter leave it.
    """
    dice = np.random.default_rng(seed)
    ground = np.zeros((height, width, 3), np.float32)
    octaves = max(1, int(np.log2(max(width, height))) - 2)
    for octave in range(octaves):
        cell = 2 ** (octaves - octave)
        grid = dice.normal(0, 40 * 0.75**octave, (height // cell + 2, width // cell + 2)).astype(np.float32)
        layer = np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
        ground += layer[..., None] * dice.uniform(0.7, 1.3, 3).astype(np.float32)
    picture = Image.fromarray(np.clip(ground + np.array([96, 108, 84], np.float32), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for x, y, length in zip(
        dice.integers(0, width, 40), dice.integers(0, height, 40), dice.integers(8, max(9, width // 40), 40), strict=True
    ):
        draw.rectangle(
            (int(x), int(y), int(x + length), int(y + length // 2)), fill=tuple(int(value) for value in dice.integers(0, 255, 3))
        )
    return picture


def encoded(picture: Image.Image, format_: str = "JPEG", **options: Any) -> bytes:
    """A file with that picture; a JPEG is of the quality that cameras write."""
    file = io.BytesIO()
    picture.save(file, format_, **({"quality": 92} if format_ == "JPEG" else {}) | options)
    return file.getvalue()


def turned(picture: Image.Image, orientation: int, format_: str = "JPEG") -> bytes:
    """A file whose EXIF data says how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, format_, exif=exif)
