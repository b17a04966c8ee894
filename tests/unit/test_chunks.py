"""Unpacking chunks beside the event loop, against the library's own way."""

import gzip
import random
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from rstream import CompressionType, Consumer, MessageContext, OffsetType
from rstream.compression import CompressionHelper, GzipCompressionCodec
from rstream.schema import Deliver

from azaion_daemon.stream.chunks import BoundedGzip, ChunkConsumer


class Client:
    """As much of a connection as a delivery needs."""

    def __init__(self) -> None:
        self.credits = 0

    async def credit(self, _: int, credit: int) -> None:
        self.credits += credit


def entry(messages: list[bytes], kind: CompressionType, content: bytes | None = None) -> bytes:
    plain = b"".join(len(message).to_bytes(4, "big") + message for message in messages)
    packed = content if content is not None else gzip.compress(plain) if kind is CompressionType.Gzip else plain
    head = bytes([0x80 | kind.value << 4]) + len(messages).to_bytes(2, "big")
    return head + len(plain).to_bytes(4, "big") + len(packed).to_bytes(4, "big") + packed


def chunk(first_offset: int, *entries: bytes) -> Deliver:
    data = b"".join(entries)
    return Deliver(0, 0x50, 0, len(entries), 0, 1700, 1, first_offset, zlib.crc32(data), len(data), 0, 0, data)


async def deliver(kind: type[Consumer], frame: Deliver, *, from_offset: int = 0, **options: Any) -> tuple[list[Any], Client]:
    """What a consumer hands to its callback of a chunk."""
    client, seen = Client(), list[Any]()

    async def callback(message: bytes, context: MessageContext) -> None:
        seen.append((context.offset, message, context.stream, context.timestamp))

    subscriber = SimpleNamespace(
        subscription_id=0, client=client, offset_type=OffsetType.OFFSET, offset=from_offset, stream="s", reference=None,
        callback=callback, decoder=lambda data: data,
    )  # fmt: skip
    consumer = kind("127.0.0.1", 1, username="u", password="p", **options)
    await consumer._on_deliver(frame, subscriber, None)  # type: ignore[arg-type]
    return seen, client


def refuse(error: Exception) -> None:
    raise AssertionError(error)


async def test_a_chunk_gives_what_the_library_would_give() -> None:
    plain = [len(message).to_bytes(4, "big") + message for message in (b"one", b"two")]
    messages = [random.Random(number).randbytes(1 + number * 977) for number in range(40)]
    entries = [plain[0], entry(messages, CompressionType.Gzip), plain[1], entry([b"x", b""], CompressionType.No)]
    for from_offset in (0, 100, 120, 1000):
        ours, client = await deliver(ChunkConsumer, chunk(100, *entries), from_offset=from_offset, on_broken=refuse)
        theirs, _ = await deliver(Consumer, chunk(100, *entries), from_offset=from_offset)
        assert ours == theirs
        assert client.credits == 1
    assert [offset for offset, *_ in (await deliver(ChunkConsumer, chunk(100, *entries), on_broken=refuse))[0]] == [*range(100, 144)]


async def test_another_subscriptions_chunk_is_left_alone() -> None:
    frame = chunk(0, entry([b"a"], CompressionType.Gzip))
    frame.subscription_id = 7
    assert (await deliver(ChunkConsumer, frame, on_broken=refuse))[0] == []


@pytest.mark.parametrize(
    "broken",
    [
        entry([b"a"], CompressionType.Gzip, b"no gzip"),
        entry([b"a"], CompressionType.Gzip, gzip.compress(b"\0\0\0\1a")[:-4]),
        entry([b"a"], CompressionType.Gzip, gzip.compress(bytes(100_000_000), 9)),
        entry([b"a"], CompressionType.Gzip, gzip.compress(b"\0\0\0")),
        entry([b"a"], CompressionType.Zstd, b"whatever"),
    ],
    ids=["no gzip", "cut", "bomb", "too short", "unknown codec"],
)
async def test_a_chunk_that_cannot_be_unpacked_is_told_and_not_passed_over(broken: bytes) -> None:
    told: list[Exception] = []
    seen, _ = await deliver(ChunkConsumer, chunk(0, entry([b"good"], CompressionType.Gzip), broken), on_broken=told.append)
    assert len(told) == 1
    assert seen == []


def test_the_library_unpacks_by_our_codec_and_packs_by_its_own() -> None:
    packed = GzipCompressionCodec()
    packed.compress([b"one", b"two"])
    assert CompressionHelper.uncompress(packed.data(), CompressionType.Gzip, packed.uncompressed_size()) == b"\0\0\0\3one\0\0\0\3two"
    with pytest.raises(ValueError, match="does not unpack to the 5 bytes"):
        CompressionHelper.uncompress(packed.data(), CompressionType.Gzip, 5)
    assert isinstance(CompressionHelper.compress([b"x"], CompressionType.Gzip), BoundedGzip)
