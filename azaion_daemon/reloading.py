"""A running daemon takes a changed configuration: the whole file is read and checked first, then every part is told, or none."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azaion_daemon.errors import AzaionError, ConfigError, raise_if_disk_failed
from azaion_daemon.health import waiting_for
from azaion_daemon.logs import get_logger, more_talkative, set_level
from azaion_daemon.ops.reload import ReloadPlan, Take, check_files, plan_reload, tell
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.sections import ApiSettings
from azaion_daemon.settings import Settings, parse_settings, read_config

log = get_logger(__name__)

_FILES_S = 60.0
_SETTLED_S = 0.05
_LOOKS = 40


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
        parts: Sequence[Take],
        *,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
        done: Callable[[], None] = lambda: None,
        read: Callable[[Path], str] = read_config,
    ) -> None:
        """Each reload runs inside of what `around` makes, and `done` is called after it, whatever became of it; `read` may block."""
        self.settings = settings
        """What the daemon works with."""
        self.loaded_at = time.time()
        self.last: LastReload | None = None
        self.reloads = {"ok": 0, "failed": 0}
        """How many there were since the start."""
        self._config = config
        self._parts = parts
        self._around = around
        self._done = done
        self._read = read
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
            self._done()

    async def _reload(self) -> LastReload:
        begun, at = time.monotonic(), time.time()
        try:
            after = parse_settings(await self._settled_text(), source=str(self._config))
            try:
                async with asyncio.timeout(_FILES_S):
                    await asyncio.to_thread(check_files, after)
            except TimeoutError as error:
                raise ConfigError(f"the files that {self._config} names cannot be read within {_FILES_S:.0f} s. Is a disk away?") from error
            plan = plan_reload(self.settings, after)
            self._apply(plan)
        except ConfigError as error:  # everything stays as it is
            log.error("config.reload_failed", error=str(error))  # noqa: TRY400 - expected: no traceback
            return LastReload(begun, at, error=str(error))
        except Exception as error:  # whatever it is, a daemon that works must not end for what it was to become
            why = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
            log.exception("config.reload_failed", error=why)
            return LastReload(begun, at, error=why)
        self.loaded_at = at
        return LastReload(begun, at, None, plan.applied, plan.next_job, plan.restart_required)

    async def _settled_text(self) -> str:
        """The file's text once two looks find the same: half a file may be valid, and then says other things than its writer means.

        Raises:
            ConfigError: It cannot be read, or goes on changing.
        """
        text = await asyncio.to_thread(self._read, self._config)
        for _ in range(_LOOKS):
            await asyncio.sleep(_SETTLED_S)
            before, text = text, await asyncio.to_thread(self._read, self._config)
            if text == before:
                return text
        raise ConfigError(f"{self._config} does not stop changing. Reload again when it is written.")

    def _apply(self, plan: ReloadPlan) -> None:
        before, after = self.settings, plan.running
        tell(self._parts, before, after)
        self.settings = after
        set_level(more_talkative(before.log.level, after.log.level))  # the line that says so is heard
        log.info("config.reloaded", applied=plan.applied, next_job=plan.next_job, restart_required=plan.restart_required)
        set_level(after.log.level)


class Introduction:
    """Logs in at the platform as soon as what leads there has changed: whether it is right shows now, not with the next model."""

    def __init__(self, platform: PlatformClient, settings: ApiSettings) -> None:
        self._platform = platform
        self._settings = settings
        self._due = asyncio.Event()

    def reconfigure(self, settings: ApiSettings) -> None:
        """Work with other settings from now on."""
        self._platform.reconfigure(settings)
        if settings != self._settings:
            self._settings = settings
            self._due.set()

    async def run(self) -> None:
        """Log in whenever it is due. Where that fails the next call tries again, unless the platform has refused."""
        while True:
            with waiting_for("other credentials of the platform"):
                await self._due.wait()
            self._due.clear()
            try:
                await self._platform.log_in()
            except AzaionError as error:
                raise_if_disk_failed(error)
                log.warning("platform.login_failed", why=str(error))
