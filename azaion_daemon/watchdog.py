"""Looks at the health of all parts again and again, and feeds systemd's watchdog while nothing is wrong.

It runs on the event loop that it watches: while that is blocked no ping is sent. So there is no thread for it, which would go on speaking
for a daemon that stands still.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Never

from azaion_daemon.health import Health, Vitals
from azaion_daemon.logs import get_logger
from azaion_daemon.notify import Notifier

log = get_logger(__name__)

INTERVAL_S = 120.0
"""WatchdogSec of the unit. The loop is never blocked for more than a second or so; two minutes let through a machine that swaps, a driver
that holds up all cores, and a snapshot of a virtual machine. The limits of the parts (`azaion_daemon.health`) are made for this value and
grow and shrink with it: so whoever has slower disks raises WatchdogSec, and nothing else."""
_PINGS = 3
"""In one interval: less than half of it between two, with one that comes late."""
_PERIOD_S = 5.0
_EXTENDED_S = 60.0
"""By how much a start is prolonged each time: six looks may come late."""


def patience(notifier: Notifier) -> float:
    """What the limits of the parts are multiplied by."""
    return (notifier.watchdog_s or INTERVAL_S) / INTERVAL_S


class Watchdog:
    """Feeds systemd's watchdog, and logs what becomes ill and well."""

    def __init__(self, vitals: Vitals, notifier: Notifier, clock: Callable[[], float] = time.monotonic) -> None:
        self._vitals = vitals
        self._notifier = notifier
        self._clock = clock
        self._period_s = min(_PERIOD_S, (notifier.watchdog_s or INTERVAL_S) / _PINGS)
        self._due: float | None = None
        self._ailing: dict[str, str] = {}

    async def run(self) -> Never:
        """Look until cancelled."""
        while True:
            if self.look().ok:
                self._notifier.ping()
            await asyncio.sleep(self._period_s)

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Have systemd wait for a start that gets on, however large the tree is that it mends, or however long it waits for space."""
        extending = asyncio.create_task(self._keep_extending(), name="watchdog")
        try:
            yield
        finally:
            extending.cancel()

    async def _keep_extending(self) -> Never:
        while True:
            if self.look().ok:
                self._notifier.extend(_EXTENDED_S)
            await asyncio.sleep(self._period_s)

    def look(self) -> Health:
        """The health now; what has changed is logged.

        A look that comes late finds nothing: the machine or the process stood still, and the parts did not have their time either.
        """
        now = self._clock()
        late = self._due is not None and now > self._due
        self._due = None if late else now + 2 * self._period_s
        if late:
            return Health()
        health = self._vitals.judged()
        for one in health.ailing:
            if one.part not in self._ailing:
                log.error("health.ailing", part=one.part, what=one.what, seconds=round(one.for_s, 1))
        ailing = {one.part: one.what for one in health.ailing}
        for part, what in self._ailing.items():
            if part not in ailing:
                log.info("health.recovered", part=part, what=what)
        self._ailing = ailing
        return health
