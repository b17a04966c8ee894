"""Releases wait in the ledger until they are published: through outages and restarts, for ever, and without holding up anything else.

A newer release supersedes an older one that still waits. One that is being published is given up then, unless it is about to be swapped in:
it is finished first, so that two are never mixed.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Never, ParamSpec, Protocol, TypeVar

from azaion_daemon.errors import AzaionError, DiskFullError, ReleaseError, raise_if_disk_failed
from azaion_daemon.health import strand, waiting_for
from azaion_daemon.logs import get_logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.ops.allocator import give_back_memory
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.manifesting import SerialUsedError
from azaion_daemon.publish.platform import LoginRefusedError, PlatformError
from azaion_daemon.publish.record import Published
from azaion_daemon.sections import PublishSettings
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Job, Model, Release
from azaion_daemon.training.states import JobState, advance

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 3600.0
_AFTER_START_S = 60.0
_NO_SPACE_S = 30.0
_NO_KEY = "AZAION_MODEL_KEY is not set. Set it and reload"


class Publishes(Protocol):
    """Who brings a model to consumers."""

    async def publish(self, model: Path, serial: int, facts: ReleaseFacts, *, sha256: str, before_swap: "BeforeSwap") -> Published:
        """Publish a model under a serial; calling it again finishes what was cut short. `before_swap` may call it off."""
        ...

    async def abort_uploads(self) -> None:
        """Abort what a killed process was uploading; what cannot be aborted, the next `publish` does. It may be cancelled."""
        ...


class BeforeSwap(Protocol):
    """Is asked before anything that consumers see is touched."""

    async def __call__(self) -> None:
        """Raise to call it off."""
        ...


class SupersededError(ReleaseError):
    """A newer release has been ordered."""


@dataclass(frozen=True, slots=True)
class Tries:
    """What is kept of a waiting release's tries, in the ledger's `details`: how many failed, and when the next is (epoch seconds).

    `next_try` is None where time does not help: then something has to change.
    """

    attempts: int = 0
    next_try: float | None = None

    @classmethod
    def of(cls, release: Release) -> "Tries":
        """Those of a release; none yet without details."""
        details = release.details or {}
        return cls(int(details.get("attempts") or 0), details.get("next_try"))


def pause_s(attempts: int, asked_s: float, chance: random.Random) -> float:
    """The pause after so many failed tries, of which there is at least one: doubles up to an hour, jittered, and no shorter than asked."""
    grown = min(_FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 16), _LONGEST_PAUSE_S)
    return max(asked_s, chance.uniform(grown / 2, grown))


def pause_after_start_s(tries: Tries, now: float) -> float:
    """What is left of a pause when the daemon starts: not none, should it start over and over, nor long, should the clock have jumped."""
    return 0.0 if tries.next_try is None else min(max(tries.next_try - now, 0.0), _AFTER_START_S)


def settled(jobs: Sequence[Job], models: Sequence[Model], releases: Sequence[Release], now: float) -> list[Job]:
    """The jobs whose release has come to an end, in their next state: released, or given up for a newer one."""
    made = {model.job: model.sha256 for model in models}
    changed = []
    for job in jobs:
        model = ((job.result or {}).get("onnx") or {}).get("sha256") or made.get(job.id)  # two jobs may have made the same
        own = [release for release in releases if job.state == JobState.RELEASING and release.model_sha256 == model]
        if any(release.state == "published" for release in own):
            changed.append(replace(job, state=advance(JobState.RELEASING, JobState.RELEASED), changed=now, why=None))
        elif own and all(release.state == "superseded" for release in own):
            why = f"release {own[-1].serial} of it was superseded by {releases[-1].serial} before it was published"
            changed.append(replace(job, state=advance(JobState.RELEASING, JobState.CANCELLED), changed=now, why=why))
    return changed


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
        chance: random.Random | None = None,
    ) -> None:
        """`facts` looks up what is known of a model; it may block."""
        self._settings = settings
        self._call = ledger
        self._ledger = ledger.ledger
        self._publisher = publisher
        self._facts = facts
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._repeats = Repeats()
        self._due = asyncio.Event()
        self._changed = False
        self._swapping = False
        self.publishing: int | None = None
        """The serial of the release that is being tried just now."""
        self.published = 0
        self.failures = 0
        """How many releases were published, and how many tries have failed, since the start."""

    async def order(self, model_sha256: str) -> None:
        """Have a model published. Ordering the newest one again changes nothing."""
        releases = await self._call(self._ledger.releases)
        # The last one is superseded where an index rebuild has found it given up.
        if not releases or releases[-1].model_sha256 != model_sha256 or releases[-1].state == "superseded":
            await self._call(self._ledger.add_release, model_sha256)
        self._due.set()

    def reconfigure(self, settings: PublishSettings) -> None:
        """Work with other settings, and try at once what waits: an operator has asked for that."""
        self._changed |= settings != self._settings  # a second reload must not hide the first
        self._repeats.clear()  # who asks for another try wants to hear what becomes of it
        self._settings = settings
        self._due.set()

    async def run(self) -> Never:
        """Publish until cancelled."""
        if (release := await self._next()) is not None and (left_s := pause_after_start_s(Tries.of(release), self._clock())):
            await self._wait(left_s, "the pause from before the start")
        tidied = False
        while True:
            self._due.clear()
            self._changed = False
            await self._settle_jobs()
            release = await self._next()
            if release is not None and self._settings.model_key is not None:
                tidied = True  # its attempt does it
            elif not tidied:
                tidied = await self._unless_due(self._publisher.abort_uploads())
            if release is None:
                with waiting_for("a model to publish"):
                    await self._due.wait()
            elif self._settings.model_key is None:
                await self._postpone(release, _NO_KEY, None)
            else:
                await self._try(release)

    async def _next(self) -> Release | None:
        waiting = [release for release in await self._call(self._ledger.releases) if release.state == "waiting"]
        return waiting[-1] if waiting else None

    async def _try(self, release: Release) -> None:
        """Publish a release, or say why not and wait."""
        attempts = Tries.of(release).attempts + 1
        self.publishing = release.serial
        try:
            published = await self._publish(release)
        except SupersededError:
            return
        except SerialUsedError as error:
            raised = await self._record(self._ledger.serials.raise_above, release.serial, error.highest, error.why)
            log.warning("release.serial_raised", serial=release.serial, to=raised, why=error.why)
        except LoginRefusedError as error:
            await self._postpone(release, str(error), None, attempts)
        except AzaionError as error:
            raise_if_disk_failed(error)
            asked_s = error.retry_after_s if isinstance(error, PlatformError) else 0.0
            await self._postpone(release, str(error), pause_s(attempts, asked_s, self._chance), attempts)
        else:
            if published is not None:
                await self._record(self._ledger.update_release, release.serial, "published", details=asdict(published))
                self.published += 1
        finally:
            self.publishing = None

    async def _publish(self, release: Release) -> Published | None:
        """One attempt; None when it was given up for something newer: another release, or other settings."""
        models = {model.sha256: model for model in await self._call(self._ledger.models)}
        if (model := models.get(release.model_sha256)) is None:
            raise ReleaseError(f"The model {release.model_sha256} of release {release.serial} is not in the ledger any more. Train again.")
        facts = await asyncio.to_thread(self._facts, model)
        self._swapping = False

        async def before_swap() -> None:
            if await self._is_superseded(release):
                raise SupersededError(f"release {release.serial} was superseded")
            self._swapping = True

        async def publish() -> Published:
            with strand(f"release {release.serial}"):
                return await self._publisher.publish(Path(model.path), release.serial, facts, sha256=model.sha256, before_swap=before_swap)

        attempt = asyncio.ensure_future(publish())
        asked_again = False
        try:
            while not attempt.done():
                waiting = asyncio.ensure_future(self._due.wait())
                with waiting_for(f"release {release.serial}, which is being published"):
                    await asyncio.wait({attempt, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if attempt.done():
                    break
                self._due.clear()
                asked_again = True
                if not self._swapping and (self._changed or await self._is_superseded(release)):
                    return None
        finally:
            if asked_again:  # what has changed may be what this attempt fails for, which has begun with what was before: no pause then
                self._due.set()
            await _call_off(attempt)
            await asyncio.to_thread(give_back_memory)  # the parts of a model were in it, and the next release may be days away
        return await attempt

    async def _unless_due(self, doing: Coroutine[None, None, None]) -> bool:
        """Do something that gives way to whatever comes up; whether it came to its end."""
        task, due = asyncio.ensure_future(doing), asyncio.ensure_future(self._due.wait())
        try:
            await asyncio.wait({task, due}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled():
            return False
        await task
        return True

    async def _is_superseded(self, release: Release) -> bool:
        return (await self._call(self._ledger.releases))[-1].serial != release.serial

    async def _postpone(self, release: Release, why: str, wait_s: float | None, attempts: int = 0) -> None:
        """Say why a release waits, and wait, or until something changes. One that was superseded meanwhile stays so."""
        self.failures += attempts > 0
        tries = Tries(attempts, None if wait_s is None else self._clock() + wait_s)
        if not await self._record(self._ledger.postpone_release, release.serial, why, details=asdict(tries)):
            return
        if (seen := self._repeats.count(release.serial, why)) is not None:
            log.warning(
                "release.waiting",
                serial=release.serial,
                why=why,
                attempts=attempts,
                retry_in_s=wait_s and round(wait_s, 1),
                repeated=seen.times,
                for_s=seen.for_s,
            )
        await self._wait(wait_s, why)

    async def _wait(self, seconds: float | None, why: str) -> None:
        with suppress(TimeoutError), waiting_for(f"what a release needs: {why}"):
            async with asyncio.timeout(seconds):
                await self._due.wait()

    async def _settle_jobs(self) -> None:
        ledger = self._ledger
        jobs, models, releases = await self._call(ledger.jobs), await self._call(ledger.models), await self._call(ledger.releases)
        for job in settled(jobs, models, releases, self._clock()):
            await self._record(ledger.put_job, job)
            log.info("job.state", job=job.id, state=job.state, before=JobState.RELEASING, why=job.why)

    async def _record(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Write to the ledger; a full disk is waited out."""
        repeats = Repeats()
        while True:
            try:
                return await self._call(function, *args, **kwargs)
            except DiskFullError as error:
                if (seen := repeats.count(str(error))) is not None:
                    log.warning("release.no_space", why=str(error), repeated=seen.times, for_s=seen.for_s)
                with waiting_for("space"):
                    await asyncio.sleep(_NO_SPACE_S)


async def _call_off(attempt: "asyncio.Future[Published]") -> None:
    if not attempt.done():
        attempt.cancel()
        await asyncio.wait({attempt})
        if not attempt.cancelled():
            attempt.exception()  # seen: how an attempt ends that was given up is of no interest


def shown(release: Release, publishing: int | None) -> dict[str, Any]:
    """A release for the status: also how often it was tried, and when it will be again (epoch seconds; None: when something changes)."""
    tries = Tries.of(release) if release.state == "waiting" else Tries()
    return {
        "serial": release.serial,
        "state": release.state,
        "model": release.model_sha256,
        "why": release.why,
        "attempts": tries.attempts,
        "next_try": tries.next_try,
        "under_way": release.serial == publishing,
    }
