"""Ending tasks that the library runs in.

rstream (1.1.1) swallows a cancellation that meets it while it ends a task of its own, or while it connects: the task goes on as if nothing
had been asked of it, and whoever waits for its end waits for ever.
"""

import asyncio
from typing import Any

_PATIENCE_S = 0.2


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks, again and again, until all of them have ended. Errors stay in them, and are not complained about."""
    while unfinished := [task for task in tasks if not task.done()]:
        for task in unfinished:
            task.cancel()
        await asyncio.wait(unfinished, timeout=_PATIENCE_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()
