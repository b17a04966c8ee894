import asyncio
import gc
import itertools
import os
from collections.abc import AsyncIterator

import pytest
import rstream
from rstream import exceptions

from azaion_daemon.sandbox.annotations import Message, Status
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker, Login
from azaion_daemon.sandbox.scenario import OPERATOR, scenario

pytestmark = pytest.mark.timeout(120)


def messages(count: int) -> list[Message]:
    return [OPERATOR.deleted([f"name-{number}"]) for number in range(count)]


async def received(broker: Broker, stream: str, count: int) -> list[rstream.AMQPMessage]:
    """The first `count` messages of a stream, as the daemon's user reads them."""
    found: list[rstream.AMQPMessage] = []
    complete = asyncio.Event()

    def take(payload: bytes, _: rstream.MessageContext) -> None:
        found.append(rstream.amqp_decoder(payload))
        if len(found) == count:
            complete.set()

    login = broker.consumer
    async with asyncio.timeout(20), rstream.Consumer(broker.host, broker.port, username=login.user, password=login.password) as consumer:
        await consumer.subscribe(stream, take, decoder=None)
        await complete.wait()
    return found


async def test_messages_arrive_in_order_and_as_they_were_made(broker: Broker, stream: str) -> None:
    shift = scenario(40, seed=1, size=64)
    assert await Annotator(broker, stream).publish(shift.messages) == len(shift.messages)
    arrived = await received(broker, stream, len(shift.messages))
    assert [message.body for message in arrived] == [message.body for message in shift.messages]
    assert arrived[0].application_properties == {b"AnnotationStatus": b"Created", b"Email": arrived[0].application_properties[b"Email"]}


async def test_duplicates_follow_their_originals(broker: Broker, stream: str) -> None:
    sent = await Annotator(broker, stream, entry_messages=3).publish(messages(40), duplicates=0.5)
    assert 45 < sent < 75
    bodies = [message.body for message in await received(broker, stream, sent)]
    assert list(dict.fromkeys(bodies)) == [message.body for message in messages(40)]
    assert sum(one == other for one, other in itertools.pairwise(bodies)) == sent - 40


async def test_a_large_message_passes(broker: Broker, stream: str) -> None:
    body = bytes(7 << 20)
    large = Message(Status.DELETED, body, {"AnnotationStatus": "Deleted"})
    await Annotator(broker, stream).publish([large, large])
    assert [message.body for message in await received(broker, stream, 2)] == [body, body]


async def test_killed_and_started_again_it_has_every_confirmed_message(broker: Broker, stream: str) -> None:
    await Annotator(broker, stream).publish(messages(100))
    port = broker.port
    broker.kill()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(broker.host, port)
    broker.start()
    assert broker.port == port
    assert len(await received(broker, stream, 100)) == 100
    await Annotator(broker, stream).publish(messages(5))
    assert len(await received(broker, stream, 105)) == 105


async def test_stopped_and_started_again_it_goes_on(broker: Broker, stream: str) -> None:
    await Annotator(broker, stream).publish(messages(10))
    broker.stop()
    broker.start()
    assert len(await received(broker, stream, 10)) == 10


# rstream leaves the transport of a connection behind that did not come about; it is collected here, where the warning is expected.
leaves_a_transport = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@leaves_a_transport
async def test_a_frozen_broker_is_silent_until_it_is_thawed(broker: Broker, stream: str) -> None:
    broker.freeze()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await Annotator(broker, stream).publish(messages(3))
    finally:
        broker.thaw()
    await Annotator(broker, stream).publish(messages(3))
    gc.collect()


@leaves_a_transport
async def test_a_wrong_password_is_refused(broker: Broker) -> None:
    with pytest.raises(exceptions.AuthenticationFailure):
        async with rstream.Consumer(broker.host, broker.port, username=broker.consumer.user, password="changeme"):
            pass
    gc.collect()


@pytest.fixture
async def as_consumer(broker: Broker) -> AsyncIterator[rstream.Producer]:
    async with _producer(broker, broker.consumer) as producer:
        yield producer


def _producer(broker: Broker, login: Login) -> rstream.Producer:
    return rstream.Producer(broker.host, broker.port, username=login.user, password=login.password)


async def test_the_consumer_may_neither_write_create_nor_delete(as_consumer: rstream.Producer, stream: str) -> None:
    with pytest.raises(exceptions.AccessRefused):
        await as_consumer.create_stream("azaion-annotations-mine")
    with pytest.raises(exceptions.AccessRefused):
        await as_consumer.delete_stream(stream)
    with pytest.raises(exceptions.PublisherDoesNotExist) as caught:  # rstream's own cleaning up hides what was answered
        await as_consumer.send_wait(stream, b"text")
    assert isinstance(caught.value.__context__, exceptions.AccessRefused)


async def test_the_consumer_reads_its_own_stream_alone(broker: Broker) -> None:
    broker.create_stream("somebody-elses")
    login = broker.consumer
    try:
        async with rstream.Consumer(broker.host, broker.port, username=login.user, password=login.password) as consumer:
            with pytest.raises(exceptions.AccessRefused):
                await consumer.subscribe("somebody-elses", lambda *_: None)
    finally:
        broker.delete_stream("somebody-elses")


async def test_the_producer_may_not_read(broker: Broker, stream: str) -> None:
    login = broker.producer
    async with rstream.Consumer(broker.host, broker.port, username=login.user, password=login.password) as consumer:
        with pytest.raises(exceptions.AccessRefused):
            await consumer.subscribe(stream, lambda *_: None)


async def test_a_stream_with_a_limit_forgets_its_oldest_messages(broker: Broker) -> None:
    name = "azaion-annotations-limited"
    broker.create_stream(name, max_length_bytes=400_000)
    try:
        fillers = [Message(Status.DELETED, os.urandom(50_000), {}) for _ in range(40)]
        await Annotator(broker, name, entry_messages=1).publish(fillers)
        first = (await received(broker, name, 1))[0]
        assert first.body not in {filler.body for filler in fillers[:10]}
    finally:
        broker.delete_stream(name)
