"""The inbox: order, batches by count, bytes and delay, and a `put` that waits when it is full."""

import asyncio
import time

import pytest

from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.stream.events import RawMessage


def message(offset: int, size: int = 10) -> RawMessage:
    return RawMessage(offset, bytes(size))


async def filled(*sizes: int, max_bytes: int = 1000) -> Inbox:
    inbox = Inbox(max_bytes)
    for offset, size in enumerate(sizes):
        await inbox.put(message(offset, size))
    return inbox


async def offsets(inbox: Inbox, *, max_messages: int = 100, max_bytes: int = 1000, delay_s: float = 0.01) -> list[int]:
    async with asyncio.timeout(10):
        return [one.offset for one in await inbox.batch(max_messages=max_messages, max_bytes=max_bytes, delay_s=delay_s)]


async def until_waiting() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_messages_come_out_in_order() -> None:
    assert await offsets(await filled(1, 1, 1, 1)) == [0, 1, 2, 3]


async def test_a_batch_ends_at_its_count() -> None:
    inbox = await filled(1, 1, 1)
    assert await offsets(inbox, max_messages=2, delay_s=60) == [0, 1]
    assert await offsets(inbox) == [2]


async def test_a_batch_ends_before_it_has_too_many_bytes() -> None:
    inbox = await filled(40, 40, 40)
    assert await offsets(inbox, max_bytes=100, delay_s=60) == [0, 1]
    assert await offsets(inbox, max_bytes=100) == [2]


async def test_a_message_larger_than_a_batch_is_a_batch_of_its_own() -> None:
    inbox = await filled(500, 10)
    assert await offsets(inbox, max_bytes=100, delay_s=60) == [0]
    assert await offsets(inbox, max_bytes=100) == [1]


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
async def test_a_batch_waits_for_its_first_message_and_then_only_so_long(delay_s: float) -> None:
    inbox = Inbox(1000)
    taking = asyncio.create_task(offsets(inbox, delay_s=delay_s))
    await until_waiting()
    assert not taking.done()
    started = time.monotonic()
    await inbox.put(message(0))
    assert await taking == [0]
    assert time.monotonic() - started >= delay_s * 0.9


async def test_what_comes_within_the_delay_belongs_to_the_batch() -> None:
    inbox = Inbox(1000)
    taking = asyncio.create_task(offsets(inbox, max_messages=3, delay_s=30))
    for offset in range(3):
        await inbox.put(message(offset))
        await until_waiting()
    assert await taking == [0, 1, 2]


async def test_a_full_inbox_makes_the_producer_wait() -> None:
    inbox = await filled(60, 30, max_bytes=100)
    putting = asyncio.create_task(inbox.put(message(2, 20)))
    await until_waiting()
    assert not putting.done()
    assert inbox.bytes == 90
    assert await offsets(inbox, max_messages=1) == [0]
    await asyncio.wait_for(putting, 10)
    assert (inbox.bytes, len(inbox)) == (50, 2)


async def test_a_message_larger_than_the_inbox_is_let_into_an_empty_one() -> None:
    inbox = Inbox(100)
    await asyncio.wait_for(inbox.put(message(0, 500)), 10)
    putting = asyncio.create_task(inbox.put(message(1, 500)))
    await until_waiting()
    assert not putting.done()
    assert await offsets(inbox, max_messages=1) == [0]
    await asyncio.wait_for(putting, 10)


async def test_everything_passes_a_small_inbox_in_order() -> None:
    inbox = Inbox(25)

    async def produce() -> None:
        for offset in range(200):
            await inbox.put(message(offset))

    producing = asyncio.create_task(produce())
    received: list[int] = []
    while len(received) < 200:
        received += await offsets(inbox, max_messages=7, delay_s=0.001)
    await producing
    assert received == list(range(200))
    assert inbox.bytes == 0


async def test_cancelling_a_waiting_consumer_loses_nothing() -> None:
    inbox = Inbox(1000)
    taking = asyncio.create_task(offsets(inbox))
    await until_waiting()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await inbox.put(message(0))
    assert await offsets(inbox) == [0]
