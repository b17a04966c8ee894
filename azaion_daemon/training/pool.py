"""Worker processes: starting them, finding those that outlived the daemon, waiting for their end, ending them.

Who may work on a job is decided by the flock that the worker takes, never here: of two workers started on one job, the second leaves at
once and the first is awaited. A worker's end is seen through a pidfd, so one that was adopted is awaited like one of our own. One that
does not get on is ended, with everything that carries its job in the environment, and its GPUs are looked at before they are leased again.
"""

import asyncio
import errno
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
from azaion_daemon.health import waiting_for
from azaion_daemon.logs import get_logger
from azaion_daemon.store.durable import storage_error
from azaion_daemon.training.gpus import Gpus, not_given_back
from azaion_daemon.training.interpreter import has_worker, worker_command, worker_environment
from azaion_daemon.training.jobs import Identity, JobDirectory, JobResult, Progress
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.processes import (
    EXIT_NO_SPACE,
    EXIT_TAKEN,
    JOB_VARIABLE,
    TOKEN_VARIABLE,
    end_marked,
    oom_kills,
    open_alive,
)
from azaion_daemon.training.stalls import Ceilings, Standstill, where

_LOG_TAIL_BYTES = 4096
_NO_SPACE_BYTES = 1 << 20
_GPU_LOOKS = 30
_log = get_logger(__name__)


@dataclass(frozen=True)
class _Worker:
    """A worker to wait for. `pidfd` is ours to close; `adopted` when it was not started just now: another process may be its parent."""

    pid: int
    pidfd: int
    token: str
    adopted: bool
    oom_kills: int  # before it could have been one of them


@dataclass(frozen=True)
class _End:
    """How a worker ended; both are None when only its parent could know. `idle_s`: it was ended for a standstill of so many seconds."""

    status: int | None = None
    signal: int | None = None
    idle_s: float | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was killed by {signal.Signals(self.signal).name}"
        return "ended" if self.status is None else f"ended with status {self.status}"


class WorkerPool:
    """Runs jobs in worker processes.

    Args:
        command: The worker without its argument, the job's directory. By default the real one, run by the interpreter that the job began
            with where that is still there, so that a job is resumed by the release that it was started with.
        environment: Where what workers inherit is taken from.
        progress_s: How often progress is looked at, in seconds.
        grace_s: How long a worker may take to die of SIGTERM before it gets SIGKILL, in seconds.
        patience_s: How long a job's lock may be held by nobody known before that is an error, in seconds.
        ceilings: How long a worker may live without getting on.
        gpus: Where the GPUs of a worker that was ended for a standstill are looked at; None leaves that out.
        gpu_patience_s: How long those GPUs may take to be free again before it is said that they are not, in seconds.
        oom_kills: How many processes the kernel has killed for want of memory.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
        progress_s: float = 1.0,
        grace_s: float = 5.0,
        patience_s: float = 20.0,
        ceilings: Ceilings = Ceilings(),  # noqa: B008 - frozen
        gpus: Gpus | None = None,
        gpu_patience_s: float = 60.0,
        oom_kills: Callable[[], int] = oom_kills,
    ) -> None:
        self._command = None if command is None else tuple(command)
        self._environment = worker_environment(environment)
        self._progress_s = progress_s
        self._grace_s = grace_s
        self._patience_s = patience_s
        self._ceilings = ceilings
        self._gpus = gpus
        self._gpu_patience_s = gpu_patience_s
        self._oom_kills = oom_kills
        self._unreaped: dict[Path, int] = {}
        """Our own workers that nobody waits for any more, by the directories of their jobs."""

    async def run(self, job: JobDirectory, on_progress: Callable[[Progress], None] = lambda _: None) -> JobResult:
        """Start a worker on the job, or find the one that has it, and return what it says when it has ended.

        A job that has a result is not run again: retire it first. Cancelling this call leaves the worker running.

        Raises:
            TrainingError: The directory cannot be understood, or its lock is held by a process that never says who it is.
        """
        taken_until = time.monotonic() + self._patience_s
        while (result := await asyncio.to_thread(job.read_result)) is None:
            worker = await self._adopt(job) or self._start(job, await self._command_for(job))
            end = await self._wait(worker, job, on_progress)
            if end.idle_s is not None:
                return await self._end_idle(worker, job, end)
            # Data loaders outlive a killed worker, and hold its locks and its GPU's memory.
            await asyncio.to_thread(end_marked, TOKEN_VARIABLE, worker.token, grace_s=0)
            _log.info("worker.ended", job=job.path.name, pid=worker.pid, status=end.status, signal=end.signal)
            if end.status != EXIT_TAKEN:
                return await asyncio.to_thread(self._result, job, worker, end)
            if time.monotonic() > taken_until:
                raise TrainingError(f"{job.lock} is locked by a process that is no worker. Find it with: fuser {job.lock}")
            await asyncio.sleep(0.1)  # until the one that has it has said who it is
        await self._clear_up(job)
        return result

    async def _clear_up(self, job: JobDirectory) -> None:
        """End what a worker whose end nobody saw has left: its children may hold its GPUs. The result stands whatever comes of that."""
        try:
            await self.cancel(job)
        except TrainingError as error:
            _log.warning("worker.stray", job=job.path.name, why=str(error))

    async def cancel(self, job: JobDirectory) -> None:
        """End the job's worker and everything it started, if there is any, and return when all of it is gone.

        Raises:
            TrainingError: A process cannot be killed.
        """

        def end() -> frozenset[int]:
            return end_marked(JOB_VARIABLE, str(job.path), grace_s=self._grace_s, also=job.read_identity())

        await asyncio.to_thread(end)
        self._reap_left(job)

    def _reap_left(self, job: JobDirectory) -> None:
        """Reap a worker that was ended while nobody waited for it: it would stay a zombie for as long as the daemon lives."""
        if (pid := self._unreaped.pop(job.path, None)) is not None:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    async def _adopt(self, job: JobDirectory) -> _Worker | None:
        def find() -> tuple[Identity, int | None] | None:
            identity = job.read_identity()
            return None if identity is None else (identity, open_alive(identity))

        match await asyncio.to_thread(find):
            case None:
                return None
            case identity, None:  # a dead one may have left children that hold its locks
                await asyncio.to_thread(end_marked, TOKEN_VARIABLE, identity.token, grace_s=0)
                self._reap_left(job)
                return None
            case identity, int(pidfd):
                _log.info("worker.adopted", job=job.path.name, pid=identity.pid, attempt=identity.attempt)
                return _Worker(identity.pid, pidfd, identity.token, adopted=True, oom_kills=self._oom_kills())

    async def _command_for(self, job: JobDirectory) -> tuple[str, ...]:
        """The worker of the release that the job began with; of this one where that is gone."""
        if self._command is not None:
            return self._command
        python = await asyncio.to_thread(job.read_interpreter)
        if not python or python == sys.executable:
            return worker_command()
        if await asyncio.to_thread(has_worker, python):
            return worker_command(python)
        _log.warning("worker.other_release", job=job.path.name, gone=python, instead=sys.executable)
        return worker_command()

    def _start(self, job: JobDirectory, command: tuple[str, ...]) -> _Worker:
        token = uuid.uuid4().hex
        killed = self._oom_kills()
        try:
            # On the loop itself: a cancellation between the start and the pidfd would lose the child. It takes a millisecond.
            pid = os.posix_spawn(
                command[0],
                [*command, str(job.path)],
                {**self._environment, JOB_VARIABLE: str(job.path), TOKEN_VARIABLE: token},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(job.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,  # a signal to the daemon's group or its terminal must not reach it
                setsigmask=(),
                setsigdef=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE),
            )
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise storage_error(error, "starting a worker") from error
            raise TrainingError(f"a worker cannot be started with {command[0]}: {error.strerror}") from error
        _log.info("worker.started", job=job.path.name, pid=pid)
        return _Worker(pid, os.pidfd_open(pid), token, adopted=False, oom_kills=killed)

    async def _wait(self, worker: _Worker, job: JobDirectory, on_progress: Callable[[Progress], None]) -> _End:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(worker.pidfd, ended.set)
        seen: Progress | None = None
        standstill = Standstill(self._ceilings)
        reaped = False
        try:
            while not ended.is_set():
                with suppress(TimeoutError), waiting_for(f"the training of job {job.path.name}, which is under way"):
                    async with asyncio.timeout(self._progress_s):
                        await ended.wait()
                progress = await asyncio.to_thread(_progress_of, worker, job)
                if progress is not None and progress != seen:
                    seen = progress
                    on_progress(progress)
                idle_s = standstill.look(progress, time.monotonic())
                if idle_s is not None and not ended.is_set():
                    return _End(idle_s=idle_s)
            end = _reap(worker.pidfd)
            reaped = True
            self._unreaped.pop(job.path, None)
            return end
        finally:
            if not reaped and not worker.adopted:
                self._unreaped[job.path] = worker.pid
            loop.remove_reader(worker.pidfd)
            os.close(worker.pidfd)

    async def _end_idle(self, worker: _Worker, job: JobDirectory, end: _End) -> JobResult:
        """End a worker that does not get on, and say what it left of its GPUs."""
        assert end.idle_s is not None
        progress = await asyncio.to_thread(_progress_of, worker, job)
        why = f"no progress for {_duration(end.idle_s)} {where(progress)}"
        _log.error("worker.hung", job=job.path.name, pid=worker.pid, why=why)

        def kill() -> frozenset[int]:
            identity = job.read_identity()
            also = identity if identity is not None and identity.token == worker.token else None
            return end_marked(JOB_VARIABLE, str(job.path), grace_s=0, also=also)

        pids = await asyncio.to_thread(kill)
        self._reap_left(job)
        result = await asyncio.to_thread(self._result, job, worker, end)
        if (left := await self._look_at_gpus(job, pids)) is None or result.outcome is Outcome.DONE:
            return result
        _log.error("worker.gpu_not_free", job=job.path.name, why=left)
        return result.model_copy(update={"reason": f"{result.reason} {left[0].upper()}{left[1:].rstrip('.')}."})

    async def _look_at_gpus(self, job: JobDirectory, ended: frozenset[int]) -> str | None:
        """What is wrong with the GPUs of a job whose processes were ended, once the driver has had its time."""
        if self._gpus is None or not (uuids := (await asyncio.to_thread(job.read_spec)).gpus):
            return None
        until = time.monotonic() + self._gpu_patience_s
        while True:
            left = not_given_back(await asyncio.to_thread(self._gpus.discover), uuids, ended)
            if left is None or time.monotonic() > until:
                return left
            await asyncio.sleep(self._gpu_patience_s / _GPU_LOOKS)

    def _result(self, job: JobDirectory, worker: _Worker, end: _End) -> JobResult:
        if (result := job.read_result()) is not None:
            return result
        progress, identity = _progress_of(worker, job), job.read_identity()
        outcome, counts = Outcome.INFRASTRUCTURE, True
        if end.idle_s is not None:
            reason = f"The worker made no progress for {_duration(end.idle_s)} {where(progress)}, and was ended."
            if (volume := os.statvfs(job.path)).f_bavail * volume.f_frsize < _NO_SPACE_BYTES:
                reason, counts = f"The disk is full: {reason}", False
        elif end.status == EXIT_NO_SPACE:
            reason, counts = f"The disk is full: the worker could not write its result, {where(progress)}. Free some space.", False
        elif end.status is None and end.signal in {None, signal.SIGKILL} and self._oom_kills() > worker.oom_kills:
            outcome = Outcome.OUT_OF_HOST_MEMORY
            reason = f"The worker {end} {where(progress)}, most likely for the machine's memory: lower training.workers."
        else:
            reason = f"The worker {end} {where(progress)}, without a result."
        return JobResult(
            outcome=outcome,
            reason=reason,
            log_tail=_tail(job.log),
            attempts=0 if identity is None else identity.attempt,
            counts=counts,
            finished=datetime.now(UTC),
        )


def _progress_of(worker: _Worker, job: JobDirectory) -> Progress | None:
    """How far this very worker is: what stands in the directory may be of one before."""
    identity, progress = job.read_identity(), job.read_progress()
    if identity is None or progress is None or identity.token != worker.token or identity.attempt != progress.attempt:
        return None
    return progress


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"  # noqa: PLR2004 - where minutes say more


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
