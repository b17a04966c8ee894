"""What the daemon knows of itself, gathered from its parts: written as `state/status.json` every second."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from azaion_daemon import __version__
from azaion_daemon.conducting.conductor import Conductor
from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.conducting.triggering import Trigger
from azaion_daemon.health import Vitals, waiting_for
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.logs.output import LogOutput
from azaion_daemon.ops.job_status import GpuWatch
from azaion_daemon.ops.own_process import resources
from azaion_daemon.ops.status import disk, write_status
from azaion_daemon.ops.tally import Tally
from azaion_daemon.orders import SHOWN_JOBS, SHOWN_STATES, jobs_document
from azaion_daemon.outbox import Outbox, shown
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.publish.release import Publisher
from azaion_daemon.reloading import Reloader
from azaion_daemon.store.due import TrainingRequest
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Job, Model, Release
from azaion_daemon.stream.consumer import StreamConsumer
from azaion_daemon.training.states import JobState

_PERIOD_S = 1.0
_RELEASES = 10


@dataclass(frozen=True)
class Parts:
    """What is asked."""

    consumer: StreamConsumer
    inbox: Inbox
    pipeline: Pipeline
    ledger: LedgerThread
    former: DatasetFormer
    trigger: Trigger
    conductor: Conductor
    outbox: Outbox
    gpus: GpuWatch
    reloader: Reloader
    vitals: Vitals
    platform: PlatformClient
    publisher: Publisher
    log: LogOutput


class _Known(NamedTuple):
    """What the ledger says, read in one go: its thread is asked once a second and not for each of these."""

    model: Model | None
    models: int
    jobs: Sequence[Job]
    states: Mapping[str, str]
    releases: Sequence[Release]
    published: Release | None
    flagged: int
    last_change: float | None

    @classmethod
    def of(cls, ledger: Ledger) -> "_Known":
        """Blocking; in the ledger's thread."""
        return cls(
            model=ledger.current_model(),
            models=ledger.count_models(),
            jobs=ledger.latest_jobs(SHOWN_JOBS, also=SHOWN_STATES),
            states=ledger.job_states(),
            releases=ledger.latest_releases(_RELEASES),
            published=ledger.published_release(),
            flagged=ledger.flagged(),
            last_change=ledger.due.newest_change(),
        )


class Reporter:
    """Writes the status, again and again, and hands it to whoever else wants it."""

    def __init__(self, parts: Parts, layout: Layout, config: Path, tell: Callable[[Mapping[str, Any]], None] = lambda _: None) -> None:
        """`tell` is given each status that is written."""
        self.state = "starting"
        self.started = time.time()
        self.ended_by: str | None = None
        """What ended the daemon, when that was no signal."""
        self._last_connected = time.monotonic()
        self._parts = parts
        self._layout = layout
        self._config = config
        self._tell = tell
        self._tally = Tally()
        self._due = asyncio.Event()
        self._loop_lag_s = 0.0

    def soon(self) -> None:
        """Have the status written at once: somebody waits for what it says."""
        self._due.set()

    async def run(self) -> None:
        """Keep the status up to date."""
        while True:
            self._due.clear()
            await self.write()
            due = time.monotonic() + _PERIOD_S
            with waiting_for("the next second"), suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_S):
                    await self._due.wait()
            self._loop_lag_s = max(0.0, time.monotonic() - due)

    async def write(self) -> None:
        """Replace the status once."""
        with suppress(OSError):  # a full disk must not end the daemon for its status; what matters notices by itself
            document = await self.document()
            self._tell(document)
            await asyncio.to_thread(write_status, self._layout, document)

    async def document(self) -> dict[str, Any]:
        """The whole status."""
        parts = self._parts
        ingest, resizing = parts.pipeline.state, parts.former.resizing
        scheduled = parts.trigger.next_schedule()
        known = await parts.ledger(_Known.of, parts.ledger.ledger)
        last = parts.reloader.last
        under_way = parts.conductor.under_way
        self._tally.look(known.states, {one.job.id: one.progress for one in under_way}, time.time())
        return {
            "version": __version__,
            "state": self.state,
            "pid": os.getpid(),
            "uptime_s": round(time.time() - self.started, 1),
            "ended_by": self.ended_by,
            "config": {
                "path": str(self._config.absolute()),
                "loaded_at": parts.reloader.loaded_at,
                "last_reload": None if last is None else last.document(),
                "model_key": parts.reloader.settings.publish.model_key is not None,
            },
            "health": parts.vitals.document(),
            "log": {"lost_lines": parts.log.lost},
            "stream": self._stream(),
            "annotations": {
                **{home.value: count for home, count in ingest.counts.items()},
                "quarantined": ingest.quarantined,
                "flagged": known.flagged,
            },
            "training": {
                "new_since_last": None if (facts := parts.trigger.facts) is None else facts.ledger.changed,
                "threshold": parts.reloader.settings.trigger.new_annotations,
                "why": parts.trigger.decision.why,
                "next_schedule": None if scheduled is None else datetime.fromtimestamp(scheduled, UTC).isoformat(),
                "requests": [] if facts is None else [_request(one) for one in facts.ledger.requests],
                "resizing": None if resizing is None else {"done": resizing.done, "of": resizing.total},
                "last_change": known.last_change,
                "states": {state.value: count for state, count in _by_state(known.states).items()},
                "jobs": [one | {"got_on": self._tally.got_on(one["id"])} for one in jobs_document(known.jobs, under_way)],
            },
            "models": {
                "current": None if known.model is None else _model(known.model),
                "count": known.models,
                "published": None if known.published is None else _published(known.published),
            },
            "releases": [shown(release, parts.outbox.publishing) for release in known.releases],
            "disk": await asyncio.to_thread(self._disk),
            "gpus": parts.gpus.documents,
            "gpus_problem": parts.gpus.problem,
            "api": {"login_refused": parts.platform.login_refused},
            "totals": self._totals(),
            "process": await self._process(),
        }

    def _disk(self) -> dict[str, Any]:
        ledger = self._layout.ledger
        size = 0
        for path in (ledger, ledger.with_name(f"{ledger.name}-wal")):
            with suppress(OSError):
                size += path.stat().st_size
        return {**disk(self._layout.root), "ledger_bytes": size}

    def _totals(self) -> dict[str, Any]:
        """What only grows, counted since the start."""
        parts = self._parts
        return {
            "ingest": parts.pipeline.state.totals.document(),
            "stream": {"failures": parts.consumer.health.failures},
            "reloads": dict(parts.reloader.reloads),
            "jobs_ended": dict(self._tally.ended),
            "releases": {
                "published": parts.outbox.published,
                "failures": parts.outbox.failures,
                "api_retries": parts.platform.retries,
                "cdn_retries": parts.publisher.cdn_retries,
            },
        }

    async def _process(self) -> dict[str, Any]:
        taken = await asyncio.to_thread(resources, len(asyncio.all_tasks()))
        return {**taken, "loop_lag_s": round(self._loop_lag_s, 4)}

    def _stream(self) -> dict[str, Any]:
        ingest, stream = self._parts.pipeline.state, self._parts.consumer.health
        messages_per_s, bytes_per_s = ingest.rate.now()
        if stream.connected:
            self._last_connected = time.monotonic()
        return {
            "connected": stream.connected,
            "not_connected_s": round(time.monotonic() - self._last_connected, 1),
            "why": stream.why,
            "refused": stream.refused,
            "position": ingest.position,
            "offset": ingest.offset,
            "last_message_age_s": None if stream.last_message is None else round(time.monotonic() - stream.last_message, 1),
            "reconnects": stream.reconnects,
            "attempts": stream.attempts,
            "behind_s": None if stream.behind_s is None else round(stream.behind_s, 1),
            "backlog_messages": stream.backlog_messages,
            "waiting_messages": len(self._parts.inbox),
            "waiting_bytes": self._parts.inbox.bytes,
            "paused": self._parts.pipeline.space.paused,
            "messages_per_s": round(messages_per_s, 1),
            "bytes_per_s": round(bytes_per_s),
        }


def _by_state(states: Mapping[str, str]) -> dict[JobState, int]:
    found = Counter(states.values())
    return {state: found[state] for state in JobState}


def _request(request: TrainingRequest) -> dict[str, Any]:
    return {"reason": request.reason, "time": request.time, "trial": request.trial, "epochs": request.epochs}


def _published(release: Release) -> dict[str, Any]:
    """What consumers have, and since when."""
    return {"serial": release.serial, "sha256": release.model_sha256, "at": release.changed}


def _model(model: Model) -> dict[str, Any]:
    return {
        "sha256": model.sha256,
        "job": model.job,
        "map50": model.metrics.get("map50"),
        "map50_95": model.metrics.get("map50_95"),
        "created": model.created,
    }
