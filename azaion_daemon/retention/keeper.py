"""Applies the rules of retention to a root: after each job, at the start, when the settings change, and once a day."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from pathlib import Path
from typing import Never

from azaion_daemon.health import waiting_for
from azaion_daemon.logs import get_logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.retention.facts import living_workers, look_at_disk
from azaion_daemon.retention.removal import name_of, remove, set_aside, set_aside_before
from azaion_daemon.retention.rules import Decision, Facts, Fate, decide
from azaion_daemon.sections import RetentionSettings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.training.evaluations import prune_evaluations
from azaion_daemon.training.jobs import JobDirectory

log = get_logger(__name__)

_PERIOD_S = 86400.0
_PAUSE_S = 0.005
_EVALUATIONS = 500
"""So many stay, a few kilobytes each: those of the models and images of some months."""


class Keeper:
    """Removes what the rules let go. What cannot be removed is a warning, and is tried again by the next pass."""

    def __init__(
        self,
        settings: RetentionSettings,
        layout: Layout,
        ledger: LedgerThread,
        *,
        prune: Callable[[], Awaitable[None]] | None = None,
        installing: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
        patience_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`prune` is what gives back the disk that removed datasets have shared with others until now.

        While `installing` is held no other model becomes the current one. When it is not free after `patience_s` seconds, models are left
        to the next pass.
        """
        self._settings = settings
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._prune = prune
        self._installing = installing
        self._patience_s = patience_s
        self._repeats = Repeats()
        self._clock = clock
        self._due = asyncio.Event()

    def look(self) -> None:
        """Have a pass made soon."""
        self._due.set()

    def reconfigure(self, settings: RetentionSettings) -> None:
        """Go by other settings from now on."""
        if settings != self._settings:
            self._settings = settings
            self.look()

    async def run(self) -> Never:
        """Make passes until cancelled. A removal that is cut short is finished by the next start."""
        while True:
            self._due.clear()
            await self.make_pass()
            with suppress(TimeoutError), waiting_for("the next look at what may be removed"):
                async with asyncio.timeout(_PERIOD_S):
                    await self._due.wait()

    async def make_pass(self) -> None:
        """Remove what may go.

        Raises:
            StorageError: The disk failed.
        """
        try:
            await self._finish_what_was_begun()
            installing = not await self._remove_models()
            decision, unreadable = await self._decide(all_models=installing)  # once more: what only those that went referred to may go too
            for why in unreadable:
                self._failed(None, why)
        except OSError as error:
            self._failed(None, str(error))
            return
        await self._carry_out(decision)
        await self._prune_evaluations()
        if self._prune is not None:
            await self._prune()

    def _failed(self, path: Path | None, why: str) -> None:
        """Say what cannot be read or removed. Many jobs a day make many passes."""
        name = None if path is None else str(path)
        if (seen := self._repeats.count(name, why)) is not None:
            log.warning("retention.failed", name=name, why=why, repeated=seen.times, for_s=seen.for_s)

    async def _remove_models(self) -> bool:
        """Remove the models that may go; False while another one is being installed, which on a full disk waits for what goes here."""
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._patience_s):
                    await held.enter_async_context(self._installing())
            except TimeoutError:
                return False
            decision, _ = await self._decide()
            aside = [await self._set_aside(self._layout.models, one.name, one.why) for one in decision.models if one.fate is Fate.GOES]
        for removed in filter(None, aside):
            await self._empty(*removed)
        return True

    async def _decide(self, *, all_models: bool = False) -> tuple[Decision, Sequence[str]]:
        """What may go now, with `all_models` no model and nothing that one came from; and what cannot be read.

        Raises:
            OSError: The directories cannot be listed.
        """
        on_disk = await asyncio.to_thread(look_at_disk, self._layout)  # before the ledger: see there
        facts = Facts(
            on_disk.datasets,
            on_disk.job_directories,
            await self._call(self._ledger.jobs),
            await self._call(self._ledger.models),
            await self._call(self._ledger.releases),
            await asyncio.to_thread(living_workers, self._layout, on_disk.job_directories),
            on_disk.model_directories,
        )
        settings = self._settings.model_copy(update={"models_keep": len(facts.models)}) if all_models else self._settings
        return decide(facts, settings, now=self._clock()), on_disk.unreadable

    async def _prune_evaluations(self) -> None:
        try:
            pruned = await asyncio.to_thread(prune_evaluations, self._layout.evaluations, _EVALUATIONS)
        except OSError as error:
            self._failed(self._layout.evaluations, str(error))
        else:
            if pruned:
                log.info("retention.evaluations_pruned", evaluations=pruned)

    async def _finish_what_was_begun(self) -> None:
        for parent in (self._layout.datasets, self._layout.jobs, self._layout.models):
            for aside in await asyncio.to_thread(set_aside_before, parent):
                await self._empty(aside, name_of(aside), "its removal was cut short before")

    async def _carry_out(self, decision: Decision) -> None:
        layout = self._layout
        for verdict in decision.jobs:
            match verdict.fate:
                case Fate.GOES:
                    await self._remove(layout.jobs, verdict.name, verdict.why)
                case Fate.SHRINKS:
                    parts = await asyncio.to_thread(JobDirectory(layout.jobs / verdict.name).worked_with)
                    for part in parts:
                        why = (
                            "only its model is referred to"
                            if verdict.referred_by
                            else "it ended without a model, and another has ended since"
                        )
                        await self._remove(layout.jobs, f"{verdict.name}/{part.name}", why)
        for verdict in decision.datasets:
            if verdict.fate is Fate.GOES:
                await self._remove(layout.datasets, verdict.name, verdict.why)

    async def _remove(self, parent: Path, name: str, why: str) -> None:
        if (removed := await self._set_aside(parent, name, why)) is not None:
            await self._empty(*removed)

    async def _set_aside(self, parent: Path, name: str, why: str) -> tuple[Path, str, str] | None:
        """Take a directory's name from it; what `_empty` is to be given, or None where that cannot be."""
        try:
            return await asyncio.to_thread(set_aside, parent / name, parent), name, why
        except FileNotFoundError:
            return None
        except OSError as error:
            self._failed(parent / name, str(error))
            return None

    async def _empty(self, aside: Path, name: str, why: str) -> None:
        """Remove in portions, resting as long as each has taken: others use the same disk, and a stop waits for one portion only."""
        portions = remove(aside)
        freed = 0
        portion: int | None = 0
        try:
            while portion is not None:
                freed += portion
                began = time.monotonic()
                portion = await _to_its_end(lambda: next(portions, None))
                with waiting_for("others to have their turn at the disk"):
                    await asyncio.sleep(max(_PAUSE_S, time.monotonic() - began))
        except OSError as error:
            self._failed(aside, str(error))
        else:
            log.info("retention.removed", directory=str(aside.parent), name=name, why=why, freed_bytes=freed)


async def _to_its_end(step: Callable[[], int | None]) -> int | None:
    """Run a short step on a thread, and wait for it also when cancelled: nobody else must meet it half done."""
    running = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        running.exception()  # seen: what is left is tried again by the next pass
        raise
