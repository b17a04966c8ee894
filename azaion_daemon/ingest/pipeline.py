"""The order of things in ingest: take a batch, stage it while the one before is committed, commit, place, sync.

One task stages, one writes, with one batch between them, and one syncs. What waits for space waits in place, so that nothing is taken from
the stream meanwhile; any other fault of the disk ends the daemon, which starts again from the ledger.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from azaion_daemon.errors import DiskFullError, OperatorError
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.staging import StagedMessage, Stager
from azaion_daemon.ingest.writer import Plan, Writer
from azaion_daemon.logs import get_logger
from azaion_daemon.settings import IngestSettings
from azaion_daemon.store.durable import remove_temporaries
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.store.records import Annotation
from azaion_daemon.stream.events import AnnotationEvent, RawMessage, Role

log = get_logger(__name__)

T = TypeVar("T")

_SPACE_POLL_S = 2.0


@dataclass
class IngestState:
    """What is known of ingest, for the status and the trigger."""

    counts: dict[Home, int]
    position: int | None = None
    messages: int = 0
    quarantined: int = 0
    last_change: float | None = None
    """When a batch last changed annotations, in seconds since the epoch."""
    paused: str | None = None
    """Why no messages are taken."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after every batch that changed annotations."""


class Pipeline:
    """Turns the inbox's messages into ledger and tree, in order, each once."""

    def __init__(
        self,
        stream: str,
        settings: IngestSettings,
        layout: Layout,
        ledger: LedgerThread,
        inbox: Inbox,
        *,
        known_classes: AbstractSet[int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._ledger = ledger
        self._inbox = inbox
        self._known_classes = known_classes
        self._clock = clock
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="ingest")
        self._quarantine = Quarantine(layout.quarantine)
        self._stager = Stager(stream, layout.incoming, self._quarantine, clock=clock)
        self._writer = Writer(stream, ledger.ledger, layout, self._pool, clock=clock)
        self._staged: asyncio.Queue[list[StagedMessage]] = asyncio.Queue(1)
        self._writing = asyncio.Lock()
        self._syncing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._placed_to: int | None = None
        """The position up to which the tree matches the ledger, but maybe not durably."""
        self._unknown_roles: set[int] = set()
        self.state = IngestState(dict.fromkeys(Home, 0))

    async def recover(self) -> None:
        """Finish what a crash has left in the tree, and learn the counts. To be awaited before `run`."""
        layout = self._layout
        await asyncio.to_thread(remove_temporaries, layout.state, layout.quarantine, layout.releases, layout.models)
        placed, lost = await self._ledger(self._writer.recover)
        if placed:
            log.info("ingest.recovered", annotations=placed)
        self._report_lost(lost)
        self.state.counts = await self._ledger(self._ledger.ledger.counts)
        self.state.quarantined = await asyncio.to_thread(self._quarantine.count)

    async def run(self) -> None:
        """Work until `stop`, then finish the batch in hand and leave a clean tree."""
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._take(), name="ingest-take"), tasks.create_task(self._keep_synced(), name="ingest-sync")]
            await self._write()
            for task in beside:
                task.cancel()
        await self._sync()

    def stop(self) -> None:
        """Ask `run` to end after the batch in hand. What waits in the inbox stays in the stream."""
        self._stopping.set()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Hold writing while the context lasts: ledger and tree agree and do not change."""
        async with self._writing:
            yield

    async def replay(self, position: int, *, as_new: bool) -> dict[str, str]:
        """Apply a quarantined message after all, and let it go; the names that it was refused for, with the reasons.

        A message that was refused for every name stays in the quarantine.

        Raises:
            OperatorError: There is none of that position, or it still cannot be applied.
        """
        found = await asyncio.to_thread(self._quarantine.get, position)
        if found is None:
            raise OperatorError(f"there is no message {position} in the quarantine")
        message = RawMessage(found[0].offset, found[1], found[0].base)
        staged = await self._with_space(lambda: asyncio.to_thread(self._stager.stage_again, message, self._settings))
        async with self._syncing, self._writing:  # a sync under way began before this, and must not speak for it
            replayed = await self._with_space(lambda: self._ledger(self._writer.replay, staged, self._known_classes, as_new=as_new))
            rows = list(replayed.rows.values())
            await self._place(rows, [] if staged.image is None else [staged.image.file])
            self.state.counts = await self._ledger(self._ledger.ledger.counts)
            if rows:
                self._placed_to = max(row.position for row in rows)
                self.state.changed.set()
        if rows or not replayed.refused:
            await asyncio.to_thread(self._quarantine.remove, position)
            self.state.quarantined -= 1
            log.info("ingest.replayed", position=position, annotations=len(rows), refused=len(replayed.refused))
        return dict(replayed.refused)

    def close(self) -> None:
        """Give threads and descriptors back."""
        self._pool.shutdown()
        self._stager.close()
        self._writer.close()

    async def _take(self) -> None:
        while True:
            settings = self._settings
            batch = await self._inbox.batch(
                max_messages=settings.batch_messages, max_bytes=settings.batch_bytes, delay_s=settings.batch_delay_s
            )
            await self._wait_for_space(settings.min_free_disk)
            await self._staged.put(await self._with_space(lambda batch=batch: self._stage(batch)))  # type: ignore[misc]

    async def _stage(self, batch: Sequence[RawMessage]) -> list[StagedMessage]:
        loop = asyncio.get_running_loop()
        share = -(-len(batch) // self._settings.threads)
        parts = [batch[start : start + share] for start in range(0, len(batch), share)]
        staged = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._stager.stage, part, self._settings) for part in parts), return_exceptions=True
        )
        for part in staged:
            if isinstance(part, BaseException):
                raise part
        messages = [message for part in staged if isinstance(part, list) for message in part]
        if any(message.image is not None for message in messages):
            await loop.run_in_executor(self._pool, self._stager.sync)
        return messages

    async def _write(self) -> None:
        while not self._stopping.is_set():
            batch = await self._next_staged()
            if batch is not None:
                async with self._writing:
                    await self._apply(batch)

    async def _keep_synced(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sync_interval_s)
            await self._sync()

    async def _sync(self) -> None:
        """Make what is placed durable, and clear its marks. Writing goes on meanwhile: what it places is newer."""
        async with self._syncing:
            placed_to = self._placed_to
            if placed_to is None:
                return
            await asyncio.to_thread(self._writer.sync)
            await self._with_space(lambda: self._ledger(self._ledger.ledger.clear_dirty, placed_to))
            if self._placed_to == placed_to:
                self._placed_to = None

    async def _next_staged(self) -> list[StagedMessage] | None:
        """The next batch; None when it is time to stop."""
        get = asyncio.ensure_future(self._staged.get())
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({get, stop}, return_when=asyncio.FIRST_COMPLETED)
            return get.result() if get.done() else None
        finally:
            get.cancel()
            stop.cancel()

    async def _apply(self, batch: list[StagedMessage]) -> None:
        started = time.monotonic()
        plan: Plan = await self._with_space(lambda: self._ledger(self._writer.commit, batch, self._known_classes))
        rows = list(plan.rows.values())
        await self._place(rows, plan.staged)
        self._placed_to = plan.position.position
        self._report(batch, plan, time.monotonic() - started)

    async def _place(self, rows: list[Annotation], staged: list[str]) -> None:
        lost = await self._with_space(lambda: asyncio.to_thread(self._writer.place, rows))
        await asyncio.to_thread(self._writer.finish, staged)
        if lost:
            await self._with_space(lambda: self._ledger(self._ledger.ledger.flag_image_lost, lost))
            self._report_lost(lost)

    def _report(self, batch: list[StagedMessage], plan: Plan, seconds: float) -> None:
        state = self.state
        state.position = plan.position.position
        state.messages += len(batch)
        for home, difference in plan.moved.items():
            state.counts[home] += difference
        quarantined = [message.decoded for message in batch if message.decoded.rejection is not None]
        for decoded in quarantined:
            log.warning("ingest.message_quarantined", position=decoded.position, why=decoded.rejection)
        if plan.surprises:
            log.warning("ingest.rejected_transition", names=plan.surprises[:20], count=len(plan.surprises), position=plan.position.position)
        self._report_roles(batch)
        state.quarantined += len(quarantined)
        if plan.rows:
            state.last_change = self._clock()
            state.changed.set()
        log.info(
            "ingest.batch",
            messages=len(batch),
            bytes=sum(message.bytes for message in batch),
            annotations=len(plan.rows),
            quarantined=len(quarantined),
            position=plan.position.position,
            offset=plan.position.offset,
            seconds=round(seconds, 4),
        )

    def _report_roles(self, batch: list[StagedMessage]) -> None:
        for message in batch:
            event = message.decoded.event
            known = not isinstance(event, AnnotationEvent) or event.role in set(Role)
            if isinstance(event, AnnotationEvent) and not known and event.role not in self._unknown_roles:
                self._unknown_roles.add(event.role)
                log.warning("ingest.unknown_role", role=event.role, position=event.position)

    def _report_lost(self, names: list[str]) -> None:
        for name in names:
            log.error("ingest.image_lost", name=name)

    async def _wait_for_space(self, least_bytes: int) -> None:
        def full() -> str | None:
            disk = os.statvfs(self._layout.root)
            free = disk.f_bavail * disk.f_frsize
            return f"{free} bytes are free, less than the {least_bytes} of ingest.min_free_disk" if free < least_bytes else None

        while why := await asyncio.to_thread(full):
            self._pause(why)
            await asyncio.sleep(_SPACE_POLL_S)
        self._go_on()

    async def _with_space(self, step: Callable[[], Awaitable[T]]) -> T:
        """Repeat a step, each of which may be repeated, until the disk has room for it."""
        while True:
            try:
                result = await step()
            except DiskFullError as error:
                if self._stopping.is_set():
                    raise  # nothing is lost: what is not in the ledger is in the stream
                self._pause(str(error))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _SPACE_POLL_S)
            else:
                self._go_on()
                return result

    def _pause(self, why: str) -> None:
        if self.state.paused is None:
            log.warning("ingest.paused", why=why)
        self.state.paused = why

    def _go_on(self) -> None:
        if self.state.paused is not None:
            self.state.paused = None
            log.info("ingest.resumed")
