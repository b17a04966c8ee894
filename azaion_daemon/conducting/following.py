"""One log line for each epoch of a job, however fast they follow each other and whichever process saw them end."""

import asyncio
import statistics
from contextlib import suppress
from types import TracebackType
from typing import Never, Self

from azaion_daemon.errors import TrainingError
from azaion_daemon.logs import get_logger
from azaion_daemon.training.history import EpochRecord
from azaion_daemon.training.jobs import JobDirectory

log = get_logger(__name__)

_RECENT = 20
"""The pace is that of the last so many epochs."""


class EpochLog:
    """Logs the epochs of a job as they are recorded, each once in this object's life.

    A context, entered for each start of a worker: what had ended before the first one is summed up in one line, and what has ended when it
    is left is logged before.
    """

    def __init__(self, directory: JobDirectory) -> None:
        self._directory = directory
        self._told = asyncio.Event()
        self._epochs = 0  # unknown
        self._begun = False
        self._logged: set[tuple[int, int]] = set()
        self._following: asyncio.Task[Never]

    async def __aenter__(self) -> Self:
        with suppress(TrainingError):  # of another release, whose worker can run it
            self._epochs = (await asyncio.to_thread(self._directory.read_spec)).epochs
        if not self._begun:
            await self._sum_up()
        self._begun = True
        self._following = asyncio.create_task(self._follow(), name="epochs")
        return self

    async def _sum_up(self) -> None:
        before = await self._read()
        self._logged = {(record.attempt, record.epoch) for record in before}
        if before:
            last = before[-1]
            log.info(
                "worker.epochs_before",
                job=self._directory.path.name,
                epoch=last.epoch,
                epochs=self._epochs,
                map50=last.map50,
                map50_95=last.map50_95,
            )

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._following.cancel()
        await asyncio.wait([self._following])  # a cancellation of our own that comes meanwhile must not be taken for that one
        if kind is None or issubclass(kind, Exception):  # else the daemon stops, and its next start goes on
            await self._look()

    def tell(self) -> None:
        """The worker has got further: there may be more to log."""
        self._told.set()

    async def _follow(self) -> Never:
        while True:
            await self._told.wait()
            self._told.clear()
            await self._look()

    async def _look(self) -> None:
        records = await self._read()
        recent: list[float] = []
        for record in records:
            recent = [*recent[1 - _RECENT :], record.seconds]
            if (key := (record.attempt, record.epoch)) not in self._logged:
                self._logged.add(key)
                self._log(record, statistics.median(recent))

    def _log(self, record: EpochRecord, epoch_s: float) -> None:
        log.info(
            "worker.epoch",
            job=self._directory.path.name,
            epoch=record.epoch,
            epochs=self._epochs,
            losses=record.losses,
            val_losses=record.val_losses,
            map50=record.map50,
            map50_95=record.map50_95,
            seconds=round(record.seconds, 1),
            images_per_s=record.images_per_s,
            remaining_s=round((self._epochs - record.epoch) * epoch_s) if self._epochs >= record.epoch else None,
        )

    async def _read(self) -> list[EpochRecord]:
        """What is recorded. A history that cannot be read is worth no training: the result says what came out."""
        try:
            return list(await asyncio.to_thread(self._directory.read_epochs))
        except (OSError, TrainingError):
            return []
