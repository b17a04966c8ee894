"""What the daemon knows of itself, gathered from its parts: written as `state/status.json` every second."""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azaion_daemon import __version__
from azaion_daemon.conducting.conductor import Conductor
from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.conducting.triggering import Trigger
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.ops.job_status import GpuWatch
from azaion_daemon.ops.own_process import resources
from azaion_daemon.ops.status import disk, write_status
from azaion_daemon.orders import SHOWN_JOBS, SHOWN_STATES, jobs_document
from azaion_daemon.outbox import Outbox, shown
from azaion_daemon.reloading import Reloader
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Model
from azaion_daemon.stream.consumer import StreamConsumer

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


class Reporter:
    """Writes the status, again and again."""

    def __init__(self, parts: Parts, layout: Layout, config: Path) -> None:
        self.state = "starting"
        self.started = time.time()
        self._parts = parts
        self._layout = layout
        self._config = config
        self._loop_lag_s = 0.0

    async def run(self) -> None:
        """Keep the status up to date."""
        while True:
            await self.write()
            due = time.monotonic() + _PERIOD_S
            await asyncio.sleep(_PERIOD_S)
            self._loop_lag_s = time.monotonic() - due

    async def write(self) -> None:
        """Replace the status once."""
        with suppress(OSError):  # a full disk must not end the daemon for its status; what matters notices by itself
            await asyncio.to_thread(write_status, self._layout, await self.document())

    async def document(self) -> dict[str, Any]:
        """The whole status."""
        parts = self._parts
        ingest, resizing, ledger = parts.pipeline.state, parts.former.resizing, parts.ledger.ledger
        scheduled = parts.trigger.next_schedule()
        model = await parts.ledger(ledger.current_model)
        releases = await parts.ledger(ledger.latest_releases, _RELEASES)
        jobs = await parts.ledger(ledger.latest_jobs, SHOWN_JOBS, also=SHOWN_STATES)
        last = parts.reloader.last
        return {
            "version": __version__,
            "state": self.state,
            "pid": os.getpid(),
            "uptime_s": round(time.time() - self.started, 1),
            "config": {
                "path": str(self._config),
                "loaded_at": parts.reloader.loaded_at,
                "last_reload": None if last is None else last.document(),
            },
            "stream": self._stream(),
            "annotations": {
                **{home.value: count for home, count in ingest.counts.items()},
                "quarantined": ingest.quarantined,
                "flagged": await parts.ledger(ledger.flagged),
            },
            "training": {
                "new_since_last": None if (facts := parts.trigger.facts) is None else facts.ledger.changed,
                "threshold": parts.reloader.settings.trigger.new_annotations,
                "why": parts.trigger.decision.why,
                "next_schedule": None if scheduled is None else datetime.fromtimestamp(scheduled, UTC).isoformat(),
                "resizing": None if resizing is None else {"done": resizing.done, "of": resizing.total},
                "jobs": jobs_document(jobs, parts.conductor.under_way),
            },
            "models": {"current": None if model is None else _model(model), "count": await parts.ledger(ledger.count_models)},
            "releases": [shown(release, parts.outbox.publishing) for release in releases],
            "disk": disk(self._layout.root),
            "gpus": parts.gpus.documents,
            "gpus_problem": parts.gpus.problem,
            "process": await self._process(),
        }

    async def _process(self) -> dict[str, Any]:
        taken = await asyncio.to_thread(resources, len(asyncio.all_tasks()))
        return {**taken, "loop_lag_s": round(self._loop_lag_s, 4)}

    def _stream(self) -> dict[str, Any]:
        ingest, stream = self._parts.pipeline.state, self._parts.consumer.health
        messages_per_s, bytes_per_s = ingest.rate.now()
        return {
            "connected": stream.connected,
            "why": stream.why,
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


def _model(model: Model) -> dict[str, Any]:
    return {
        "sha256": model.sha256,
        "job": model.job,
        "map50": model.metrics.get("map50"),
        "map50_95": model.metrics.get("map50_95"),
        "created": model.created,
    }
