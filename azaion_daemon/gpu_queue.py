"""Which GPUs a job gets: free ones, that no other job of this daemon is about to take.

A lease is the worker's own, and it takes it some seconds after the GPU was chosen for it. Until then the choice is remembered here.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from azaion_daemon.training.gpus import Chosen, Gpus, Wait, choose, leased
from azaion_daemon.training.jobs import JobSpec


class GpuQueue:
    """The GPUs of this machine, for several jobs."""

    def __init__(self, gpus: Gpus, locks: Path) -> None:
        """`locks` is the directory of the leases."""
        self._gpus = gpus
        self._locks = locks
        self._taken: dict[str, tuple[str, ...]] = {}

    async def choose(self, spec: JobSpec, setting: Literal["auto", "none"] | tuple[str, ...], avoid: Sequence[str]) -> Chosen | Wait:
        """As many GPUs as a job takes, its own from now on; others than those to avoid, where any are free."""
        found = await asyncio.to_thread(self._gpus.discover)
        held = await asyncio.to_thread(leased, self._locks, [gpu.uuid for gpu in found.gpus])
        # From here on nothing is awaited, so no two jobs get the same.
        busy = held.union(*(uuids for job, uuids in self._taken.items() if job != spec.id))
        choice = choose(setting, found, busy.union(avoid), count=spec.gpus_per_job)
        if isinstance(choice, Wait) and avoid:
            choice = choose(setting, found, busy, count=spec.gpus_per_job)
        if isinstance(choice, Chosen):
            self._taken[spec.id] = choice.uuids
        return choice

    def take(self, spec: JobSpec) -> None:
        """Remember what a job has: a worker of it may be about to take its leases."""
        self._taken[spec.id] = spec.gpus

    def give_back(self, job: str) -> None:
        """Forget it: no worker of the job will take a lease any more."""
        self._taken.pop(job, None)
