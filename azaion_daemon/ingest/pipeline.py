"""The order of things in ingest: take a batch, stage it, make it durable, commit it, place it, sync now and then.

Each step has a task of its own with one batch between two of them, so a batch is staged while the one before is made durable and those
before that are committed and placed: decoding, the disk's syncs and SQLite's overlap. The steps stay in the order of the stream, and
after a commit the ledger alone says what has to be placed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from azaion_daemon.errors import DiskFullError, OperatorError, gravest
from azaion_daemon.health import holding, strand, waiting_for
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.space import Space
from azaion_daemon.ingest.staging import StagedMessage, Stager, in_portions
from azaion_daemon.ingest.state import IngestState, report_lost
from azaion_daemon.ingest.writer import Plan, Writer
from azaion_daemon.logs import get_logger
from azaion_daemon.sections import IngestSettings
from azaion_daemon.store.durable import remove_temporaries, storage
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.store.records import Annotation
from azaion_daemon.stream.events import RawMessage

log = get_logger(__name__)

_STILL = "the tree, which stands still for a dataset, a check or a repair"


@dataclass(frozen=True, slots=True)
class _Committed:
    """A batch that has happened and is not in the tree yet."""

    batch: list[StagedMessage]
    plan: Plan
    started: float


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
        self._stream = stream
        self._settings = settings
        self._layout = layout
        self._ledger = ledger
        self._inbox = inbox
        self._known_classes = known_classes
        self._staging = ThreadPoolExecutor(settings.threads, thread_name_prefix="stage")
        self._placing = ThreadPoolExecutor(1, thread_name_prefix="place")
        self._quarantine = Quarantine(layout.quarantine)
        self._stager = Stager(stream, layout.incoming, self._quarantine, clock=clock)
        self._writer = Writer(stream, ledger.ledger, layout, clock=clock)
        self._written: asyncio.Queue[list[StagedMessage]] = asyncio.Queue(1)
        self._staged: asyncio.Queue[list[StagedMessage]] = asyncio.Queue(1)
        self._committed: asyncio.Queue[_Committed] = asyncio.Queue(1)
        self._committing = asyncio.Lock()
        self._syncing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._reconfigured = asyncio.Event()
        self._placed_to: int | None = None
        """The position up to which the tree matches the ledger, but maybe not durably."""
        self._left_unplaced = False
        self.space = Space(layout.root)
        self.state = IngestState(dict.fromkeys(Home, 0))

    def reconfigure(self, settings: IngestSettings) -> None:
        """Work with other settings, from the next batch on; `threads` stays."""
        self._settings = settings
        self._reconfigured.set()

    async def recover(self) -> None:
        """Finish what a crash has left in the tree, and learn the counts. To be awaited before `run`."""
        await self.space.repeat(lambda: asyncio.to_thread(self._clear_debris))
        placed, lost = await self.space.repeat(lambda: self._ledger(self._writer.recover))
        if placed:
            log.info("ingest.recovered", annotations=placed)
        report_lost(lost)
        self.state.counts = await self._ledger(self._ledger.ledger.counts)
        if (at := await self._ledger(self._ledger.ledger.position, self._stream)) is not None:
            self.state.position, self.state.offset = at.position, at.offset
        self.state.quarantined = await asyncio.to_thread(self._quarantine.count)

    async def run(self) -> None:
        """Work until `stop`, then finish the batch in hand and leave a clean tree.

        What finds no space by then is left to the next start: in the ledger or in the stream, nothing is lost.
        """
        try:
            await self._work()
        except* DiskFullError as full:
            if not self._stopping.is_set():
                raise
            log.warning("ingest.left_unfinished", why=str(full.exceptions[0]))

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            steps = (
                ("take", self._keep_taking),
                ("make durable", self._keep_durable),
                ("place", self._keep_placing),
                ("sync", self._keep_synced),
            )
            beside = [tasks.create_task(_step(name, step), name=f"ingest{step.__name__}") for name, step in steps]
            await self._keep_committing()
            with waiting_for("what is committed to be placed"):
                await self._committed.join()
            for task in beside:
                task.cancel()
        await self._sync()

    def stop(self) -> None:
        """Ask `run` to end after the batch in hand. What waits in the inbox stays in the stream."""
        self._stopping.set()
        self.space.give_up()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Hold writing while the context lasts: ledger and tree agree and do not change."""
        async with holding(self._committing, _STILL):
            with waiting_for("what is committed to be placed"):
                await self._committed.join()
            yield

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        """As `still`, and no sync is under way: one that began before would speak for what is placed meanwhile.

        What is left before its end has maybe committed what it has not placed: from then on no marks are cleared by this process, and the
        next start places it.
        """
        async with holding(self._syncing, "a sync that is under way"), self.still():
            try:
                yield
            except OperatorError:
                raise  # refused before anything was committed
            except BaseException:
                self._left_unplaced = True
                raise

    async def recount(self) -> None:
        """Learn the counts anew, after rows were changed by others than messages."""
        async with self.still():
            self.state.counts = await self._ledger(self._ledger.ledger.counts)
            self.state.changed.set()

    async def replay(self, position: int, *, as_new: bool) -> dict[str, str]:
        """Apply a quarantined message after all, and let it go; the names that it was refused for, with the reasons.

        A message that was refused for every name stays in the quarantine.

        Raises:
            OperatorError: There is none of that position, or it still cannot be applied.
        """
        found = await asyncio.to_thread(self._quarantine.get, position)
        if found is None:
            raise OperatorError(f"there is no message {position} in the quarantine")
        if await self._ledger(self._ledger.ledger.was_replayed, position):  # by a process that died before the message was out of here
            await self._release(position, annotations=0, refused=0)
            return {}
        message = RawMessage(found[0].offset, found[1], found[0].base)
        staged = await self.space.repeat(lambda: asyncio.to_thread(self._stager.stage_again, message, self._settings))
        async with self.at_rest():
            replayed = await self.space.repeat(
                lambda: self._ledger(self._writer.replay, staged, self._known_classes, as_new=as_new, since=found[0].time)
            )
            rows = list(replayed.rows.values())
            await self._place(rows, [] if staged.image is None else [staged.image.file])
            self.state.counts = await self._ledger(self._ledger.ledger.counts)
            if rows:
                self._placed_to = max(row.position for row in rows)
                self.state.changed.set()
        if rows or not replayed.refused:
            await self._release(position, annotations=len(rows), refused=len(replayed.refused))
        return dict(replayed.refused)

    async def _release(self, position: int, *, annotations: int, refused: int) -> None:
        await asyncio.to_thread(self._quarantine.remove, position)
        self.state.quarantined -= 1
        log.info("ingest.replayed", position=position, annotations=annotations, refused=refused)

    def _clear_debris(self) -> None:
        layout = self._layout
        with storage("clearing what a killed process has left"):
            remove_temporaries(layout.state, layout.quarantine, layout.releases, layout.models)
            self._quarantine.remove_halves()

    def close(self) -> None:
        """Give threads and descriptors back."""
        self._staging.shutdown()
        self._placing.shutdown()
        self._stager.close()
        self._writer.close()

    async def _keep_taking(self) -> None:
        while True:
            await self._inbox.wait()
            settings = self._settings
            batch = await self._inbox.batch(
                max_messages=settings.batch_messages, max_bytes=settings.batch_bytes, delay_s=settings.batch_delay_s
            )
            await self.space.wait_for(lambda: self._settings.min_free_disk)
            settings = self._settings  # one and the same for a batch, also when it is staged again: a message has one outcome
            staged = await self.space.repeat(lambda batch=batch, settings=settings: self._stage(batch, settings))  # type: ignore[misc]
            with waiting_for("the batch before to be made durable"):
                await self._written.put(staged)
            del batch  # its images are on the disk now, and need not be in memory while the next one gathers

    async def _stage(self, batch: Sequence[RawMessage], settings: IngestSettings) -> list[StagedMessage]:
        loop = asyncio.get_running_loop()
        share = -(-len(batch) // settings.threads)
        parts = [batch[start : start + share] for start in range(0, len(batch), share)]
        staged = await asyncio.gather(
            *(loop.run_in_executor(self._staging, self._stager.stage, part, settings) for part in parts), return_exceptions=True
        )
        if error := gravest(part for part in staged if isinstance(part, BaseException)):
            raise error
        return [message for part in staged if isinstance(part, list) for message in part]

    async def _keep_durable(self) -> None:
        while True:
            with waiting_for("a staged batch"):
                batch = await self._written.get()
            if any(message.image is not None for message in batch):
                await self._timed(self._stager.sync)
            for portion in in_portions(batch):
                with waiting_for("the batch before to be committed"):
                    await self._staged.put(portion)

    async def _keep_committing(self) -> None:
        while not self._stopping.is_set():
            batch = await self._next_staged()
            if batch is not None:
                async with holding(self._committing, _STILL):
                    started = time.monotonic()
                    plan = await self.space.repeat(
                        lambda batch=batch: self._ledger(self._writer.commit, batch, self._known_classes)  # type: ignore[misc]
                    )
                    with waiting_for("the batch before to be placed"):
                        await self._committed.put(_Committed(batch, plan, started))

    async def _next_staged(self) -> list[StagedMessage] | None:
        """The next batch; None when it is time to stop."""
        get = asyncio.ensure_future(self._staged.get())
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            with waiting_for("a durable batch"):
                await asyncio.wait({get, stop}, return_when=asyncio.FIRST_COMPLETED)
            return get.result() if get.done() else None
        finally:
            get.cancel()
            stop.cancel()

    async def _keep_placing(self) -> None:
        while True:
            with waiting_for("a committed batch"):
                committed = await self._committed.get()
            plan = committed.plan
            await self._place(list(plan.rows.values()), plan.staged)
            if plan.position is not None:
                self._placed_to = plan.position.position
            if any(message.decoded.rejection is not None for message in committed.batch):
                self.state.quarantined = await asyncio.to_thread(self._quarantine.count)
            self.state.batch_done(committed.batch, plan, seconds=time.monotonic() - committed.started)
            self._committed.task_done()

    async def _place(self, rows: list[Annotation], staged: list[str]) -> None:
        def place() -> list[Annotation]:
            lost = self._writer.place(rows)
            self._writer.finish(staged)
            return lost

        loop = asyncio.get_running_loop()
        lost = await self.space.repeat(lambda: loop.run_in_executor(self._placing, place))
        if lost:
            await self.space.repeat(lambda: self._ledger(self._ledger.ledger.flag_image_lost, lost))
            report_lost(row.name for row in lost)

    async def _timed(self, sync: Callable[[], None]) -> None:
        began = time.monotonic()
        await asyncio.to_thread(sync)
        self.state.totals.syncs.add(time.monotonic() - began)

    async def _keep_synced(self) -> None:
        while True:
            with waiting_for("the next sync"):
                await self._pause_before_sync()
            await self._sync()

    async def _pause_before_sync(self) -> None:
        """As long as is configured, also when that changes meanwhile."""
        began = time.monotonic()
        while (left_s := began + self._settings.sync_interval_s - time.monotonic()) > 0:
            self._reconfigured.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._reconfigured.wait()

    async def _sync(self) -> None:
        """Make what is placed durable, and clear its marks. Writing goes on meanwhile: what it places is newer."""
        async with holding(self._syncing, "a check or a repair, which holds back syncs"):
            placed_to = self._placed_to
            if placed_to is None or self._left_unplaced:
                return
            await self._timed(self._writer.sync)
            await self.space.repeat(lambda: self._ledger(self._ledger.ledger.clear_dirty, placed_to))
            if self._placed_to == placed_to:
                self._placed_to = None


async def _step(name: str, step: Callable[[], Awaitable[None]]) -> None:
    with strand(name):
        await step()
