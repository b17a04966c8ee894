"""Which GPUs a job gets: free ones, that no other job of this daemon is about to take.

A lease is the worker's own, and it takes it some seconds after the GPU was chosen for it. Until then the choice is remembered here.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from azaion_daemon.sections import TrainingSettings
from azaion_daemon.training.gpus import Chosen, Gpus, Wait, choose, lease_names, leased
from azaion_daemon.training.jobs import JobSpec


class GpuQueue:
    """The GPUs of this machine, for several jobs."""

    def __init__(self, gpus: Gpus, locks: Path) -> None:
        """`locks` is the directory of the leases."""
        self._gpus = gpus
        self._locks = locks
        self._taken: dict[str, tuple[str, ...]] = {}
        self._given_back = asyncio.Event()

    async def choose(self, spec: JobSpec, settings: TrainingSettings, avoid: Sequence[str]) -> Chosen | Wait:
        """As many GPUs as a job takes, or a place on the CPU, its own from now on; other GPUs than those to avoid, where any are free."""
        found = await asyncio.to_thread(self._gpus.discover)
        slots = settings.max_parallel_jobs
        held = await asyncio.to_thread(leased, self._locks, lease_names(found, slots))
        # From here on nothing is awaited, so no two jobs get the same.
        busy = held.union(*(leases for job, leases in self._taken.items() if job != spec.id))
        choice = choose(settings.gpus, found, busy, count=spec.gpus_per_job, avoid=avoid, cpu_slots=slots)
        if isinstance(choice, Chosen):
            self._taken[spec.id] = choice.leases
        return choice

    def take(self, spec: JobSpec) -> None:
        """Remember what a job has: a worker of it may be about to take its leases."""
        self._taken[spec.id] = spec.leases or spec.gpus

    def give_back(self, job: str) -> None:
        """Forget it: no worker of the job will take a lease any more."""
        if self._taken.pop(job, None) is not None:
            self._given_back.set()
            self._given_back = asyncio.Event()

    async def wait(self, longest_s: float) -> None:
        """Wait until one of our jobs gives something back, and so long at most: others may end their work at any time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._given_back.wait()
