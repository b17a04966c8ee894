"""The supervised consumer: one owner of the connection, which on any doubt drops it and makes a new one where the last message was taken.

Each attempt has connections of its own, for ever, with capped exponential backoff and full jitter; an attempt is over, its tasks awaited
and its sockets aborted, before the next one begins. The first attempt starts at the ledger's position, later ones at the message that was
handed on last, whether or not it is committed yet: what was handed on is in this process or, if that dies, taken again from the ledger's
position. Either way the message there must come again, and is recognised by its digest.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Never

from rstream import OffsetType

from azaion_daemon.errors import ConfigError, OutsideError, StreamMismatchError
from azaion_daemon.health import strand, waiting_for
from azaion_daemon.logs import get_logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.sections import StreamSettings
from azaion_daemon.store.records import Position
from azaion_daemon.stream.backoff import LONGEST_CEILING_S, pause_s
from azaion_daemon.stream.cancelling import end
from azaion_daemon.stream.events import RawMessage
from azaion_daemon.stream.health import StreamHealth
from azaion_daemon.stream.probe import newest_offset, stream_ends
from azaion_daemon.stream.resume import (
    After,
    At,
    Begin,
    Found,
    Mismatch,
    Resume,
    Start,
    StreamEnds,
    Unverified,
    base_of,
    contradiction,
    first_start,
    judge,
    start_after_mismatch,
    subscribed_offset,
)
from azaion_daemon.stream.session import Session, is_refusal
from azaion_daemon.stream.subscription import PositionNotFoundError, Subscription
from azaion_daemon.stream.wire import message_digest

log = get_logger(__name__)

_LAGGING_S = 10.0
_IDLE_S = 120.0
_BACKLOG_PERIOD_S = 30.0
_IDLE_PERIOD_S = 300.0
_LOOK_S = 1.0
_WITHOUT_RECONNECT = frozenset({"start_from", "verify_timeout_s", "on_mismatch"})


class StreamConsumer:
    """Delivers every message after the ledger's position, in order, each once, for as long as it runs."""

    def __init__(
        self,
        settings: StreamSettings,
        resume: Callable[[], Awaitable[Resume]],
        deliver: Callable[[RawMessage], Awaitable[None]],
        *,
        chance: random.Random | None = None,
    ) -> None:
        """`resume` gives the ledger's positions; `deliver` takes a message and may block: that is the backpressure."""
        self._settings = settings
        self._resume = resume
        self._deliver = deliver
        self._chance = chance or random.Random()  # noqa: S311 - no secret
        self._repeats = Repeats()
        self._said = True
        """Whether the last failure was logged."""
        self._reconfigured = asyncio.Event()
        self._running = False
        self._start: Start = Begin(OffsetType.FIRST)
        self._base: int | None = None
        self._newest: RawMessage | None = None
        """The message that was handed on last."""
        self._last_position: int | None = None
        self._connected_at: float | None = None
        self._unverified_said = False
        self._start_checked = False
        self.health = StreamHealth()

    def reconfigure(self, settings: StreamSettings) -> None:
        """Go on with other settings; with one reconnect, at once, if the connection depends on what has changed."""
        changed = {name for name in StreamSettings.model_fields if getattr(settings, name) != getattr(self._settings, name)}
        self._settings = settings
        if changed - _WITHOUT_RECONNECT:
            self._reconfigured.set()

    async def run(self) -> Never:
        """Stay connected until cancelled.

        Raises:
            StreamMismatchError: The stream is not the one that the ledger's position belongs to.
        """
        assert not self._running, "two consumers would hand the same messages on"
        self._running = True
        await self._find_start()
        failures = 0
        while True:
            self._reconfigured.clear()
            try:
                await self._attempt()
                failures = 0
            except StreamMismatchError:
                raise
            except (OutsideError, ConfigError) as error:
                failures = 1 if self._was_steady() else failures + 1
                self.health.failures += 1
                self.health.refused = isinstance(error, OutsideError) and is_refusal(error)
                await self._pause(str(error), pause_s(failures, self._chance))
            finally:
                self.health.connected = False

    async def _find_start(self) -> None:
        resume = (await self._resume()).beyond_other_streams()
        self._last_position = resume.last_position
        self._start = first_start(resume, self._settings)
        if resume.position is not None:
            self._base = resume.position.base
            self.health.offset = resume.position.offset

    def _was_steady(self) -> bool:
        steady = self._connected_at is not None and time.monotonic() - self._connected_at > LONGEST_CEILING_S
        if steady:
            self._repeats.clear()
        return steady

    async def _pause(self, why: str, pause: float) -> None:
        self.health.connected, self.health.why = False, why
        seen = self._repeats.count(why)
        self._said = seen is not None
        if seen is not None:
            log.warning("stream.disconnected", why=why, retry_in_s=round(pause, 1), repeated=seen.times, for_s=seen.for_s)
        with suppress(TimeoutError), waiting_for(f"the broker: {why}"):
            async with asyncio.timeout(pause):
                await self._reconfigured.wait()

    async def _attempt(self) -> None:
        """Read until the connection fails; returns when it is to be made again at once, since the settings or the start have changed."""
        self.health.attempts += 1
        self._connected_at = None
        if self._said:
            log.info("stream.connecting", host=self._settings.host, port=self._settings.port, attempt=self.health.attempts)
        reading = asyncio.create_task(self._attempt_to_read(), name="stream-attempt")
        changed = asyncio.create_task(self._reconfigured.wait())
        try:
            with waiting_for("the end of the connection"):  # what reads it is watched by itself
                await asyncio.wait({reading, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(reading, changed)  # one owner: an attempt is over before the next one begins
        if not reading.cancelled():
            reading.result()

    async def _attempt_to_read(self) -> None:
        with strand("connection"):
            await self._read()

    async def _read(self) -> None:
        start = await self._next_start()
        backlog = asyncio.create_task(self._keep_watching_backlog(), name="stream-backlog")
        try:
            async with Session(self._settings) as session:
                subscription = Subscription(self._settings, start, self._take, session)
                client, chunks = await subscription.open()
                self._note_connection(start)
                await subscription.read(client, chunks)
        except PositionNotFoundError as error:
            assert isinstance(start, At)
            await self._judge(start.position, error.found)
        finally:
            await end(backlog)

    def _note_connection(self, start: Start) -> None:
        health = self.health
        if self._said or health.attempts > 1:
            offset_type, offset = subscribed_offset(start)
            log.info("stream.connected", stream=self._settings.name, offset=offset, start=offset_type.name)
        if health.ever_connected:
            health.reconnects += 1
        health.connected, health.ever_connected, health.why, health.attempts, health.refused = True, True, None, 0, False
        self._connected_at = time.monotonic()

    async def _take(self, offset: int, data: bytes, written_at: float) -> None:
        if self._base is None:
            self._base = base_of(self._last_position, offset)
            log.info("stream.begun", stream=self._settings.name, offset=offset, base=self._base)
        message = RawMessage(offset, data, self._base)
        await self._deliver(message)
        self._newest = message
        health = self.health
        health.offset, health.written_at, health.taken_at, health.last_message = offset, written_at, time.time(), time.monotonic()

    async def _next_start(self) -> Start:
        if self._newest is not None:
            digest = await asyncio.to_thread(message_digest, self._newest)
            return At(Position(self._newest.offset, digest, self._newest.base))
        match self._start:
            case Unverified(position):
                await self._compare_with_ends(position)
            case Begin(OffsetType.NEXT):  # fixed once: what is published while there is no connection must not be skipped
                newest = await newest_offset(self._settings)
                self._start = Begin(OffsetType.FIRST) if newest is None else Begin(OffsetType.OFFSET, newest + 1)
            case Begin(OffsetType.OFFSET, int(offset)) if not self._start_checked:
                await self._warn_if_outside(offset)
        return self._start

    async def _warn_if_outside(self, offset: int) -> None:
        """The broker takes the first offset that it has for one that is too old, and waits for one that is not there yet."""
        ends = await stream_ends(self._settings)
        self._start_checked = True
        first, last = (0, -1) if ends is None else (ends.first, ends.last)
        if not first <= offset <= last + 1:
            log.warning("stream.start_outside", stream=self._settings.name, start_from=offset, first=first, last=last)

    async def _compare_with_ends(self, position: Position) -> None:
        ends = await stream_ends(self._settings)
        if ends is None:
            raise OutsideError(self._nothing_comes(ends))
        if (mismatch := contradiction(position, ends)) is not None:
            self._settle(mismatch, position, None, ends)
        elif not self._unverified_said:
            self._unverified_said = True
            log.info("stream.position_unverified", position=position.position, offset=position.offset, first=ends.first, last=ends.last)

    async def _judge(self, position: Position, found: Found) -> None:
        """Decide what it means that another message, or none, came instead of the one at `position`."""
        self.health.connected = False
        ends = await stream_ends(self._settings)
        mismatch = judge(position, found, ends)
        if mismatch is None:
            raise OutsideError(self._nothing_comes(ends))
        self._settle(mismatch, position, found, ends)

    def _nothing_comes(self, ends: StreamEnds | None) -> str:
        return (
            f"the message that was consumed last does not come from {self._settings.host}:{self._settings.port}: the stream "
            f"{self._settings.name} "
            + ("seems to be empty; was it made anew?" if ends is None else f"ends at offset {ends.last}, but does not deliver it")
        )

    def _settle(self, mismatch: Mismatch, position: Position, found: Found | None, ends: StreamEnds | None) -> None:
        """Stop, or find another start, as the settings say.

        Raises:
            StreamMismatchError: They say `stop`.
        """
        stream = self._settings.name
        log.error(
            "stream.mismatch",
            stream=stream,
            kind=mismatch.kind,
            why=mismatch.described,
            position=position.position,
            offset=position.offset,
            base=position.base,
            digest=position.digest.hex(),
            found=None if found is None else found.offset,
            first=None if ends is None else ends.first,
            last=None if ends is None else ends.last,
            on_mismatch=self._settings.on_mismatch,
        )
        if self._settings.on_mismatch == "stop":
            raise StreamMismatchError(_advice(stream, mismatch, position))
        if self._newest is not None:
            self._last_position = self._newest.position
            self._newest = None
        self._start = start_after_mismatch(mismatch, position)
        if isinstance(self._start, After):
            log.warning("stream.gap_accepted", stream=stream, missing=mismatch.missing, position=position.position)
        else:
            self._base = None
            self.health.offset = None
            log.warning("stream.begun_anew", stream=stream, position=position.position)

    async def _keep_watching_backlog(self) -> Never:
        with strand("backlog"):
            await self._watch_backlog()

    async def _watch_backlog(self) -> Never:
        """Ask for the stream's end while the newest message was old when it came; and, now and then, when none has come for long.

        Then it is nobody's turn to speak, or a broker that has messages does not deliver them.
        """
        health = self.health
        while True:
            with waiting_for("the next look at the stream's end"):
                await asyncio.sleep(_LOOK_S)
            if not health.connected or health.lag_s is None:
                continue
            lagging = health.lag_s > _LAGGING_S and not health.caught_up
            idle = health.last_message is not None and time.monotonic() - health.last_message > _IDLE_S
            if lagging or idle:
                with suppress(OutsideError, ConfigError):
                    asked_at = time.time()
                    health.newest_offset, health.newest_asked_at = await newest_offset(self._settings), asked_at
                with waiting_for("the next look at the stream's end"):
                    await asyncio.sleep(_BACKLOG_PERIOD_S if lagging else _IDLE_PERIOD_S)


def _advice(stream: str, mismatch: Mismatch, position: Position) -> str:
    what, consequence = {
        "truncated": ("Its retention has removed messages", "goes on with the first message that there is"),
        "anew": ("It was deleted and made anew", "goes on with the first message of the new stream"),
    }[mismatch.kind]
    return (
        f"the stream {stream} is not the one that was consumed up to offset {position.offset}: {mismatch.described}. {what}, as far as "
        "can be seen. Nothing was taken from it. Do one of: restore the stream; set stream.on_mismatch: continue (then the daemon "
        f"{consequence}; what is in the tree stays); make a new root for it with azaion-daemon init."
    )
