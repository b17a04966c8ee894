"""A disk that is full is waited out, in place, so that nothing is taken from the stream meanwhile.

Any other fault of the disk is not for waiting: it passes through and ends the daemon, which starts again from the ledger.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ByteSize

from azaion_daemon.errors import DiskFullError
from azaion_daemon.health import waiting_for
from azaion_daemon.logs import get_logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.store.durable import storage

log = get_logger(__name__)

T = TypeVar("T")

_POLL_S = 2.0


class Space:
    """Room on the root's filesystem, and the pause while there is none."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reasons: dict[object, str] = {}
        self._repeats = Repeats()
        self._said = False
        self._giving_up = asyncio.Event()

    @property
    def paused(self) -> str | None:
        """Why work waits; None while it does not."""
        return next(iter(self._reasons.values()), None)

    def give_up(self) -> None:
        """Wait no longer: what has no room fails from now on. Nothing is lost: what is not in the ledger is in the stream."""
        self._giving_up.set()

    async def wait_for(self, least: Callable[[], int]) -> None:
        """Wait until so many bytes are free, by what is asked for at the moment."""

        def shortage() -> str | None:
            with storage("looking at the free space of"):
                disk = os.statvfs(self._root)
            free, wanted = (ByteSize(number) for number in (disk.f_bavail * disk.f_frsize, least()))
            if free >= wanted:
                return None
            there, asked_for = (number.human_readable(separator=" ") for number in (free, wanted))
            return f"{there} are free below {self._root}, less than the {asked_for} of ingest.min_free_disk"

        waiting = object()
        try:
            while why := await asyncio.to_thread(shortage):
                self._pause(waiting, why, kind="min_free_disk")
                with waiting_for(f"space: {why}"):
                    await asyncio.sleep(_POLL_S)
        finally:
            self._go_on(waiting)

    async def repeat(self, step: Callable[[], Awaitable[T]]) -> T:
        """Repeat a step, which must be one that may be repeated, until the disk has room for it.

        Raises:
            DiskFullError: There is none, and `give_up` was called.
        """
        waiting = object()
        try:
            while True:
                try:
                    return await step()
                except DiskFullError as error:
                    if self._giving_up.is_set():
                        raise
                    why = str(error)
                    self._pause(waiting, why, kind=why)
                with suppress(TimeoutError), waiting_for(f"space: {why}"):
                    await asyncio.wait_for(self._giving_up.wait(), _POLL_S)
        finally:
            self._go_on(waiting)

    def _pause(self, waiting: object, why: str, *, kind: Hashable) -> None:
        """A disk on the edge makes for many short pauses; `kind` is what of `why` is the same each time."""
        if self.paused is None and (seen := self._repeats.count(kind)) is not None:
            self._said = True
            log.warning("ingest.paused", why=why, repeated=seen.times, for_s=seen.for_s)
        self._reasons[waiting] = why

    def _go_on(self, waiting: object) -> None:
        if self._reasons.pop(waiting, None) is not None and self.paused is None and self._said:
            self._said = False
            log.info("ingest.resumed")
