"""Which image formats there are for us, and that Pillow leaves the limit of an image's size to us."""

from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # `ingest.max_image_pixels` decides, and an error is better than a warning

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
"""Those that are decoded, by Pillow's names: it knows dozens more, and some of them start other programs."""


def too_large(width: int, height: int, max_pixels: int) -> str | None:
    """Why an image of this size is not decoded; None when it may be."""
    if width * height <= max_pixels:
        return None
    return f"the image has {width} x {height} pixels, more than the {max_pixels} that are taken (ingest.max_image_pixels)"


def undecodable(error: Exception) -> str:
    """The same for one whose decoder has failed."""
    return f"the image cannot be decoded: {type(error).__name__}: {str(error)[:120]}"
