"""The first step of a batch: messages are decoded, images are looked at and made durable in `incoming`, bad messages in the quarantine.

Nothing here depends on what the ledger says, so the next batch is staged while this one is committed.
"""

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from azaion_daemon.ingest.rules import StagedImage
from azaion_daemon.settings import IngestSettings
from azaion_daemon.store.durable import FilesystemSync, storage, write_new
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.stream.events import AnnotationEvent, Decoded, RawMessage
from azaion_daemon.stream.wire import decode

Image.MAX_IMAGE_PIXELS = None  # `ingest.max_image_pixels` decides, and an error is better than a warning

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")


@dataclass(frozen=True, slots=True)
class StagedMessage:
    """A message that needs nothing more than the ledger. Its event has no image bytes any more."""

    decoded: Decoded
    image: StagedImage | None
    bytes: int
    base: int = 0
    """See `RawMessage.base`."""


class Stager:
    """Stages messages of one stream; its methods block and may run on several threads at once."""

    def __init__(self, stream: str, incoming: Path, quarantine: Quarantine, *, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._incoming = incoming
        self._quarantine = quarantine
        self._clock = clock
        self._sync = FilesystemSync(incoming)

    def stage(self, messages: Sequence[RawMessage], settings: IngestSettings) -> list[StagedMessage]:
        """Stage messages; their images are written but not durable before `sync`.

        Raises:
            StorageError: The disk failed or is full; staging the same messages again goes on.
        """
        extensions = frozenset(settings.image_extensions)
        with storage("writing what was received"):
            return [self._stage(message, settings, extensions) for message in messages]

    def sync(self) -> None:
        """Make all that was staged durable, with one call for the whole filesystem."""
        with storage("making received images durable", syncing=True):
            self._sync()

    def close(self) -> None:
        """Give the descriptor back."""
        self._sync.close()

    def stage_again(self, message: RawMessage, settings: IngestSettings) -> StagedMessage:
        """Stage a message that is in the quarantine; its image is durable afterwards.

        Raises:
            StorageError: As in `stage`.
        """
        (staged,) = self.stage([message], settings)
        self.sync()
        return staged

    def _stage(self, message: RawMessage, settings: IngestSettings, extensions: frozenset[str]) -> StagedMessage:
        decoded = decode(message, extensions=extensions, max_image_bytes=settings.max_image_bytes)
        image: StagedImage | None = None
        event = decoded.event
        if isinstance(event, AnnotationEvent) and event.image is not None:
            content = event.image
            size = image_size(content, max_pixels=settings.max_image_pixels)
            if isinstance(size, str):
                decoded = replace(decoded, event=None, rejection=size)
            else:
                image = StagedImage(f"{message.position}.image", hashlib.sha256(content).hexdigest(), *size)
                write_new(self._incoming / image.file, content)
                decoded = replace(decoded, event=replace(event, image=None))
        if decoded.rejection is not None:
            self._quarantine.put(
                stream=self._stream,
                offset=message.offset,
                data=message.data,
                reason=decoded.rejection,
                now=self._clock(),
                base=message.base,
            )
        return StagedMessage(decoded, image, len(message.data), message.base)


def image_size(content: bytes, *, max_pixels: int) -> tuple[int, int] | str:
    """Width and height in pixels of an image that decodes to its end, or why it does not.

    A JPEG is decoded to a quarter of its size, which still reads every one of its bytes. (Pillow's `verify` would accept half a JPEG.)
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                return f"the image has {width} x {height} pixels, more than the {max_pixels} that are taken (ingest.max_image_pixels)"
            image.draft(image.mode, (width // 4, height // 4))
            image.load()
    except Exception as error:  # noqa: BLE001 - its decoders raise anything on hostile bytes
        return f"the image cannot be decoded: {type(error).__name__}: {str(error)[:120]}"
    return width, height
