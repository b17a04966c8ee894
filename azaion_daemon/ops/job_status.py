"""What the status says of a job, and of the GPUs."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Never

from azaion_daemon.errors import AzaionError
from azaion_daemon.health import waiting_for
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Job
from azaion_daemon.training.estimate import remaining_s, share_done
from azaion_daemon.training.gpus import Discovery, Gpus, leased
from azaion_daemon.training.jobs import JobDirectory, Progress

_Found = tuple[list[dict[str, Any]], str | None]


def job_document(job: Job) -> dict[str, Any]:
    """A job as JSON."""
    metrics = (job.result or {}).get("metrics") or {}
    return {
        "id": job.id,
        "state": job.state,
        "why": job.why,
        "dataset": job.dataset,
        "reason": job.reason,
        "trial": job.trial,
        "created": job.created,
        "ended": job.ended,
        "verdict": job.verdict,
        "map50": metrics.get("map50"),
        "map50_95": metrics.get("map50_95"),
    }


def under_way_document(progress: Progress | None, waits_for: str | None) -> dict[str, Any]:
    """What is said beside of one that is under way."""
    return {"progress": None if progress is None else progress_document(progress), "waits_for": waits_for}


def progress_document(progress: Progress) -> dict[str, Any]:
    """How far a worker is, as JSON: with the share of its epochs that is done, and the seconds that are left."""
    remaining = remaining_s(progress)
    return {
        **progress.model_dump(mode="json"),
        "share": round(share_done(progress), 4),
        "remaining_s": None if remaining is None else round(remaining),
    }


class GpuWatch:
    """Looks at the GPUs now and then, for the status: what they do, and which job has which.

    A driver may hang for good, so each look has a thread of its own that nobody waits for at the end.
    """

    def __init__(
        self,
        gpus: Gpus,
        layout: Layout,
        jobs: Callable[[], Iterable[str]],
        *,
        period_s: float = 10.0,
        patience_s: float = 20.0,
    ) -> None:
        """`jobs` are the ids of those that are under way. After `patience_s` seconds it is said that there is no answer."""
        self._gpus = gpus
        self._layout = layout
        self._jobs = jobs
        self._period_s = period_s
        self._patience_s = patience_s
        self.documents: list[dict[str, Any]] = []
        """The GPUs when they were last looked at."""
        self.problem: str | None = None
        """Why GPUs that should be there cannot be seen."""

    async def run(self) -> Never:
        """Look until cancelled."""
        while True:
            looking = self._look()
            with waiting_for("the NVIDIA driver"):  # a hung one cannot be helped, least of all by a restart
                while not (await asyncio.wait([looking], timeout=self._patience_s))[0]:
                    self.problem = "The NVIDIA driver does not answer. Look at nvidia-smi and the kernel's log."
            self.documents, self.problem = looking.result()
            with waiting_for("the next look at the GPUs"):
                await asyncio.sleep(self._period_s)

    def _look(self) -> "asyncio.Future[_Found]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Found] = loop.create_future()
        jobs = tuple(self._jobs())

        def put(found: _Found) -> None:
            if not future.done():
                future.set_result(found)

        def find() -> None:
            try:
                found = self._find(jobs)
            except Exception as error:  # noqa: BLE001 - no oddity of a driver may end the daemon, and its status even less
                found = [], f"The GPUs cannot be looked at: {error}"
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(put, found)

        threading.Thread(target=find, name="gpus", daemon=True).start()
        return future

    def _find(self, jobs: tuple[str, ...]) -> _Found:
        found = self._gpus.discover()
        uuids = [gpu.uuid for gpu in found.gpus]
        busy: frozenset[str] = frozenset()
        with suppress(OSError):
            busy = leased(self._layout.gpu_locks, uuids)
        holders: dict[str, str] = {}
        for job in jobs if uuids else ():
            with suppress(AzaionError, OSError):  # it is not formed yet, or of another release
                holders |= dict.fromkeys(JobDirectory(self._layout.jobs / job).read_spec().gpus, job)
        return gpu_documents(found, busy, holders), found.broken


def gpu_documents(found: Discovery, busy: frozenset[str], holders: Mapping[str, str]) -> list[dict[str, Any]]:
    """The GPUs as JSON: everything that is known of each, whether some worker has its lease, and for which job."""
    return [{**asdict(gpu), "leased": gpu.uuid in busy, "job": holders.get(gpu.uuid) if gpu.uuid in busy else None} for gpu in found.gpus]
