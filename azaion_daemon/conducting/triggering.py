"""Watches for the moment to train: gathers the facts, has them decided upon, and sleeps until they may have changed.

It looks after every batch that changed annotations (at most once a second), when an operator asks, after a reload, and when time alone may
change the decision. Nothing is asked of the ledger in between.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Never

from azaion_daemon.dataset.classes import Classes, classes_digest_input
from azaion_daemon.dataset.trigger import Decision, TriggerFacts, decide, next_schedule, schedule_key
from azaion_daemon.errors import DiskFullError
from azaion_daemon.health import waiting_for
from azaion_daemon.ingest.state import IngestState
from azaion_daemon.settings import Settings
from azaion_daemon.store.due import TrainingRequest
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import LedgerThread

_SHARE_OF_TIME = 0.02
"""What looking may take of the ledger's time while annotations come without a break."""
_LONGEST_SLEEP_S = 600.0
"""The loop's clock is not the wall's: one that was set meanwhile is noticed within this time."""
_NO_SPACE_S = 60.0
_WAKE_LATE_S = 0.01
_CHANGES_NOTHING = frozenset({"max_attempts", "max_parallel_jobs", "nice"})
"""Settings of a training that neither its outcome nor whether it succeeds depends on. On which and how many GPUs it runs is none of them:
memory that ran out on one may suffice on another."""


@dataclass(frozen=True, slots=True)
class Due:
    """A training that is due, and the requests that it answers: all of one wish."""

    why: str
    requests: tuple[TrainingRequest, ...]


class Trigger:
    """The moment to train, for one who waits for it."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        classes: Classes,
        ledger: LedgerThread,
        ingest: IngestState,
        *,
        pause_s: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Between two looks that nobody asked for there are `pause_s` seconds at least."""
        self._settings = settings
        self._layout = layout
        self._classes = classes
        self._call = ledger
        self._tables = ledger.ledger.due
        self._current_model = ledger.ledger.current_model
        self._ingest = ingest
        self._pause_s = pause_s
        self._clock = clock
        self._started = clock()
        self._wake = asyncio.Event()
        self._waiting: asyncio.Future[Due] | None = None
        self._jobs: tuple[str, ...] = ()
        self._room = True
        self.facts: TriggerFacts | None = None
        """What the last look found."""
        self.decision = Decision(due=False, why="wait because the daemon starts")

    async def run(self) -> Never:
        """Keep the decision up to date until cancelled."""
        while True:
            self._wake.clear()
            self._ingest.changed.clear()
            began = time.monotonic()
            await self._look()
            await self._sleep(max(self._pause_s, (time.monotonic() - began) / _SHARE_OF_TIME))

    async def due(self) -> Due:
        """Wait until a training is due, beside the jobs that are under way."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._wake.set()
        try:
            with waiting_for("a training to be due"):
                return await self._waiting
        finally:
            self._waiting = None

    def under_way(self, jobs: tuple[str, ...], *, room: bool) -> None:
        """Say which jobs are under way, and whether what is asked for may run beside them; before `due` is awaited again."""
        self._jobs, self._room = jobs, room
        self._wake.set()

    async def ask(self, request: TrainingRequest) -> None:
        """Take up that somebody asks for a training; the same request once more changes nothing."""
        await self._call(self._tables.ask, request)
        self._wake.set()

    def reconfigure(self, settings: Settings) -> None:
        """Decide by other settings from now on."""
        self._settings = settings
        self._wake.set()

    def next_schedule(self) -> float | None:
        """The next scheduled time, in seconds since the epoch."""
        return next_schedule(self._settings.trigger, self._clock())

    async def digest_of(self, settings: Settings) -> str:
        """What stands for everything beside the annotations that a job depends on."""
        current = None
        if settings.training.start_from == "current":
            # Another current model is another start, as another file of the base model is. A job that fails changes neither, so no job is
            # repeated for having failed.
            model = await self._call(self._current_model)
            current = None if model is None else model.sha256
        return await asyncio.to_thread(_digest_of, settings, self._classes, self._layout, current)

    async def _look(self) -> None:
        # Taken together and first: whoever waits has said what is under way, and what the ledger says is not older than that.
        waiting, settings, jobs, room = self._waiting, self._settings, self._jobs, self._room
        try:
            facts = await self._gather(settings, jobs, room=room)
            self.facts, self.decision = facts, decide(facts, settings.trigger, self._clock())
            if self.decision.settled is not None:
                await self._call(self._tables.settle_schedule, schedule_key(settings.trigger), self.decision.settled)
        except DiskFullError as full:
            self.decision = Decision(due=False, why=f"wait because {full}", next_look=self._clock() + _NO_SPACE_S)
        else:
            if self.decision.due and waiting is not None and not waiting.done():
                waiting.set_result(Due(self.decision.why, self.decision.requests))

    async def _gather(self, settings: Settings, under_way: tuple[str, ...], *, room: bool) -> TriggerFacts:
        now, key = self._clock(), schedule_key(settings.trigger)
        self._started = min(self._started, now)
        record = await self._call(self._tables.record, key)
        if key and record.schedule_settled is None:  # it was given just now: what lies before is none of its business
            await self._call(self._tables.settle_schedule, key, now)
            record = record._replace(schedule_settled=now)
        if not key:
            await self._call(self._tables.forget_schedule)
        return TriggerFacts(
            ledger=record,
            total=self._ingest.counts[Home.VALIDATED],
            settings=await self.digest_of(settings),
            started=self._started,
            under_way=under_way,
            room=room,
        )

    async def _sleep(self, pause_s: float) -> None:
        """Until there may be something new: at once when asked, else after a pause, in which changes gather."""
        with waiting_for("something that is new"):
            await self._until_something_is_new(pause_s)

    async def _until_something_is_new(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            look = self.decision.next_look
            longest = None if look is None else min(max(look - self._clock(), 0.0) + _WAKE_LATE_S, _LONGEST_SLEEP_S)
            events = [asyncio.ensure_future(event.wait()) for event in (self._wake, self._ingest.changed)]
            try:
                await asyncio.wait(events, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for event in events:
                    event.cancel()


def _digest_of(settings: Settings, classes: Classes, layout: Layout, current: str | None) -> str:
    sections = {name: getattr(settings, name).model_dump(mode="json") for name in ("dataset", "training", "export")}
    sections["training"] = {name: value for name, value in sections["training"].items() if name not in _CHANGES_NOTHING}
    try:
        weights = (layout.models / settings.training.model).stat()
        sections["weights"] = [weights.st_size, weights.st_mtime_ns]
    except OSError:  # not there: the trainer says so
        sections["weights"] = None
    if current is not None:
        sections["current"] = current
    text = json.dumps(sections, sort_keys=True, default=str).encode()
    return hashlib.sha256(text + classes_digest_input(classes)).hexdigest()
