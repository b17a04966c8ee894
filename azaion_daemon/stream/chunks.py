"""Chunks into messages beside the event loop.

The library (rstream 1.1.1) decompresses a chunk's sub-entries on the event loop, which stands still for a tenth of a second for a chunk of
17 MB and can use no more than one core. Here that is done on a thread, without the interpreter's lock, by ISA-L, which takes three fifths
of zlib's time for images. What a sub-entry unpacks to is bounded by the size that it says: a bomb is an error of its connection.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from isal import isal_zlib
from rstream import CompressionType, Consumer, MessageContext
from rstream.compression import GzipCompressionCodec, StreamCompressionCodecs
from rstream.consumer import _Subscriber
from rstream.schema import Deliver
from typing_extensions import override

_GZIP = 31
"""zlib's way to say: a gzip header and trailer, the largest window."""


class BoundedGzip(GzipCompressionCodec):
    """Unpacks gzip sub-entries; packing is the library's."""

    @override
    def uncompress(self, compressed_data: bytes, uncompressed_data_size: int) -> bytes:
        unpacking = isal_zlib.decompressobj(_GZIP)
        content: bytes = unpacking.decompress(compressed_data, uncompressed_data_size + 1)
        if len(content) != uncompressed_data_size or not unpacking.eof:
            raise ValueError(f"a sub-entry does not unpack to the {uncompressed_data_size} bytes that it says")
        return content


StreamCompressionCodecs.register_codec(CompressionType.Gzip, BoundedGzip())


class ChunkConsumer(Consumer):
    """A consumer that unpacks chunks on a thread. A test holds it against the library's own.

    A chunk that cannot be unpacked is told to `on_broken`: the library would log it and go on with the next one.
    """

    def __init__(self, *arguments: Any, on_broken: Callable[[Exception], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._on_broken = on_broken

    @override
    async def _on_deliver(self, frame: Deliver, subscriber: _Subscriber, filter_value: Any) -> None:
        if frame.subscription_id != subscriber.subscription_id:
            return
        await subscriber.client.credit(subscriber.subscription_id, 1)
        try:
            messages = await asyncio.to_thread(lambda: [*self._filter_messages(frame, subscriber, filter_value)])
        except Exception as error:  # noqa: BLE001 - what hostile bytes raise in there is not one family
            self._on_broken(error)
            return
        for offset, message in messages:
            context = MessageContext(self, subscriber.stream, subscriber.subscription_id, subscriber.reference, offset, frame.timestamp)
            waiting = subscriber.callback(subscriber.decoder(message), context)
            if waiting is not None:
                await waiting
