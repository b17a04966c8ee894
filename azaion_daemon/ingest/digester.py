"""Reads the images of an indexed tree in the background, and records their digests, until none is unknown.

It goes on where it was after any restart: what is done is in the ledger.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from azaion_daemon.errors import DiskFullError
from azaion_daemon.health import waiting_for
from azaion_daemon.ingest.digests import digest_of
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.ingest.state import report_lost
from azaion_daemon.logs import get_logger
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation

log = get_logger(__name__)

_IMAGES_A_BATCH = 64
_NICENESS = 19
_PAUSE_POLL_S = 2.0
_ORDER = (Home.VALIDATED, Home.SEED, Home.DELETED)
"""What a dataset waits for comes first."""


class Digester:
    """The unknown digests of one root."""

    def __init__(self, layout: Layout, ledger: LedgerThread, pipeline: Pipeline) -> None:
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._pipeline = pipeline
        self._more = asyncio.Event()
        self._validated_known = asyncio.Event()
        self._ending = threading.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="digest", initializer=_be_nice)
        try:
            while True:
                self._more.clear()
                await self._work_off(pool)
                with waiting_for("images whose digest is unknown"):
                    await self._more.wait()
        finally:
            self._ending.set()
            pool.shutdown(wait=False)

    def look_again(self) -> None:
        """Say that annotations with unknown digests have come."""
        self._validated_known.clear()
        self._more.set()

    async def digested(self) -> None:
        """Wait until the validated images have their digests, but for those that come meanwhile."""
        if left := await self._call(self._ledger.undigested_count, Home.VALIDATED):
            log.info("index.digesting", left=left)
            self.look_again()
            with waiting_for("the digests of the indexed images"):
                await self._validated_known.wait()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """As the pipeline's `still`, and every validated image has its digest."""
        while True:
            await self.digested()
            async with self._pipeline.still():
                if not await self._call(self._ledger.undigested_count, Home.VALIDATED):
                    yield
                    return

    async def _work_off(self, pool: ThreadPoolExecutor) -> None:
        started, done = time.monotonic(), 0
        while rows := await self._next():
            if self._pipeline.space.paused is not None:
                with waiting_for("space"):
                    await asyncio.sleep(_PAUSE_POLL_S)
                continue
            digests = await asyncio.get_running_loop().run_in_executor(pool, self._read, rows)
            try:
                await self._call(self._ledger.put_digests, {name: digest for name, digest in digests.items() if digest is not None})
                if lost := [name for name, digest in digests.items() if digest is None]:
                    await self._flag(lost)
            except DiskFullError:
                await asyncio.sleep(_PAUSE_POLL_S)
            else:
                done += len(digests)
        if done:
            log.info("index.digested", annotations=done, seconds=round(time.monotonic() - started, 1))

    async def _next(self) -> list[Annotation]:
        for home in _ORDER:
            if rows := await self._call(self._ledger.undigested, home, _IMAGES_A_BATCH):
                return rows
            if home is Home.VALIDATED:
                self._validated_known.set()
        return []

    def _read(self, rows: Sequence[Annotation]) -> dict[str, str | None]:
        digests = {}
        for row in rows:
            if self._ending.is_set():
                break
            digests[row.name] = digest_of(row, self._layout)
        return digests

    async def _flag(self, names: list[str]) -> None:
        """Flag images that are nowhere, unless a message has changed that meanwhile: judged while nothing is written."""
        async with self._pipeline.still():
            rows = await self._call(self._ledger.annotations, names)
            unknown = [row for row in rows.values() if row.image == UNKNOWN_DIGEST]
            lost = [row for row in unknown if await asyncio.to_thread(digest_of, row, self._layout) is None]
            await self._call(self._ledger.flag_image_lost, lost)
        if lost:
            self._pipeline.state.changed.set()
        report_lost(row.name for row in lost)


def _be_nice() -> None:
    """Let everything else go first. On Linux niceness, and the disk's priority that follows from it, is a thread's own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
