"""A StreamConsumer that runs in the test's own loop, and a ledger that is a value."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from typing_extensions import override

from azaion_daemon.sandbox.annotations import Message
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenario import OPERATOR
from azaion_daemon.sections import StreamSettings
from azaion_daemon.store.records import Position
from azaion_daemon.stream.consumer import StreamConsumer
from azaion_daemon.stream.events import RawMessage
from azaion_daemon.stream.resume import Resume
from azaion_daemon.stream.wire import message_digest

LIMIT_S = 30.0


def messages(count: int, name: str = "name") -> list[Message]:
    return [OPERATOR.deleted([f"{name}-{number}"]) for number in range(count)]


def digests(sent: list[Message]) -> list[bytes]:
    return [hashlib.sha256(message.body).digest() for message in sent]


def stream_settings(broker: Broker, stream: str, **changes: Any) -> StreamSettings:
    """Those of a daemon that reads this stream; impatient."""
    values = {
        "host": broker.host,
        "port": broker.port,
        "user": broker.consumer.user,
        "password": broker.consumer.password,
        "name": stream,
        "heartbeat_s": 1,
        "verify_timeout_s": 1.5,
    }
    return StreamSettings.model_validate({**values, **changes})


class Impatient(random.Random):
    """Makes every pause a twentieth of the longest that it might be."""

    @override
    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 20


class Consuming:
    """A consumer at work while the context lasts, and what it has delivered."""

    def __init__(
        self,
        settings: StreamSettings,
        position: Position | None = None,
        *,
        last_position: int | None = None,
        deliver: Callable[[RawMessage], Awaitable[None]] | None = None,
    ) -> None:
        if last_position is None and position is not None:
            last_position = position.position
        self._resume = Resume(position, last_position)
        self._also = deliver
        self.taken: list[RawMessage] = []
        self.consumer = StreamConsumer(settings, self._ledger, self._take, chance=Impatient())
        self.task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.consumer.run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _ledger(self) -> Resume:
        return self._resume

    async def _take(self, message: RawMessage) -> None:
        if self._also is not None:
            await self._also(message)
        self.taken.append(message)

    @property
    def digests(self) -> list[bytes]:
        return [message_digest(message) for message in self.taken]

    @property
    def positions(self) -> list[int]:
        return [message.position for message in self.taken]

    def position(self) -> Position:
        """What a ledger would know once everything that was delivered is committed."""
        newest = self.taken[-1]
        return Position(newest.offset, message_digest(newest), newest.base)

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: It did not come about in time.
        """
        try:
            async with asyncio.timeout(LIMIT_S):
                while not reached():
                    if self.task.done():
                        self.task.result()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}; {len(self.taken)} taken, {self.consumer.health}") from None

    async def until_taken(self, count: int) -> None:
        await self.until(lambda: len(self.taken) >= count, f"{count} messages")

    async def until_connected(self) -> None:
        await self.until(lambda: self.consumer.health.connected, "a connection")

    async def until_why(self, part: str) -> None:
        await self.until(lambda: part in (self.consumer.health.why or ""), f"the reason {part!r}")
