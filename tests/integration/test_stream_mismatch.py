"""A stream that is not the one that was consumed, on a real broker: noticed, and handled as `stream.on_mismatch` says."""

import os
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from azaion_daemon.errors import StreamMismatchError
from azaion_daemon.sandbox.annotations import Message, Status
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.store.records import Position
from tests.integration.consuming import Consuming, digests, messages, stream_settings


@pytest.fixture
def events() -> Iterator[list[EventDict]]:
    with capture_logs() as logs:
        yield logs


def event(events: list[EventDict], name: str) -> EventDict:
    (found,) = [one for one in events if one["event"] == name]
    return found


async def consumed(broker: Broker, stream: str, sent: list[Message], base: int = 0) -> Position:
    """The position of a daemon that has consumed all of a stream."""
    await Annotator(broker, stream).publish(sent)
    last_position = base - 1 if base else None
    async with Consuming(stream_settings(broker, stream), last_position=last_position) as consuming:
        await consuming.until_taken(len(sent))
        return consuming.position()


def make_anew(broker: Broker, stream: str) -> None:
    broker.delete_stream(stream)
    broker.create_stream(stream)


async def test_made_anew_and_grown_past_the_position_it_stops(broker: Broker, stream: str, events: list[EventDict]) -> None:
    position = await consumed(broker, stream, messages(5))
    make_anew(broker, stream)
    await Annotator(broker, stream).publish(messages(9, "other"))
    async with Consuming(stream_settings(broker, stream), position) as consuming:
        with pytest.raises(StreamMismatchError, match=r"another message there.*stream.on_mismatch: continue"):
            await consuming.task
    assert consuming.taken == []
    said = event(events, "stream.mismatch")
    assert said["kind"] == "anew"
    assert (said["position"], said["offset"], said["digest"]) == (4, 4, position.digest.hex())
    assert (said["found"], said["first"], said["last"]) == (4, 0, 8)


async def test_made_anew_it_goes_on_from_the_beginning_above_all_old_positions(broker: Broker, stream: str) -> None:
    position = await consumed(broker, stream, messages(5), base=40)
    make_anew(broker, stream)
    other = messages(9, "other")
    await Annotator(broker, stream).publish(other)
    async with Consuming(stream_settings(broker, stream, on_mismatch="continue"), position) as consuming:
        await consuming.until_taken(9)
    assert consuming.digests == digests(other)
    assert position.position == 44
    assert consuming.positions == list(range(45, 54))
    assert consuming.consumer.health.reconnects == 1


async def test_made_anew_and_shorter_it_goes_on_from_the_beginning(broker: Broker, stream: str) -> None:
    position = await consumed(broker, stream, messages(5))
    make_anew(broker, stream)
    other = messages(2, "other")
    await Annotator(broker, stream).publish(other)
    async with Consuming(stream_settings(broker, stream, on_mismatch="continue"), position) as consuming:
        await consuming.until_taken(2)
    assert (consuming.digests, consuming.positions) == (digests(other), [5, 6])


@pytest.mark.parametrize("on_mismatch", ["stop", "continue"])
async def test_an_empty_stream_is_waited_for_before_anything_is_decided(broker: Broker, stream: str, on_mismatch: str) -> None:
    position = await consumed(broker, stream, messages(5))
    make_anew(broker, stream)
    async with Consuming(stream_settings(broker, stream, on_mismatch=on_mismatch), position) as consuming:
        await consuming.until_why("seems to be empty; was it made anew?")
        other = messages(1, "other")
        await Annotator(broker, stream).publish(other)
        if on_mismatch == "continue":
            await consuming.until_taken(1)
            assert (consuming.digests, consuming.positions) == (digests(other), [5])
        else:
            with pytest.raises(StreamMismatchError, match="it ends at offset 0"):
                await consuming.task


async def test_made_anew_while_connected_nothing_is_taken_as_a_sequel(broker: Broker, stream: str) -> None:
    await Annotator(broker, stream).publish(messages(5))
    other = messages(8, "other")
    async with Consuming(stream_settings(broker, stream, on_mismatch="continue")) as consuming:
        await consuming.until_taken(5)
        make_anew(broker, stream)
        await Annotator(broker, stream).publish(other)
        await consuming.until_taken(13)
    assert consuming.digests == digests(messages(5)) + digests(other)
    assert consuming.positions == list(range(13))


@pytest.fixture
def truncated(broker: Broker) -> Iterator[str]:
    """The name of a stream that forgets its oldest messages."""
    name = "azaion-annotations-truncated"
    broker.create_stream(name, max_length_bytes=400_000)
    yield name
    broker.delete_stream(name)


def fillers() -> list[Message]:
    return [Message(Status.DELETED, os.urandom(50_000), {}) for _ in range(40)]


async def test_truncated_by_retention_it_stops(broker: Broker, truncated: str, events: list[EventDict]) -> None:
    position = await consumed(broker, truncated, messages(3))
    await Annotator(broker, truncated, entry_messages=1).publish(fillers())
    async with Consuming(stream_settings(broker, truncated), position) as consuming:
        with pytest.raises(StreamMismatchError, match="offsets that were never consumed are gone"):
            await consuming.task
    said = event(events, "stream.mismatch")
    assert said["kind"] == "truncated"
    assert said["found"] == said["first"] > position.offset
    assert said["last"] == 42


async def test_truncated_by_retention_it_goes_on_with_what_there_is(broker: Broker, truncated: str, events: list[EventDict]) -> None:
    position = await consumed(broker, truncated, messages(3), base=7)
    lost_and_kept = fillers()
    await Annotator(broker, truncated, entry_messages=1).publish(lost_and_kept)
    async with Consuming(stream_settings(broker, truncated, on_mismatch="continue"), position) as consuming:
        await consuming.until(lambda: bool(consuming.taken) and consuming.taken[-1].offset == 42, "the last message")
    missing = event(events, "stream.gap_accepted")["missing"]
    assert missing > 0
    assert consuming.digests == digests(lost_and_kept[missing:])
    assert consuming.positions == list(range(7 + 3 + missing, 7 + 43))


async def test_an_imported_position_is_gone_on_from_without_comparing(broker: Broker, stream: str, events: list[EventDict]) -> None:
    sent = messages(6)
    await Annotator(broker, stream, entry_messages=4).publish(sent)
    async with Consuming(stream_settings(broker, stream), Position(2, b"")) as consuming:
        await consuming.until_taken(3)
    assert consuming.digests == digests(sent[3:])
    assert event(events, "stream.position_unverified")["offset"] == 2


async def test_an_imported_position_at_the_end_waits_for_the_next_message(broker: Broker, stream: str) -> None:
    sent = messages(4)
    await Annotator(broker, stream).publish(sent[:3])
    async with Consuming(stream_settings(broker, stream), Position(2, b"")) as consuming:
        await consuming.until_connected()
        await Annotator(broker, stream).publish(sent[3:])
        await consuming.until_taken(1)
    assert consuming.digests == digests(sent[3:])


async def test_an_imported_position_beyond_the_end_is_another_stream(broker: Broker, stream: str) -> None:
    sent = messages(3)
    await Annotator(broker, stream).publish(sent)
    async with Consuming(stream_settings(broker, stream), Position(9, b"")) as consuming:
        with pytest.raises(StreamMismatchError, match="it ends at offset 2"):
            await consuming.task
    async with Consuming(stream_settings(broker, stream, on_mismatch="continue"), Position(9, b"")) as consuming:
        await consuming.until_taken(3)
    assert (consuming.digests, consuming.positions) == (digests(sent), [10, 11, 12])


async def test_another_stream_in_the_same_ledger_begins_above_all_that_was_consumed(broker: Broker, stream: str) -> None:
    await Annotator(broker, stream).publish(messages(3))
    async with Consuming(stream_settings(broker, stream), last_position=99) as consuming:
        await consuming.until_taken(3)
    assert consuming.positions == [100, 101, 102]


async def test_end_means_what_comes_after_the_first_look(broker: Broker, stream: str) -> None:
    sent = messages(6)
    await Annotator(broker, stream).publish(sent[:4])
    async with Consuming(stream_settings(broker, stream, start_from="end")) as consuming:
        await consuming.until_connected()
        await Annotator(broker, stream).publish(sent[4:])
        await consuming.until_taken(2)
    assert consuming.digests == digests(sent[4:])


async def test_the_end_of_an_empty_stream_is_its_beginning(broker: Broker, stream: str) -> None:
    async with Consuming(stream_settings(broker, stream, start_from="end")) as consuming:
        await consuming.until_connected()
        await Annotator(broker, stream).publish(messages(2))
        await consuming.until_taken(2)
    assert consuming.digests == digests(messages(2))
