"""Tasks that do not take a cancellation at once."""

import asyncio
from contextlib import suppress

from azaion_daemon.stream.cancelling import end


async def swallowing(times: int) -> None:
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


async def failing() -> None:
    await asyncio.sleep(0)
    raise ValueError("its own")


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    tasks = [asyncio.create_task(swallowing(times)) for times in (0, 1, 3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end(*tasks)
    assert all(task.cancelled() for task in tasks)


async def test_what_has_ended_by_itself_keeps_its_error() -> None:
    task = asyncio.create_task(failing())
    await asyncio.wait({task})
    await end(task)
    assert isinstance(task.exception(), ValueError)
