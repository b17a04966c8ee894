"""Sub-entries that unpack to what they say, and those that do not."""

import gzip
import random
import zlib

import pytest
from rstream import CompressionType
from rstream.compression import CompressionHelper, GzipCompressionCodec
from rstream.schema import Deliver

from azaion_daemon.stream.gunzip import MAX_UNPACKED_BYTES, BoundedGzip, unpack_with_isal

unpack_with_isal()


def entry(messages: list[bytes], kind: CompressionType, packed: bytes | None = None) -> bytes:
    plain = b"".join(len(message).to_bytes(4, "big") + message for message in messages)
    content = gzip.compress(plain) if packed is None else packed
    head = bytes([0x80 | kind.value << 4]) + len(messages).to_bytes(2, "big")
    return head + len(plain).to_bytes(4, "big") + len(content).to_bytes(4, "big") + content


def chunk(*entries: bytes) -> Deliver:
    data = b"".join(entries)
    return Deliver(0, 0x50, 0, len(entries), 0, 1700, 1, 100, zlib.crc32(data), len(data), 0, 0, data)


def test_messages_come_out_as_they_went_in() -> None:
    messages = [random.Random(number).randbytes(1 + number * 977) for number in range(40)]
    assert chunk(entry(messages[:30], CompressionType.Gzip), entry(messages[30:], CompressionType.Gzip)).get_messages() == messages


@pytest.mark.parametrize(
    "packed",
    [b"no gzip", gzip.compress(b"\0\0\0\1a")[:-4], gzip.compress(bytes(100_000_000), 9), gzip.compress(b"\0\0\0")],
    ids=["no gzip", "cut", "bomb", "too short"],
)
def test_what_does_not_unpack_to_what_it_says_is_an_error(packed: bytes) -> None:
    with pytest.raises((ValueError, zlib.error)):
        chunk(entry([b"a"], CompressionType.Gzip, packed)).get_messages()


def test_a_header_that_says_gigabytes_is_refused_before_anything_is_unpacked() -> None:
    packed = gzip.compress(b"\0\0\0\1a")
    with pytest.raises(ValueError, match="more than the 1073741824 taken"):
        BoundedGzip().uncompress(packed, MAX_UNPACKED_BYTES + 1)


def test_the_library_unpacks_by_our_codec_and_packs_by_its_own() -> None:
    packed = GzipCompressionCodec()
    packed.compress([b"one", b"two"])
    assert CompressionHelper.uncompress(packed.data(), CompressionType.Gzip, packed.uncompressed_size()) == b"\0\0\0\3one\0\0\0\3two"
    assert isinstance(CompressionHelper.compress([b"x"], CompressionType.Gzip), BoundedGzip)
