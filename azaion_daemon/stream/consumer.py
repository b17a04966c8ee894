"""The supervised consumer: one owner of the connection, which on any doubt drops it and makes a new one at the ledger's position.

The library underneath (rstream 1.1.1) is used for its protocol only, since its own supervision is not enough for a daemon:

- An exception in a callback or decoder makes it skip the rest of the chunk for good. So it decodes nothing, and the callback only hands
  bytes on and cannot raise.
- A frozen broker, a half-open connection or a frame with a bad checksum leave it "alive" and silent. So the time of the last frame and the
  listener task are watched, and on a doubt the sockets are aborted before anything is awaited.
- Its recovery is off by default, gives up silently when on, and forgets the credit; a subscription that failed once is believed to stand.
  So each attempt has a fresh Consumer, for ever, with capped exponential backoff and full jitter.
- It subscribes at the beginning when it lost an offset. So the offset is always explicit and comes from the ledger.

The daemon resumes *at* its position: the first message must be the one that the ledger knows, by its digest. An offset alone proves
nothing, since the broker silently moves it to what it has: a stream that was deleted and made anew, or truncated, would go unnoticed.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Never

import rstream.connection
from rstream import Consumer, ConsumerOffsetSpecification, MessageContext, OffsetType, OnClosedErrorInfo
from rstream.exceptions import AccessRefused, AuthenticationFailure, StreamDoesNotExist, VirtualHostAccessFailure

from azaion_daemon.errors import OutsideError, StreamMismatchError
from azaion_daemon.logs import get_logger
from azaion_daemon.settings import StreamSettings
from azaion_daemon.store.records import Position
from azaion_daemon.stream.events import RawMessage
from azaion_daemon.stream.wire import message_digest

log = get_logger(__name__)

rstream.connection.CHUNK_SIZE = 1 << 20
"""The bytes that it reads at a time: its 256 make big messages three to five times slower."""

_SUBSCRIBE_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 5.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_SILENT_HEARTBEATS = 2.5
_REST_OF_CHUNK_S = 0.5


@dataclass
class StreamHealth:
    """What is known of the connection, for the status."""

    connected: bool = False
    reconnects: int = 0
    last_message: float | None = None
    """Monotonic time of the newest message, in seconds."""
    received: int | None = None
    """The newest offset that was taken."""
    why: str | None = None
    """Why there is no connection."""


class StreamConsumer:
    """Delivers every message after the ledger's position, in order, each once, for as long as it runs."""

    def __init__(
        self,
        settings: StreamSettings,
        resume: Callable[[], Awaitable[Position | None]],
        deliver: Callable[[RawMessage], Awaitable[None]],
    ) -> None:
        """`resume` gives the ledger's position; `deliver` takes a message and may block: that is the backpressure."""
        self._settings = settings
        self._resume = resume
        self._deliver = deliver
        self.health = StreamHealth()

    async def run(self) -> Never:
        """Stay connected until cancelled.

        Raises:
            StreamMismatchError: The stream is not the one that the ledger's position belongs to.
        """
        failures = 0
        while True:
            connection = _Connection(self._settings, self._deliver, self.health)
            started = time.monotonic()
            log.info("stream.connecting", host=self._settings.host, port=self._settings.port, attempt=failures + 1)
            try:
                await connection.run(await self._resume())
            except OutsideError as error:
                if isinstance(error, StreamMismatchError):
                    raise
                self.health.why = str(error)
            finally:
                self.health.connected = False
            failures = 1 if time.monotonic() - started > _LONGEST_PAUSE_S else failures + 1
            pause = random.uniform(_FIRST_PAUSE_S / 2, min(_FIRST_PAUSE_S * 2**failures, _LONGEST_PAUSE_S))  # noqa: S311
            log.warning("stream.disconnected", why=self.health.why, retry_in_s=round(pause, 1))
            self.health.reconnects += 1
            await asyncio.sleep(pause)


class _Connection:
    """One attempt: subscribe, deliver, watch; never used again."""

    def __init__(self, settings: StreamSettings, deliver: Callable[[RawMessage], Awaitable[None]], health: StreamHealth) -> None:
        self._settings = settings
        self._deliver = deliver
        self._health = health
        self._position: Position | None = None
        self._verified = asyncio.Event()
        self._ended: asyncio.Future[Never] = asyncio.get_running_loop().create_future()
        self._ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # the first reason may be known already

    async def run(self, position: Position | None) -> Never:
        """Deliver what comes after `position` until the connection fails.

        Raises:
            OutsideError: It failed; the message says why in a sentence for the operator.
            StreamMismatchError: The message at `position` is another one.
        """
        self._position = position
        if position is None:
            self._verified.set()
        consumer = _new_consumer(self._settings, self._on_closed)
        try:
            specification = self._specification()
            async with asyncio.timeout(_SUBSCRIBE_TIMEOUT_S):
                await consumer.subscribe(
                    self._settings.name,
                    self._on_message,
                    decoder=None,
                    offset_specification=specification,
                    initial_credit=self._settings.initial_credit,
                )
            self._health.connected, self._health.why = True, None
            log.info("stream.connected", stream=self._settings.name, offset=specification.offset, start=specification.offset_type.name)
            await self._watch(consumer)
        except (OutsideError, asyncio.CancelledError):
            raise
        except Exception as error:  # the library raises anything, from KeyError to its own families
            raise OutsideError(self._explain(error)) from error
        finally:
            self._ended.cancel()
            await _close(consumer)

    def _specification(self) -> ConsumerOffsetSpecification:
        if self._position is not None:
            return ConsumerOffsetSpecification(OffsetType.OFFSET, self._position.offset)
        if self._health.received is not None:  # the connection broke before the first batch was committed
            return ConsumerOffsetSpecification(OffsetType.OFFSET, self._health.received + 1)
        match self._settings.start_from:
            case "beginning":
                return ConsumerOffsetSpecification(OffsetType.FIRST)
            case "end":
                return ConsumerOffsetSpecification(OffsetType.NEXT)
            case int(offset):
                return ConsumerOffsetSpecification(OffsetType.OFFSET, offset)
            case datetime() as moment:
                return ConsumerOffsetSpecification(OffsetType.TIMESTAMP, int(moment.timestamp() * 1000))

    async def _on_message(self, data: bytes, context: MessageContext) -> None:
        """Runs inside the library, which would swallow an exception together with the rest of the chunk."""
        try:
            if self._ended.done():
                return
            message = RawMessage(context.offset, data)
            if not self._verified.is_set():
                self._verify(message)
                self._verified.set()
            received = self._health.received
            if received is None:
                received = -1 if self._position is None else self._position.offset
            if message.offset > received:
                await self._deliver(message)
                self._health.received = message.offset
                self._health.last_message = time.monotonic()
        except Exception as error:  # noqa: BLE001 - it is raised where this connection is awaited
            self._fail(error)

    def _verify(self, message: RawMessage) -> None:
        position = self._position
        if position is None or (message.offset == position.offset and message_digest(message) == position.digest):
            return
        found = "another message" if message.offset == position.offset else f"offset {message.offset} instead"
        raise self._mismatch(f"it has {found}")

    def _mismatch(self, found: str) -> StreamMismatchError:
        offset = None if self._position is None else self._position.offset
        log.error("stream.mismatch", stream=self._settings.name, position=offset, found=found)
        return StreamMismatchError(
            f"the stream {self._settings.name} is not the one that was consumed up to offset {offset}: {found}. It was deleted and made "
            "anew, or its retention has removed messages that were never consumed. Nothing was taken from it. Restore the stream, or make "
            "a new root for it with azaion-daemon init."
        )

    def _on_closed(self, info: OnClosedErrorInfo) -> None:
        self._fail(OutsideError(f"the connection to {self._where()} was closed: {info.reason}"))

    def _fail(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    async def _watch(self, consumer: Consumer) -> Never:
        """Wait until the connection ends by itself or is found dead."""
        started = time.monotonic()
        client = consumer._clients[self._settings.name]  # noqa: SLF001 - nothing public tells whether it lives
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._ended), 1.0)
            silent_s = time.monotonic() - client._last_heartbeat  # noqa: SLF001
            if silent_s > _SILENT_HEARTBEATS * self._settings.heartbeat_s:
                raise OutsideError(f"{self._where()} has been silent for {silent_s:.0f} s: it is frozen or cut off")
            listener = client._tasks.get("listener")  # noqa: SLF001
            if listener is None or listener.done():
                raise OutsideError(f"the connection to {self._where()} sent something that cannot be read")
            if not self._verified.is_set() and time.monotonic() - started > self._settings.verify_timeout_s:
                newest = await _newest_offset(self._settings)
                if newest is not None and self._position is not None and newest < self._position.offset:
                    raise self._mismatch(f"it ends at offset {newest}")
                raise OutsideError(
                    f"the message that was consumed last does not come from {self._where()}: the stream {self._settings.name} "
                    + ("seems to be empty; was it made anew?" if newest is None else f"has offset {newest}, but does not deliver it")
                )

    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"

    def _explain(self, error: Exception) -> str:
        where, stream = self._where(), self._settings.name
        match error:
            case AuthenticationFailure():
                return f"{where} refuses the user {self._settings.user} or its password (RABBITMQ_USER, RABBITMQ_PASSWORD)"
            case StreamDoesNotExist():
                return f"the stream {stream} does not exist at {where}; it is waited for (RABBITMQ_QUEUE_NAME)"
            case AccessRefused():
                return f"{where} does not let the user {self._settings.user} read the stream {stream}"
            case VirtualHostAccessFailure():
                return f"{where} does not let the user {self._settings.user} into the virtual host {self._settings.virtual_host}"
            case TimeoutError():
                return (
                    f"{where} does not answer: no stream listener there (a TLS port or the AMQP port?), wrong credentials, or the address "
                    "that it advertises cannot be reached from here"
                )
            case _:
                return f"no connection to {where}: {str(error) or type(error).__name__}"


def _new_consumer(settings: StreamSettings, on_closed: Callable[[OnClosedErrorInfo], None] | None = None) -> Consumer:
    return Consumer(
        settings.host,
        settings.port,
        username=settings.user,
        password=settings.password.get_secret_value(),
        vhost=settings.virtual_host,
        heartbeat=settings.heartbeat_s,
        max_subscribers_by_connection=1,
        on_close_handler=on_closed,
        connection_name="azaion-daemon",
    )


async def _newest_offset(settings: StreamSettings) -> int | None:
    """The offset of the stream's last message, seen by a second consumer; None when none comes: the stream is empty, or stuck."""
    offsets: list[int] = []
    came = asyncio.Event()

    def see(_: bytes, context: MessageContext) -> None:
        offsets.append(context.offset)
        came.set()

    consumer = _new_consumer(settings)
    try:
        async with asyncio.timeout(settings.verify_timeout_s):
            await consumer.subscribe(
                settings.name, see, decoder=None, offset_specification=ConsumerOffsetSpecification(OffsetType.LAST), initial_credit=1
            )
            await came.wait()
            await asyncio.sleep(_REST_OF_CHUNK_S)
    except TimeoutError:
        return None
    finally:
        await _close(consumer)
    return max(offsets)


async def _close(consumer: Consumer) -> None:
    """Let go of everything, without trusting a peer that may be dead: the sockets first."""
    clients: list[Any] = [client for pool in consumer._pool._clients.values() for client in pool]  # noqa: SLF001
    for client in clients:
        client._is_not_closed = False  # noqa: SLF001 - else it would wait for an answer
        writer = client._conn._writer if client._conn else None  # noqa: SLF001
        if writer is not None:
            writer.transport.abort()
    with suppress(Exception):  # it fails in any way on a connection that is gone; there is nothing left to lose
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await consumer.close()
    for client in clients:
        for task in client._tasks.values():  # noqa: SLF001
            task.cancel()
