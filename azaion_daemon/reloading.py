"""A running daemon takes a changed configuration: the whole file is read and checked first, then every part is told, or none."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azaion_daemon.errors import ConfigError
from azaion_daemon.health import waiting_for
from azaion_daemon.logs import get_logger
from azaion_daemon.ops.reload import plan_reload
from azaion_daemon.settings import Settings, load_settings
from azaion_daemon.stream.tls import tls_context

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LastReload:
    """What became of the newest reload."""

    begun: float
    """On the machine's monotonic clock, which all of its processes share."""
    at: float
    """Seconds since the epoch."""
    error: str | None = None
    applied: tuple[str, ...] = ()
    next_job: tuple[str, ...] = ()
    restart_required: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON, for the status."""
        return {
            "ok": self.error is None,
            "at": self.at,
            "begun_monotonic": self.begun,
            "error": self.error,
            "applied": list(self.applied),
            "next_job": list(self.next_job),
            "restart_required": list(self.restart_required),
        }


class Reloader:
    """Holds what the daemon works with, and reads it again when it is asked to."""

    def __init__(
        self,
        settings: Settings,
        config: Path,
        take: Callable[[Settings], None],
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`take` is given what the daemon works with from now on; each reload runs inside of what `around` makes."""
        self.settings = settings
        """What the daemon works with."""
        self.loaded_at = time.time()
        self.last: LastReload | None = None
        self.reloads = {"ok": 0, "failed": 0}
        """How many there were since the start."""
        self._config = config
        self._take = take
        self._around = around
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Read the configuration again, soon. Asked several times before that, it is read once."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for."""
        while True:
            with waiting_for("a reload to be asked for"):
                await self._asked.wait()
            self._asked.clear()
            with self._around():
                self.last = await self._reload()
            self.reloads["ok" if self.last.error is None else "failed"] += 1

    async def _reload(self) -> LastReload:
        begun, at = time.monotonic(), time.time()
        try:
            after = await asyncio.to_thread(load_settings, self._config)
            await asyncio.to_thread(tls_context, after.stream)
        except ConfigError as error:  # everything stays as it is
            log.error("config.reload_failed", error=str(error))  # noqa: TRY400 - expected: no traceback
            return LastReload(begun, at, error=str(error))
        plan = plan_reload(self.settings, after)
        self.settings, self.loaded_at = plan.running, at
        self._take(plan.running)
        log.info("config.reloaded", applied=plan.applied, next_job=plan.next_job, restart_required=plan.restart_required)
        return LastReload(begun, at, None, plan.applied, plan.next_job, plan.restart_required)
