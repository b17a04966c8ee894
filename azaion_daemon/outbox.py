"""Releases wait in the ledger until they are published: through outages and restarts, for ever, and without holding up anything else.

A newer release supersedes an older one that still waits.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Never, Protocol

from azaion_daemon.errors import AzaionError, raise_if_disk_failed
from azaion_daemon.logs import get_logger
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.manifesting import SerialUsedError
from azaion_daemon.publish.record import Published
from azaion_daemon.settings import PublishSettings
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Model, Release
from azaion_daemon.training.jobs import JobState, advance

log = get_logger(__name__)

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 3600.0


class Publishes(Protocol):
    """Who brings a model to consumers."""

    async def publish(self, model: Path, serial: int, facts: ReleaseFacts) -> Published:
        """Publish a model under a serial; calling it again finishes what was cut short."""
        ...


class Outbox:
    """Publishes what the ledger says is waiting, one release at a time."""

    def __init__(
        self,
        settings: PublishSettings,
        ledger: LedgerThread,
        publisher: Publishes,
        *,
        facts: Callable[[Model], ReleaseFacts],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`facts` looks up what is known of a model; it may block."""
        self._settings = settings
        self._call = ledger
        self._ledger = ledger.ledger
        self._publisher = publisher
        self._facts = facts
        self._clock = clock
        self._due = asyncio.Event()

    async def order(self, model_sha256: str) -> None:
        """Have a model published. Ordering the newest one again changes nothing."""
        releases = await self._call(self._ledger.releases)
        if not releases or releases[-1].model_sha256 != model_sha256:
            await self._call(self._ledger.add_release, model_sha256)
        self._due.set()

    async def run(self) -> Never:
        """Publish until cancelled."""
        failures = 0
        while True:
            self._due.clear()
            waiting = [release for release in await self._call(self._ledger.releases) if release.state == "waiting"]
            if not waiting:
                failures = 0
                await self._due.wait()
            elif self._settings.model_key is None:
                await self._wait_with(waiting[-1], "AZAION_MODEL_KEY is not set; set it and restart the daemon", None)
            elif why := await self._try_release(waiting[-1]):
                failures += 1
                await self._wait_with(waiting[-1], why, min(_FIRST_PAUSE_S * 2 ** min(failures, 12), _LONGEST_PAUSE_S))

    async def _try_release(self, release: Release) -> str | None:
        """Publish a release; why it failed, or None."""
        model = next(model for model in await self._call(self._ledger.models) if model.sha256 == release.model_sha256)
        try:
            facts = await asyncio.to_thread(self._facts, model)
            published = await self._publisher.publish(Path(model.path), release.serial, facts)
        except SerialUsedError as error:
            raised = await self._call(self._ledger.serials.raise_above, release.serial, error.highest, error.why)
            log.warning("release.serial_raised", serial=release.serial, to=raised, why=error.why)
            return None
        except AzaionError as error:
            raise_if_disk_failed(error)
            return str(error)
        details = asdict(published)
        await self._call(self._ledger.update_release, release.serial, "published", details=details)
        jobs = await self._call(self._ledger.jobs)
        for job in jobs:
            if job.id == model.job and job.state == JobState.RELEASING:
                released = replace(job, state=advance(JobState.RELEASING, JobState.RELEASED), changed=self._clock())
                await self._call(self._ledger.put_job, released)
                log.info("job.state", job=job.id, state=released.state, before=job.state, why=None)
        return None

    async def _wait_with(self, release: Release, why: str, longest_s: float | None) -> None:
        """Wait with full jitter, or until another release is ordered."""
        pause = None if longest_s is None else random.uniform(longest_s / 2, longest_s)  # noqa: S311
        await self._call(self._ledger.update_release, release.serial, "waiting", why=why)
        log.warning("release.waiting", serial=release.serial, why=why, retry_in_s=pause)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._due.wait()
