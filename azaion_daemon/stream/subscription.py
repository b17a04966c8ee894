"""One subscription: chunks become messages that are handed on, until the connection ends by itself or is found dead.

- A chunk that cannot be taken apart ends the connection: its messages must not be skipped.
- The next chunk is asked for when the one before is handed on: what waits in memory is bounded.
- Large chunks are taken apart on a thread while the next one arrives: unpacking is half of what reading costs, and on the event loop it
  would be the limit of everything. The event loop gets its turn between the messages of a chunk, which may be thousands.
- The listener task, the time of the last frame and the growth of a frame that is arriving are watched: a frozen broker, a half-open
  connection or a frame with a bad checksum leave the client "alive" and silent.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, Never

from rstream import schema
from rstream.client import Client

from azaion_daemon.errors import OutsideError
from azaion_daemon.health import beat, strand, waiting_for
from azaion_daemon.sections import StreamSettings
from azaion_daemon.stream.cancelling import end
from azaion_daemon.stream.events import RawMessage
from azaion_daemon.stream.resume import After, At, Found, Start, Unverified, subscribed_offset
from azaion_daemon.stream.session import SUBSCRIPTION, Session, listener_of, queue_chunks, read_failure, received
from azaion_daemon.stream.wire import message_digest

_SILENT_HEARTBEATS = 2.5
_LOOK_S = 0.5
_LARGE_CHUNK_BYTES = 1 << 18
_LONGEST_TURN_S = 0.005


class _Unpacked(NamedTuple):
    """The messages of a chunk."""

    first: int
    written_at: float
    messages: list[bytes]


class PositionNotFoundError(Exception):
    """The message at the position did not come, but what `found` says."""

    def __init__(self, found: Found) -> None:
        super().__init__(found.described)
        self.found = found


class Subscription:
    """Of one connection; never used again."""

    def __init__(
        self,
        settings: StreamSettings,
        start: Start,
        take: Callable[[int, bytes, float], Awaitable[None]],
        session: Session,
    ) -> None:
        """`take` is given offset, message and the time (seconds since the epoch) at which the broker wrote it, and may block."""
        self._settings = settings
        self._start = start
        self._take = take
        self._session = session
        self._expected = start.position if isinstance(start, At) else None
        self._after = -1
        match start:
            case At(position) | Unverified(position):
                self._after = position.offset
            case After(offset):
                self._after = offset
        self._unpacked: asyncio.Queue[_Unpacked] = asyncio.Queue(1)
        self._ended: asyncio.Future[Never] = asyncio.get_running_loop().create_future()
        self._ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # another reason may have been found first

    async def open(self) -> tuple[Client, "asyncio.Queue[schema.Deliver]"]:
        """Subscribe: the connection, and the chunks that arrive on it.

        Raises:
            OutsideError, ConfigError: It cannot be done; the message says why.
        """
        client = await self._session.open()
        chunks = queue_chunks(client)
        client.add_handler(schema.MetadataUpdate, self._on_metadata_update)
        client.add_handler(schema.Close, self._on_close, name="azaion")
        offset_type, offset = subscribed_offset(self._start)
        try:
            await client.subscribe(
                self._settings.name,
                SUBSCRIPTION,
                schema.OffsetSpec.from_params(offset_type, offset),
                initial_credit=self._settings.initial_credit,
            )
        except Exception as error:  # as in Session.open
            raise OutsideError(self._session.explain(error)) from error
        return client, chunks

    async def read(self, client: Client, chunks: "asyncio.Queue[schema.Deliver]") -> Never:
        """Hand messages on until the connection ends.

        Raises:
            OutsideError: It ended, or was found dead.
            PositionNotFoundError: Another message came than the one that was expected, or none.
        """
        tasks = {
            asyncio.create_task(self._unpack(chunks), name="stream-unpack"),
            asyncio.create_task(self._read(client), name="stream-read"),
            asyncio.create_task(self._watch(client), name="stream-watch"),
        }
        try:
            with waiting_for("the end of the connection"):
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await next(iter(done))
        finally:
            self._ended.cancel()
            await end(*tasks)  # nothing is handed on any more when this is over
        raise AssertionError("neither ends without an error")

    async def _unpack(self, chunks: "asyncio.Queue[schema.Deliver]") -> Never:
        with strand("unpack"):
            while True:
                with waiting_for("chunks"):
                    chunk = await chunks.get()
                unpacked = await self._take_apart(chunk)
                del chunk
                with waiting_for("the chunk before to be handed on"):
                    await self._unpacked.put(unpacked)
                del unpacked

    async def _take_apart(self, chunk: schema.Deliver) -> _Unpacked:
        first = chunk.chunk_first_offset
        try:
            messages = await asyncio.to_thread(chunk.get_messages) if chunk.data_length > _LARGE_CHUNK_BYTES else chunk.get_messages()
        except Exception as error:  # of a decompressor, or for a compression that is not known
            raise OutsideError(
                f"the chunk at offset {first} of the stream {self._settings.name} cannot be taken apart ({error!r}): is it compressed in "
                "another way than gzip? Nothing after it is taken"
            ) from error
        return _Unpacked(first, chunk.timestamp / 1000, messages)

    async def _read(self, client: Client) -> Never:
        with strand("hand on"):
            while True:
                with waiting_for("messages"):
                    chunk = await self._unpacked.get()
                await self._hand_on(chunk)
                del chunk
                await client.credit(SUBSCRIPTION, 1)

    async def _hand_on(self, chunk: _Unpacked) -> None:
        first, written_at, messages = chunk
        del chunk
        turn_ends = time.monotonic() + _LONGEST_TURN_S
        for offset, data in enumerate(messages, first):
            if self._expected is not None:
                self._verify(offset, data)
            if offset > self._after:
                await self._take(offset, data, written_at)
                self._after = offset
            if time.monotonic() > turn_ends:
                beat()
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + _LONGEST_TURN_S

    def _verify(self, offset: int, data: bytes) -> None:
        """Compare the first message at or after the position; what stands before it in the chunk was not asked for."""
        position = self._expected
        if position is None or offset < position.offset:
            return
        if offset > position.offset:
            raise PositionNotFoundError(Found(offset, f"offset {offset} instead"))
        if message_digest(RawMessage(offset, data)) != position.digest:
            raise PositionNotFoundError(Found(offset, "another message there"))
        self._expected = None

    async def _watch(self, client: Client) -> Never:
        settings, listener, where = self._settings, listener_of(client), f"{self._settings.host}:{self._settings.port}"
        ends: set[asyncio.Future[Any]] = {listener, self._ended}
        arrived_bytes, alive_at, verify_from = 0, time.monotonic(), time.monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._ended.done():
                await self._ended
            if listener.done() or not client.is_connection_alive():
                raise OutsideError(self._why_it_ended(client))
            now = time.monotonic()
            if (size := len(received(client))) != arrived_bytes:  # a large chunk on a slow line takes longer than any heartbeat
                arrived_bytes, alive_at, verify_from = size, now, now
            silent_s = now - max(alive_at, client._last_heartbeat)  # noqa: SLF001
            if silent_s > _SILENT_HEARTBEATS * settings.heartbeat_s:
                raise OutsideError(f"{where} has been silent for {silent_s:.0f} s: it is frozen or cut off")
            if self._expected is not None and now - verify_from > settings.verify_timeout_s:
                raise PositionNotFoundError(Found(None, "nothing at it"))

    def _why_it_ended(self, client: Client) -> str:
        where = f"{self._settings.host}:{self._settings.port}"
        listener = listener_of(client)
        if listener.done() and not listener.cancelled() and (fault := listener.exception()) is not None:
            return f"{where} sent something that cannot be read: {fault.__cause__ or fault}"
        failure = read_failure(client)
        return f"the connection to {where} was closed" + (f": {failure}" if failure is not None else "")

    def _on_metadata_update(self, frame: schema.MetadataUpdate) -> None:
        if frame.metadata_info.stream == self._settings.name:
            self._end(OutsideError(f"the stream {self._settings.name} was deleted, or has moved to another node"))

    def _on_close(self, frame: schema.Close) -> None:
        self._end(OutsideError(f"{self._settings.host}:{self._settings.port} closes the connection: {frame.reason}"))

    def _end(self, error: OutsideError) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)
