"""What the library underneath gets wrong when a connection goes bad: each has an answer, and nothing is lost or doubled."""

import asyncio
import os
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest
import rstream
from structlog.testing import capture_logs

from azaion_daemon.sandbox.annotations import Message, Status
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.tcp_proxy import Damage, Proxy, flip_last_byte, unknown_compression
from azaion_daemon.stream.events import RawMessage
from tests.integration.consuming import LIMIT_S, Consuming, digests, messages, stream_settings

# A connection that dies while it is made leaves a transport to the garbage collector, and a bad frame an error in the library's own task.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

STORE_OFFSET = 10


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    with Proxy(broker.port) as running:
        yield running


class Gate:
    """Lets so many messages pass, then holds the next one until it is opened."""

    def __init__(self, messages: int) -> None:
        self._left = messages
        self.held = 0
        self.waiting = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, message: RawMessage) -> None:
        if self._left:
            self._left -= 1
            return
        self.held += 1
        self.waiting.set()
        await self.open.wait()


async def test_a_fault_while_a_message_is_handed_on_ends_the_consumer_and_skips_nothing(broker: Broker, stream: str) -> None:
    sent = messages(10)
    await Annotator(broker, stream).publish(sent)
    calls = 0

    async def fails_at_the_fourth(message: RawMessage) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise ZeroDivisionError

    async with Consuming(stream_settings(broker, stream), deliver=fails_at_the_fourth) as first:
        with pytest.raises(ZeroDivisionError):
            await first.task
    async with Consuming(stream_settings(broker, stream), first.position()) as second:
        await second.until_taken(7)
    assert first.digests + second.digests == digests(sent)


@pytest.mark.parametrize(
    ("damage", "why"), [(flip_last_byte, "sent something that cannot be read"), (unknown_compression, "cannot be taken apart")]
)
async def test_a_damaged_chunk_is_read_again(broker: Broker, stream: str, proxy: Proxy, damage: Damage, why: str) -> None:
    sent = messages(6)
    await Annotator(broker, stream, entry_messages=3).publish(sent[:3])
    proxy.damage_delivery(2, damage)
    with capture_logs() as logs:
        async with Consuming(stream_settings(broker, stream, port=proxy.port)) as consuming:
            await consuming.until_taken(3)
            await Annotator(broker, stream, entry_messages=3).publish(sent[3:])
            await consuming.until_taken(6)
    assert consuming.digests == digests(sent)
    assert [why in log["why"] for log in logs if log["event"] == "stream.disconnected"] == [True]


async def test_a_frozen_broker_is_noticed_within_three_heartbeats(broker: Broker, stream: str, proxy: Proxy) -> None:
    sent = messages(4)
    await Annotator(broker, stream).publish(sent[:2])
    async with Consuming(stream_settings(broker, stream, port=proxy.port)) as consuming:
        await consuming.until_taken(2)
        proxy.freeze()
        frozen = time.monotonic()
        await consuming.until_why("it is frozen or cut off")
        assert time.monotonic() - frozen < 2.5 + 2
        proxy.cut()
        proxy.thaw()
        await Annotator(broker, stream).publish(sent[2:])
        await consuming.until_taken(4)
    assert consuming.digests == digests(sent)


@pytest.mark.parametrize("when", ["connected", "connecting"])
async def test_a_frozen_broker_does_not_hold_up_a_stop(broker: Broker, stream: str, proxy: Proxy, when: str) -> None:
    if when == "connecting":
        proxy.freeze()
    async with Consuming(stream_settings(broker, stream, port=proxy.port, heartbeat_s=60)) as consuming:
        if when == "connected":
            await consuming.until_connected()
            proxy.freeze()
        else:
            await consuming.until(lambda: proxy.connections > 0, "an attempt")
        stopping = time.monotonic()
        consuming.task.cancel()
        await asyncio.gather(consuming.task, return_exceptions=True)
        assert time.monotonic() - stopping < 5


async def test_a_large_chunk_on_a_slow_line_is_no_silence(broker: Broker, stream: str, proxy: Proxy) -> None:
    large = Message(Status.DELETED, os.urandom(3_000_000), {})
    await Annotator(broker, stream).publish([large])
    proxy.bytes_per_s = 600_000  # five heartbeats long
    async with Consuming(stream_settings(broker, stream, port=proxy.port)) as consuming:
        await consuming.until_taken(1)
        assert consuming.consumer.health.reconnects == 0
    assert consuming.digests == digests([large])


async def test_it_tries_on_for_longer_than_the_library_would(broker: Broker, stream: str, proxy: Proxy) -> None:
    proxy.refusing = True
    async with Consuming(stream_settings(broker, stream, port=proxy.port)) as consuming:
        await consuming.until(lambda: consuming.consumer.health.attempts > 12, "a dozen attempts")
        assert consuming.consumer.health.reconnects == 0
        proxy.refusing = False
        await Annotator(broker, stream).publish(messages(2))
        await consuming.until_taken(2)
        assert consuming.consumer.health.attempts == 0
    assert consuming.digests == digests(messages(2))


async def test_a_stream_that_does_not_exist_yet_is_waited_for(broker: Broker) -> None:
    name = f"azaion-annotations-{uuid.uuid4().hex[:12]}"
    async with Consuming(stream_settings(broker, name)) as consuming:
        await consuming.until_why(f"the stream {name} does not exist")
        broker.create_stream(name)
        try:
            await Annotator(broker, name).publish(messages(3))
            await consuming.until_taken(3)
        finally:
            broker.delete_stream(name)
    assert consuming.digests == digests(messages(3))


async def test_a_stream_that_is_deleted_is_noticed_at_once(broker: Broker, stream: str) -> None:
    async with Consuming(stream_settings(broker, stream, heartbeat_s=60)) as consuming:
        await consuming.until_connected()
        broker.delete_stream(stream)
        await consuming.until(lambda: not consuming.consumer.health.connected, "the loss")


@pytest.mark.parametrize("start_from", ["beginning", "end"])
async def test_a_drop_before_the_first_chunk_changes_nothing_of_where_it_began(
    broker: Broker, stream: str, proxy: Proxy, start_from: str
) -> None:
    old, new = messages(3, "old"), messages(3, "new")
    if start_from == "end":
        await Annotator(broker, stream).publish(old)
    async with Consuming(stream_settings(broker, stream, port=proxy.port, start_from=start_from)) as consuming:
        await consuming.until_connected()
        proxy.refusing = True
        proxy.cut()
        await consuming.until(lambda: not consuming.consumer.health.connected, "the loss")
        await Annotator(broker, stream).publish(new)
        proxy.refusing = False
        await consuming.until_taken(3)
    assert consuming.digests == digests(new)


async def test_a_drop_in_the_middle_of_a_chunk_loses_and_doubles_nothing(broker: Broker, stream: str, proxy: Proxy) -> None:
    sent = messages(64)
    await Annotator(broker, stream, entry_messages=16).publish(sent[:32])
    async with Consuming(stream_settings(broker, stream, port=proxy.port)) as consuming:
        await consuming.until_taken(32)
        proxy.cut_in_delivery(1)
        await Annotator(broker, stream, entry_messages=16).publish(sent[32:])
        await consuming.until_taken(64)
        assert consuming.consumer.health.reconnects == 1
    assert consuming.digests == digests(sent)


async def test_a_message_that_is_being_handed_on_when_the_connection_drops_is_handed_on_once(
    broker: Broker, stream: str, proxy: Proxy
) -> None:
    sent = messages(32)
    await Annotator(broker, stream, entry_messages=16).publish(sent)
    gate = Gate(5)  # in the middle of a gzip sub-entry
    async with Consuming(stream_settings(broker, stream, port=proxy.port), deliver=gate) as consuming:
        await gate.waiting.wait()
        proxy.cut()
        await consuming.until(lambda: consuming.consumer.health.reconnects == 1, "a reconnect")
        await consuming.until(lambda: gate.held == 2, "the same message on the new connection")
        gate.open.set()
        await consuming.until_taken(32)
    assert consuming.digests == digests(sent)
    assert consuming.positions == list(range(32))


async def test_every_subscription_has_its_offset_and_its_credit(broker: Broker, stream: str, proxy: Proxy) -> None:
    await Annotator(broker, stream).publish(messages(5))
    async with Consuming(stream_settings(broker, stream, port=proxy.port, initial_credit=3)) as consuming:
        await consuming.until_taken(5)
        proxy.cut()
        await consuming.until(lambda: consuming.consumer.health.reconnects == 1, "a reconnect")
    assert [(one.offset, one.credit) for one in proxy.subscribed] == [(None, 3), (4, 3)]
    assert STORE_OFFSET not in proxy.requests  # the ledger is the truth


async def test_gaps_between_offsets_are_nothing_strange(broker: Broker, stream: str) -> None:
    sent = messages(6)
    await Annotator(broker, stream).publish(sent[:3])
    admin = broker.admin
    async with rstream.Consumer(broker.host, broker.port, username=admin.user, password=admin.password) as storing:
        await storing.store_offset(stream, "somebody", 1)
        async with asyncio.timeout(LIMIT_S):
            while await _stored(storing, stream) != 1:  # noqa: ASYNC110 - the broker gives no sign when it has stored it
                await asyncio.sleep(0.05)
    await Annotator(broker, stream).publish(sent[3:])
    async with Consuming(stream_settings(broker, stream)) as consuming:
        await consuming.until_taken(6)
    assert consuming.digests == digests(sent)
    assert [message.offset for message in consuming.taken] == [0, 1, 2, 4, 5, 6]


async def _stored(consumer: rstream.Consumer, stream: str) -> int | None:
    try:
        return await consumer.query_offset(stream, "somebody")
    except rstream.exceptions.ServerError:
        return None


async def test_a_start_after_the_end_of_the_stream_is_said(broker: Broker, stream: str) -> None:
    await Annotator(broker, stream).publish(messages(3))
    with capture_logs() as logs:
        async with Consuming(stream_settings(broker, stream, start_from=9)) as consuming:
            await consuming.until_connected()
    (said,) = [log for log in logs if log["event"] == "stream.start_outside"]
    assert (said["start_from"], said["first"], said["last"]) == (9, 0, 2)


async def test_dropped_connections_leave_no_sockets_behind(broker: Broker, stream: str, proxy: Proxy) -> None:
    async with Consuming(stream_settings(broker, stream, port=proxy.port)) as consuming:
        for reconnects in range(8):
            await consuming.until(lambda n=reconnects: consuming.consumer.health.reconnects == n, "the next connection")  # type: ignore[misc]
            await consuming.until_connected()
            proxy.hang_up()
            await consuming.until(lambda: not consuming.consumer.health.connected, "the loss")
        await consuming.until_connected()
        ours = [one.status for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == proxy.port]
    assert "CLOSE_WAIT" not in ours
    assert len(ours) == 2


async def test_two_consumers_at_once_are_impossible(broker: Broker, stream: str) -> None:
    async with Consuming(stream_settings(broker, stream)) as consuming:
        await consuming.until_connected()
        with pytest.raises(AssertionError):
            await consuming.consumer.run()
