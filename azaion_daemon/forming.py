"""From the validated annotations to a dataset, while the tree stands still."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.plan import plan_dataset
from azaion_daemon.dataset.snapshot import Snapshot, form_snapshot
from azaion_daemon.dataset.split import Side
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.settings import DatasetSettings
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread


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
        key: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`stream` is the one whose position a dataset shows; `key` orders media that are new to the split."""
        self._layout = layout
        self._classes = classes
        self._call = ledger
        self._ledger = ledger.ledger
        self._digester = digester
        self._stream = stream
        self._key = key
        self._clock = clock

    async def form(self, settings: DatasetSettings, at: Callable[[int | None], None]) -> Snapshot:
        """Form a dataset; `at` is told the position that it will show before anything can fail for its data.

        Raises:
            DatasetError: It could not be trained on.
            StorageError: The disk failed or is full.
        """
        loop = asyncio.get_running_loop()

        def record_sides(sides: Mapping[str, Side]) -> None:
            asyncio.run_coroutine_threadsafe(self._call(self._ledger.add_sides, sides), loop).result()

        async with self._digester.still():
            rows = await self._call(self._ledger.in_home, Home.VALIDATED)
            sides = {media: Side(side) for media, side in (await self._call(self._ledger.sides)).items()}
            newest = await self._call(self._ledger.position, self._stream)
            position = None if newest is None else newest.position
            at(position)

            def form() -> Snapshot:
                plan = plan_dataset(rows, sides, self._classes, settings, key=self._key)
                now = datetime.fromtimestamp(self._clock(), UTC)
                return form_snapshot(plan, self._layout, self._classes, settings, position=position, now=now, record_sides=record_sides)

            return await asyncio.to_thread(form)
