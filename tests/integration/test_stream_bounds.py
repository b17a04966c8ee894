"""What the consumer costs while it reads: memory, the event loop's time, reads of the socket, lines of the log."""

import asyncio
import gc
import io
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rstream
from rstream import AMQPMessage, schema

from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.logs import logging_to
from azaion_daemon.sandbox.annotations import Message, Status
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenario import scenario
from azaion_daemon.sandbox.tcp_proxy import Proxy
from azaion_daemon.stream.events import RawMessage
from tests.harness import Site
from tests.integration.consuming import Consuming, digests, messages, stream_settings

MB = 1_000_000


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    with Proxy(broker.port) as running:
        yield running


def random_messages(count: int, size: int) -> list[Message]:
    return [Message(Status.DELETED, os.urandom(size), {}) for _ in range(count)]


async def publish_chunks(broker: Broker, stream: str, sent: list[Message]) -> None:
    """Publish each message as a chunk of its own."""
    login = broker.producer
    async with rstream.Producer(broker.host, broker.port, username=login.user, password=login.password) as producer:
        for message in sent:
            await producer.send_wait(stream, message.amqp())


async def publish_entry(broker: Broker, stream: str, bodies: list[bytes]) -> None:
    """Publish as one gzip sub-entry, which the broker keeps in one chunk."""
    login = broker.producer
    confirmed = asyncio.Event()
    async with rstream.Producer(broker.host, broker.port, username=login.user, password=login.password) as producer:
        await producer.send_sub_entry(
            stream,
            [AMQPMessage(body=body) for body in bodies],
            compression_type=rstream.CompressionType.Gzip,
            on_publish_confirm=lambda _: confirmed.set(),
        )
        async with asyncio.timeout(30):
            await confirmed.wait()


class Held:
    """Holds every message until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, message: RawMessage) -> None:
        await self.open.wait()


def chunks_in_memory() -> int:
    gc.collect()
    return sum(isinstance(one, schema.Deliver) for one in gc.get_objects())


async def test_a_writer_that_falls_behind_holds_the_broker_back(broker: Broker, stream: str, proxy: Proxy) -> None:
    sent = random_messages(24, MB)
    await publish_chunks(broker, stream, sent)
    held = Held()
    async with Consuming(stream_settings(broker, stream, port=proxy.port, initial_credit=2), deliver=held) as consuming:
        await consuming.until(lambda: proxy.deliveries == 2, "as many chunks as there is credit for")
        await asyncio.sleep(1.5)  # longer than the broker would need for all of them
        assert proxy.deliveries == 2
        assert chunks_in_memory() <= 1  # the other one is taken apart already
        assert consuming.consumer.health.connected
        held.open.set()
        await consuming.until_taken(24)
    assert consuming.digests == digests(sent)


async def test_a_full_inbox_holds_no_more_than_its_bytes(broker: Broker, stream: str) -> None:
    sent = random_messages(40, MB // 4)
    await Annotator(broker, stream, entry_messages=4).publish(sent)
    inbox = Inbox(2 * MB)
    fullest = 0

    async def put(message: RawMessage) -> None:
        nonlocal fullest
        await inbox.put(message)
        fullest = max(fullest, inbox.bytes)

    async with Consuming(stream_settings(broker, stream), deliver=put) as consuming:
        await consuming.until(lambda: inbox.bytes > 1.5 * MB, "a full inbox")
        while len(consuming.taken) < 40:
            await inbox.batch(max_messages=1, max_bytes=MB, delay_s=0.01)
    assert fullest <= 2 * MB
    assert consuming.digests == digests(sent)


async def test_a_stream_that_is_held_gathers_no_frames_of_another(broker: Broker, stream: str) -> None:
    other = f"{stream}-other"
    broker.create_stream(other)
    try:
        for name in (stream, other):
            await publish_chunks(broker, name, random_messages(12, MB // 4))
        held = Held()
        async with (
            Consuming(stream_settings(broker, stream, initial_credit=2), deliver=held) as blocked,
            Consuming(stream_settings(broker, other, initial_credit=2)) as free,
        ):
            await blocked.until_connected()
            await free.until_taken(12)
            assert chunks_in_memory() <= 2
    finally:
        broker.delete_stream(other)


async def test_a_chunk_of_17_mb_does_not_stop_the_loop(broker: Broker, stream: str) -> None:
    count = 300
    await publish_entry(broker, stream, [os.urandom(57_000) for _ in range(count)])

    async def never_really_waits(message: RawMessage) -> None:
        ends = time.perf_counter() + 1.0 / count
        while time.perf_counter() < ends:
            pass

    longest = 0.0
    async with Consuming(stream_settings(broker, stream, heartbeat_s=60), deliver=never_really_waits) as consuming:
        before = time.perf_counter()
        while len(consuming.taken) < count:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
    assert longest < 0.5, "of 1 s that the messages take"


async def test_the_socket_is_read_in_large_pieces(broker: Broker, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await Annotator(broker, stream).publish(random_messages(8, MB))
    sizes: list[int] = []
    read = asyncio.StreamReader.read

    async def counting(reader: asyncio.StreamReader, n: int = -1) -> bytes:
        data = await read(reader, n)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(asyncio.StreamReader, "read", counting)
    async with Consuming(stream_settings(broker, stream)) as consuming:
        await consuming.until_taken(8)
    assert sum(sizes) > 8 * MB
    assert sum(sizes) / len(sizes) > 8192


async def test_the_library_never_logs_frames_whatever_the_level(broker: Broker, stream: str) -> None:
    await Annotator(broker, stream).publish(messages(3))
    output = io.StringIO()
    with logging_to(output, level="debug", style="json"):
        logging.getLogger().setLevel(logging.DEBUG)  # as somebody might who looks for a fault
        async with Consuming(stream_settings(broker, stream)) as consuming:
            await consuming.until_taken(3)
    assert "stream.connected" in output.getvalue()
    assert "Deliver" not in output.getvalue()
    assert '"logger": "rstream' not in output.getvalue()


def test_a_daemon_whose_broker_is_frozen_stops_within_seconds(tmp_path: Path, broker: Broker, stream: str, proxy: Proxy) -> None:
    site = Site(tmp_path, broker, stream)
    site.environment["RABBITMQ_PORT"] = str(proxy.port)
    site.prepare()
    site.publish(scenario(5, seed=1).messages)
    with site.daemon() as daemon:
        daemon.wait_for_event("ingest.batch")
        proxy.freeze()
        assert daemon.stop() < 8
