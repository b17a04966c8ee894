"""Worker processes: starting them, finding those that outlived the daemon, waiting for their end, ending them.

Who may work on a job is decided by the flock that the worker takes, never here: of two workers started on one job, the second leaves at
once and the first is awaited. A worker's end is seen through a pidfd, so one that was adopted is awaited like one of our own.
"""

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from azaion_daemon.errors import TrainingError
from azaion_daemon.logs import get_logger
from azaion_daemon.training.jobs import Identity, JobDirectory, JobResult, Outcome, Progress
from azaion_daemon.training.processes import EXIT_TAKEN, JOB_VARIABLE, TOKEN_VARIABLE, end_marked, open_alive

# What a worker inherits. Everything else stays here: the daemon's environment holds passwords.
_INHERITED = frozenset({"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER"})
_INHERITED_PREFIXES = ("CUDA_", "LC_", "NCCL_", "NVIDIA_", "OMP_", "PYTORCH_", "TORCH_")

_LOG_TAIL_BYTES = 4096
_log = get_logger(__name__)


def worker_command() -> tuple[str, ...]:
    """The real worker, run by the interpreter and from the release that this is."""
    return (sys.executable, "-P", "-u", "-m", "azaion_daemon.training.worker")


@dataclass(frozen=True)
class _Worker:
    """A worker to wait for. `pidfd` is ours to close; `adopted` when another process is its parent."""

    pid: int
    pidfd: int
    token: str
    adopted: bool


@dataclass(frozen=True)
class _End:
    """How a worker ended; both are None when only its parent could know."""

    status: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was killed by {signal.Signals(self.signal).name}"
        return "ended" if self.status is None else f"ended with status {self.status}"


class WorkerPool:
    """Runs jobs in worker processes.

    Args:
        command: The worker without its argument, the job's directory.
        environment: Where what workers inherit is taken from.
        progress_s: How often progress is looked at, in seconds.
        grace_s: How long a worker may take to die of SIGTERM before it gets SIGKILL, in seconds.
        patience_s: How long a job's lock may be held by nobody known before that is an error, in seconds.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
        progress_s: float = 1.0,
        grace_s: float = 5.0,
        patience_s: float = 20.0,
    ) -> None:
        self._command = tuple(command) if command is not None else worker_command()
        self._environment = {
            name: value for name, value in environment.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
        }
        self._progress_s = progress_s
        self._grace_s = grace_s
        self._patience_s = patience_s

    async def run(self, job: JobDirectory, on_progress: Callable[[Progress], None] = lambda _: None) -> JobResult:
        """Start a worker on the job, or find the one that has it, and return what it says when it has ended.

        A job that has a result is not run again: retire it first. Cancelling this call leaves the worker running.

        Raises:
            TrainingError: The directory cannot be understood, or its lock is held by a process that never says who it is.
        """
        taken_until = time.monotonic() + self._patience_s
        while (result := await asyncio.to_thread(job.read_result)) is None:
            worker = await self._adopt(job) or self._start(job)
            end = await self._wait(worker, job, on_progress)
            # Data loaders outlive a killed worker, and hold its locks and its GPU's memory.
            await asyncio.to_thread(end_marked, TOKEN_VARIABLE, worker.token, grace_s=0)
            _log.info("worker.ended", job=job.path.name, pid=worker.pid, status=end.status, signal=end.signal)
            if end.status != EXIT_TAKEN:
                return await asyncio.to_thread(self._result, job, end)
            if time.monotonic() > taken_until:
                raise TrainingError(f"{job.lock} is locked by a process that is no worker. Find it with: fuser {job.lock}")
            await asyncio.sleep(0.1)  # until the one that has it has said who it is
        return result

    async def cancel(self, job: JobDirectory) -> None:
        """End the job's worker and everything it started, if there is any, and return when all of it is gone.

        Raises:
            TrainingError: A process cannot be killed.
        """

        def end() -> int:
            return end_marked(JOB_VARIABLE, str(job.path), grace_s=self._grace_s, also=job.read_identity())

        await asyncio.to_thread(end)

    async def _adopt(self, job: JobDirectory) -> _Worker | None:
        def find() -> tuple[Identity, int | None] | None:
            identity = job.read_identity()
            return None if identity is None else (identity, open_alive(identity))

        match await asyncio.to_thread(find):
            case None:
                return None
            case identity, None:  # a dead one may have left children that hold its locks
                await asyncio.to_thread(end_marked, TOKEN_VARIABLE, identity.token, grace_s=0)
                return None
            case identity, int(pidfd):
                _log.info("worker.adopted", job=job.path.name, pid=identity.pid, attempt=identity.attempt)
                return _Worker(identity.pid, pidfd, identity.token, adopted=True)

    def _start(self, job: JobDirectory) -> _Worker:
        token = uuid.uuid4().hex
        # On the loop itself: a cancellation between the start and the pidfd would lose the child. It takes a millisecond.
        pid = os.posix_spawn(
            self._command[0],
            [*self._command, str(job.path)],
            {**self._environment, JOB_VARIABLE: str(job.path), TOKEN_VARIABLE: token},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(job.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # a signal to the daemon's group or its terminal must not reach it
            setsigmask=(),
            setsigdef=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE),
        )
        _log.info("worker.started", job=job.path.name, pid=pid)
        return _Worker(pid, os.pidfd_open(pid), token, adopted=False)

    async def _wait(self, worker: _Worker, job: JobDirectory, on_progress: Callable[[Progress], None]) -> _End:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(worker.pidfd, ended.set)
        seen: Progress | None = None
        try:
            while not ended.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._progress_s):
                        await ended.wait()
                progress = await asyncio.to_thread(job.read_progress)
                if progress is not None and progress != seen:
                    seen = progress
                    on_progress(progress)
            return _reap(worker.pidfd)
        finally:
            loop.remove_reader(worker.pidfd)
            os.close(worker.pidfd)

    @staticmethod
    def _result(job: JobDirectory, end: _End) -> JobResult:
        if (result := job.read_result()) is not None:
            return result
        progress, identity = job.read_progress(), job.read_identity()
        where = "before it said anything" if progress is None else f"in phase {progress.phase}, epoch {progress.epoch}"
        return JobResult(
            outcome=Outcome.INFRASTRUCTURE,
            reason=f"The worker {end} {where}, without a result.",
            log_tail=_tail(job.log),
            attempts=0 if identity is None else identity.attempt,
            finished=datetime.now(UTC),
        )


def _reap(pidfd: int) -> _End:
    try:
        end = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # another process is its parent
        return _End()
    assert end is not None
    return _End(status=end.si_status) if end.si_code == os.CLD_EXITED else _End(signal=end.si_status)


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
