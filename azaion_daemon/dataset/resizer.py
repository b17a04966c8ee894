"""A process that reduces images: `python -m azaion_daemon.dataset.resizer SETUP`, where SETUP is a `Setup` as JSON.

It reads work on standard input, a JSON line `[path, digest]` each, and answers each on standard output with an `Outcome` as a line. It
ends with its input, so with whoever started it. What it writes is whole under its name or not there.

The reduced image is what the trainer's loader (cv2.imdecode with IMREAD_COLOR) makes of the original, upright, in 8 bits and without alpha,
only smaller; it has no EXIF data, so nothing turns it twice.
"""

import hashlib
import io
import json
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from azaion_daemon.dataset.reduction import Kind, Outcome, Reduction, reduced_size
from azaion_daemon.dataset.resized_cache import cached
from azaion_daemon.errors import DiskFullError, StorageError
from azaion_daemon.store.durable import replace_durably, storage
from azaion_daemon.store.images import FORMATS, too_large, undecodable

_NICENESS = 19
_DRAFT = 1.5
"""A JPEG is decoded to the smallest eighths of its size that are so many times the wanted one: 4K in three quarters of the time."""
_FULL_COLOUR = 95
"""From this quality on colour is stored as finely as brightness. Below, at half of it as cameras do, an epoch loads a tenth faster."""
_ORIENTATION = 0x0112
_UNDERSTOOD_TIFF = frozenset({"1", "L", "RGB", "P", "CMYK", "I;16", "I;16B"})
_UNDERSTOOD = _UNDERSTOOD_TIFF | {"LA", "PA", "RGBA", "YCbCr"}


class Setup(NamedTuple):
    """What a resizer is started with."""

    cache: str
    size: int
    quality: int
    max_pixels: int

    @property
    def reduction(self) -> Reduction:
        """How it reduces."""
        return Reduction(self.size, self.quality)


def main() -> None:
    """Work until the input ends."""
    setup = Setup(*json.loads(sys.argv[1]))
    os.nice(_NICENESS)
    warnings.simplefilter("ignore")  # of odd metadata: thousands of images may have the same
    with suppress(BrokenPipeError, KeyboardInterrupt):
        for line in sys.stdin.buffer:
            path, digest = json.loads(line)
            sys.stdout.buffer.write(json.dumps(resize(path, digest, setup)).encode() + b"\n")
            sys.stdout.buffer.flush()


def resize(path: str, digest: str, setup: Setup) -> Outcome:
    """Reduce the image of that digest at `path` into the cache, unless it is small enough."""
    try:
        with storage("reading an image to reduce"):
            try:
                with open(path, "rb") as file:  # noqa: PTH123 - a hot path
                    return _looked_at(file, digest, setup)
            except FileNotFoundError:
                return Outcome(Kind.GONE)
    except DiskFullError as error:
        return Outcome(Kind.DISK_FULL, str(error))
    except StorageError as error:
        return Outcome(Kind.DISK_FAILED, str(error))


def _looked_at(file: io.BufferedReader, digest: str, setup: Setup) -> Outcome:
    width, height, understood = _header(file)
    if understood is False or (width and height and max(width, height) <= setup.size):
        return Outcome(Kind.KEPT, width=width, height=height)
    file.seek(0)
    content = file.read()
    if hashlib.sha256(content).hexdigest() != digest:
        return Outcome(Kind.REPLACED)
    made = reduce_image(content, setup)
    if isinstance(made, str):
        return Outcome(Kind.UNUSABLE, made)
    target = cached(Path(setup.cache), digest, setup.reduction)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(target, made)
    return Outcome(Kind.REDUCED, bytes=len(made), width=width, height=height)


def _header(file: io.BufferedReader) -> tuple[int | None, int | None, bool | None]:
    """Width and height, and whether Pillow gives the pixels that the trainer's decoder gives; None of all when there is no telling.

    The two part on alpha in TIFF, and on more than 16 bits.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except Exception:  # noqa: BLE001 - as in `reduce_image`, which says why
        return None, None, None
    return *image.size, image.mode in (_UNDERSTOOD_TIFF if image.format == "TIFF" else _UNDERSTOOD)


def reduce_image(content: bytes, setup: Setup) -> bytes | str:
    """The reduced image as a JPEG, or why it cannot be made."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if refused := too_large(*image.size, setup.max_pixels):
                return refused
            target = reduced_size(*image.size, setup.size)
            orientation = _orientation(image)
            image.draft(image.mode, (int(target[0] * _DRAFT), int(target[1] * _DRAFT)))
            reduced = _eight_bits(image).resize(target, Image.Resampling.HAMMING)
    except MemoryError:
        raise  # says nothing about the image: this process ends, and the image is tried again
    except Exception as error:  # noqa: BLE001 - its decoders raise anything on damaged bytes
        return undecodable(error)
    file = io.BytesIO()
    _upright(reduced, orientation).save(
        file, "JPEG", quality=setup.quality, subsampling="4:4:4" if setup.quality >= _FULL_COLOUR else "4:2:0"
    )
    return file.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey or RGB, decoded. Of 16 bits the upper ones, and of pixels with alpha the colour, as the trainer's decoder does."""
    image.load()
    match image.mode:
        case "L" | "RGB":
            return image
        case "1" | "LA":
            return image.convert("L")
        case "I;16":
            return Image.frombytes("L", image.size, image.tobytes()[1::2])
        case "I;16B":
            return Image.frombytes("L", image.size, image.tobytes()[::2])
        case _:
            return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """As in the EXIF data alone: Pillow would look into XMP data and comments too, where the trainer's decoder does not.

    Data that cannot be read turns nothing. A TIFF is upright when it is decoded.
    """
    exif = Image.Exif()
    if image.format == "TIFF":
        return 1
    with suppress(Exception):
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    image.info.clear()
    image.getexif()[_ORIENTATION] = orientation
    turned = ImageOps.exif_transpose(image)
    turned.info.clear()
    return turned


if __name__ == "__main__":
    main()
