"""Messages between the stream and the writer, bounded in bytes: a full inbox is what holds the broker back."""

import asyncio
from collections import deque

from azaion_daemon.health import waiting_for
from azaion_daemon.stream.events import RawMessage


class Inbox:
    """A queue with one producer and one consumer."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._messages: deque[RawMessage] = deque()
        self._changed = asyncio.Event()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    async def put(self, message: RawMessage) -> None:
        """Add a message; waits while the inbox is full. A message larger than the whole inbox is let into an empty one."""
        while self._messages and self.bytes + len(message.data) > self._max_bytes:
            with waiting_for("room in the inbox, which the disk empties"):
                await self._change()
        self._messages.append(message)
        self.bytes += len(message.data)
        self._changed.set()

    async def wait(self) -> None:
        """Wait until there is a message."""
        with waiting_for("messages"):
            while not self._messages:
                await self._change()

    async def batch(self, *, max_messages: int, max_bytes: int, delay_s: float) -> list[RawMessage]:
        """Take the next messages: at least one, until a limit or, after the first, `delay_s` is reached."""
        await self.wait()
        batch: list[RawMessage] = []
        taken = 0
        try:
            async with asyncio.timeout(delay_s):
                while len(batch) < max_messages:
                    while not self._messages:
                        await self._change()
                    size = len(self._messages[0].data)
                    if batch and taken + size > max_bytes:
                        break
                    batch.append(self._messages.popleft())
                    taken += size
                    self.bytes -= size
                    self._changed.set()
        except TimeoutError:
            pass  # nothing more came in time
        return batch

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
