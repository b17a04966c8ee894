"""The first step of a batch: messages are decoded, images are looked at and made durable in `incoming`, bad messages in the quarantine.

Nothing here depends on what the ledger says, so the next batch is staged while this one is committed.
"""

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from azaion_daemon.ingest.rules import StagedImage
from azaion_daemon.sections import IngestSettings
from azaion_daemon.store.durable import FilesystemSync, storage, write_new
from azaion_daemon.store.images import FORMATS, too_large, undecodable
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.stream.events import AnnotationEvent, BulkEvent, Decoded, Fault, RawMessage
from azaion_daemon.stream.wire import decode

MAX_PORTION_NAMES = 16_384
"""How many annotations one transaction touches at the most."""
_MANY_PIXELS = 32_000_000
_ONE_AT_A_TIME = threading.Lock()
"""For what only a bomb or a rare scan needs: a few hundred kilobytes can be an image of 800 MB, and each thread might meet one."""


@dataclass(frozen=True, slots=True)
class StagedMessage:
    """A message that needs nothing more than the ledger. Its event has no image bytes any more."""

    decoded: Decoded
    image: StagedImage | None
    bytes: int
    base: int = 0
    """See `RawMessage.base`."""
    complete: bool = True
    """False for a part of a bulk message that others follow."""


def in_portions(messages: Iterable[StagedMessage], *, max_names: int = MAX_PORTION_NAMES) -> Iterator[list[StagedMessage]]:
    """Divide a batch, so that memory and transactions stay small whatever bulk messages hold; one that is too long is divided itself.

    The position stays before a divided message until its last part is committed. After a crash between two parts it comes again whole,
    and the names that it was applied to already stay as they are.
    """
    portion: list[StagedMessage] = []
    names = 0
    for message in messages:
        for part in _parts(message, max_names):
            size = len(part.decoded.event.names) if isinstance(part.decoded.event, BulkEvent) else 1
            if portion and names + size > max_names:
                yield portion
                portion, names = [], 0
            portion.append(part)
            names += size
    if portion:
        yield portion


def _parts(message: StagedMessage, max_names: int) -> Iterator[StagedMessage]:
    event = message.decoded.event
    if not isinstance(event, BulkEvent) or len(event.names) <= max_names:
        yield message
        return
    for start in range(0, len(event.names), max_names):
        part = replace(event, names=event.names[start : start + max_names])
        complete = start + max_names >= len(event.names)
        yield replace(message, decoded=replace(message.decoded, event=part), complete=complete, bytes=message.bytes if complete else 0)


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
            size = image_size(content, max_pixels=settings.max_image_pixels, decode=settings.decode_images)
            if isinstance(size, str):
                decoded = replace(decoded, event=None, rejection=size, fault=Fault.IMAGE)
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


def image_size(content: bytes, *, max_pixels: int, decode: bool = True) -> tuple[int, int] | str:
    """Width and height in pixels of an image that decodes to its end, or why it does not; without `decode` its header is enough.

    A JPEG is decoded to an eighth of its size, which still reads every one of its bytes in half the time. (Pillow's `verify` would accept
    half a JPEG.)
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if refused := too_large(width, height, max_pixels):
                return refused
            if decode:
                image.draft(image.mode, (width // 8, height // 8))
                with _ONE_AT_A_TIME if image.width * image.height > _MANY_PIXELS else nullcontext():
                    image.load()
                    image.close()  # its pixels go before the next one's come
    except Exception as error:  # noqa: BLE001 - its decoders raise anything on hostile bytes
        return undecodable(error)
    return width, height
