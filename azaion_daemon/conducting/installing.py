"""How a model becomes the current one: its files are kept, the ledger says so, its release is ordered. One at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from azaion_daemon.errors import TrainingError
from azaion_daemon.ingest.space import Space
from azaion_daemon.logs import get_logger
from azaion_daemon.store.durable import copy_durably, fsync_directory, storage
from azaion_daemon.store.kept import put_in_place
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Job, Model
from azaion_daemon.training.jobs import JobDirectory, JobResult
from azaion_daemon.training.keeping import kept_directory

log = get_logger(__name__)


class Installer:
    """Makes models the current one.

    Whoever decides that a model becomes the current one, or makes it so, holds `lock`: of two that end together the second is compared
    with the first, and no two installations mix their files.
    """

    def __init__(
        self,
        layout: Layout,
        ledger: LedgerThread,
        space: Space,
        order_release: Callable[[str], Awaitable[None]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._space = space
        self._order_release = order_release
        self._clock = clock
        self.lock = asyncio.Lock()

    async def install(self, job: Job) -> None:
        """Make an accepted job's model the current one, and order its release. Again is the same as once. The caller holds the lock.

        Raises:
            TrainingError: The model is not there any more.
            StorageError: The disk failed; or it is full, and nobody waits any longer.
        """
        assert self.lock.locked()
        directory = JobDirectory(self._layout.jobs / job.id)
        result = await asyncio.to_thread(complete_result, directory)
        assert result.onnx is not None and result.metrics is not None  # noqa: PT018 - that is what complete means
        kept = await asyncio.to_thread(kept_directory, job, self._layout)
        await self._space.repeat(lambda: asyncio.to_thread(_keep_model, directory, kept, self._layout))
        metrics = result.metrics.model_dump(mode="json")
        sha256 = result.onnx.sha256
        path = str(kept / self._layout.onnx.name)
        await self.put_in_place(Model(sha256, job.id, result.dataset_id, metrics, path, current=True, created=self._clock()))

    async def put_in_place(self, model: Model, *, reason: str = "", actor: str = "daemon") -> None:
        """Make a model that is kept the current one, and order its release. Again is the same as once. The caller holds the lock.

        Raises:
            StorageError: The disk failed; or it is full, and nobody waits any longer.
        """
        assert self.lock.locked()
        await self._space.repeat(lambda: asyncio.to_thread(put_in_place, Path(model.path), self._layout))
        why = reason or (f"job {model.job}" if model.job else "")
        await self._space.repeat(lambda: self._call(self._ledger.put_current_model, model, why=why, actor=actor))
        map50, map50_95 = (model.metrics.get(name) for name in ("map50", "map50_95"))
        log.info("model.current", job=model.job, sha256=model.sha256, map50=map50, map50_95=map50_95)
        await self._space.repeat(lambda: self._order_release(model.sha256))


def complete_result(directory: JobDirectory) -> JobResult:
    """The result of a job that has a model. Blocking.

    Raises:
        TrainingError: It has none, or not any more.
    """
    result = directory.read_result()
    if result is None or result.onnx is None or result.pt is None or result.metrics is None:
        raise TrainingError(f"the result of the job {directory.path.name} is gone from {directory.path}; train again")
    if missing := [file.name for file in (directory.pt, directory.onnx) if not file.is_file()]:
        raise TrainingError(f"the model of the job {directory.path.name} is gone from {directory.path} ({', '.join(missing)}); train again")
    return result


def _keep_model(directory: JobDirectory, kept: Path, layout: Layout) -> None:
    """Copy what came out of a job to a directory of its own. Again is the same as once."""
    with storage("keeping a model"):
        kept.mkdir(exist_ok=True)
        fsync_directory(kept.parent)
        copy_durably(directory.path / "result.json", kept / "result.json")
        if directory.report.exists():
            copy_durably(directory.report, kept / directory.report.name)
        for source, name in ((directory.pt, layout.pt.name), (directory.onnx, layout.onnx.name)):
            copy_durably(source, kept / name)
