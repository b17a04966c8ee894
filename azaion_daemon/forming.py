"""From the validated annotations to a dataset, while the tree stands still."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.disk import training_bytes
from azaion_daemon.dataset.plan import plan_dataset
from azaion_daemon.dataset.snapshot import Snapshot, form_snapshot
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import AzaionError
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.settings import DatasetSettings
from azaion_daemon.store.due import Mark
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread


class _GivenUpError(Exception):
    """The daemon stops."""


class DatasetFormer:
    """Forms datasets of what the ledger says is validated."""

    def __init__(
        self,
        layout: Layout,
        classes: Classes,
        ledger: LedgerThread,
        digester: Digester,
        *,
        stream: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`stream` is the one whose position a dataset shows."""
        self._layout = layout
        self._classes = classes
        self._call = ledger
        self._ledger = ledger.ledger
        self._digester = digester
        self._stream = stream
        self._clock = clock

    async def form(self, settings: DatasetSettings, at: Callable[[Mark], None], *, weights: Path) -> Snapshot:
        """Form a dataset; `at` is told the moment that it will show before anything can fail for its data.

        `weights` is what the training starts from: the larger, the more disk it needs.

        Raises:
            DatasetError: It could not be trained on.
            StorageError: The disk failed or is full.
        """
        loop = asyncio.get_running_loop()
        given_up = threading.Event()

        def proceed() -> None:
            if given_up.is_set():
                raise _GivenUpError

        def record_sides(sides: Mapping[str, Side]) -> None:
            asyncio.run_coroutine_threadsafe(self._call(self._ledger.add_sides, sides), loop).result()

        async with self._digester.still():
            rows = await self._call(self._ledger.in_home, Home.VALIDATED)
            sides = {media: Side(side) for media, side in (await self._call(self._ledger.sides)).items()}
            newest = await self._call(self._ledger.position, self._stream)
            position = None if newest is None else newest.position
            at(await self._call(self._ledger.due.mark))

            def form() -> Snapshot:
                plan = plan_dataset(rows, sides, self._classes, settings, key=self._stream)
                return form_snapshot(
                    plan,
                    self._layout,
                    self._classes,
                    settings,
                    position=position,
                    now=datetime.fromtimestamp(self._clock(), UTC),
                    record_sides=record_sides,
                    training_bytes=training_bytes(weights),
                    proceed=proceed,
                )

            forming = asyncio.ensure_future(asyncio.to_thread(form))
            try:
                return await asyncio.shield(forming)
            except asyncio.CancelledError:
                given_up.set()  # the tree stands still until the thread has removed what it made
                with suppress(_GivenUpError, AzaionError):
                    await forming
                raise
