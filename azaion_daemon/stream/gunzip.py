"""Unpacking gzip sub-entries: in three fifths of zlib's time for images, and never to more than their header says.

To be registered with rstream (1.1.1), whose own unpacks whatever it is given: a few hundred kilobytes can become gigabytes. It lets go of
the interpreter's lock, so a chunk that is taken apart on a thread holds nobody up.
"""

from isal import isal_zlib
from rstream import CompressionType
from rstream.compression import GzipCompressionCodec, StreamCompressionCodecs
from typing_extensions import override

_GZIP = 31
"""zlib's way to say: a gzip header and trailer, the largest window."""
MAX_UNPACKED_BYTES = 1 << 30
"""A sub-entry's header may say up to 4 GiB, in a few megabytes. A hundred times what producers pack is no honest one."""


class BoundedGzip(GzipCompressionCodec):
    """Unpacks gzip sub-entries; packing is the library's."""

    @override
    def uncompress(self, compressed_data: bytes, uncompressed_data_size: int) -> bytes:
        if uncompressed_data_size > MAX_UNPACKED_BYTES:
            raise ValueError(
                f"a sub-entry says that it unpacks to {uncompressed_data_size} bytes, more than the {MAX_UNPACKED_BYTES} taken"
            )
        unpacking = isal_zlib.decompressobj(_GZIP)
        content: bytes = unpacking.decompress(compressed_data, uncompressed_data_size + 1)
        if len(content) != uncompressed_data_size or not unpacking.eof:
            raise ValueError(f"a sub-entry does not unpack to the {uncompressed_data_size} bytes that it says")
        return content


def unpack_with_isal() -> None:
    """Let rstream unpack gzip this way, in the whole process."""
    StreamCompressionCodecs.register_codec(CompressionType.Gzip, BoundedGzip())
