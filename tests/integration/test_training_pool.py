"""Worker processes: started, adopted, awaited, ended. A stand-in speaks the worker's protocol with real locks, processes and signals."""

import asyncio
import fcntl
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from azaion_daemon.errors import TrainingError
from azaion_daemon.training.gpus import Discovery, Gpu
from azaion_daemon.training.jobs import Identity, JobDirectory, JobSpec, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.pool import WorkerPool
from azaion_daemon.training.processes import end_marked, open_alive, start_ticks
from azaion_daemon.training.stalls import Ceilings

# Takes the lock, says who it is, then does what the job's overrides tell; ends when `go` appears in the job's directory.
STAND_IN = """
import os, signal, subprocess, sys, time
from datetime import UTC, datetime
from pathlib import Path
from azaion_daemon.errors import RootError
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.training.jobs import JobDirectory, JobResult, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.processes import EXIT_TAKEN, TOKEN_VARIABLE, own_identity

job = JobDirectory(Path(sys.argv[1]))
told = job.read_spec().overrides
try:
    lock = exclusive_lock(job.lock, busy="taken")
    lock.__enter__()
except RootError:
    sys.exit(EXIT_TAKEN)
if job.read_result() is not None:
    sys.exit(0)
time.sleep(told.get("slow_start_s", 0))
earlier = job.read_identity()
attempt = earlier.attempt + 1 if earlier else 1
job.write_identity(own_identity(os.environ[TOKEN_VARIABLE], attempt))
print("environment", sorted(os.environ), flush=True)
if told.get("ignore_sigterm"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if told.get("child") == "forked" and os.fork() == 0:
    time.sleep(3600)
if told.get("child") == "own session":
    subprocess.Popen(["sleep", "3600"], start_new_session=True)
if told.get("child") == "deaf":
    subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 3600"], start_new_session=True)
if told.get("hangs") == "at once":
    (job.path / "ready").touch()
    time.sleep(3600)
for epoch in range(1, 10_000):
    now = datetime.now(UTC)
    place = {"epoch": epoch}
    if told.get("hangs") and epoch >= 3:  # the thread that writes lives on, the one that trains does not
        place = {"epoch": 3, "batch": 17, "batches": 40}
    job.write_progress(Progress(phase=Phase.TRAIN, **place, attempt=attempt, started=now, phase_started=now, updated=now))
    (job.path / "ready").touch()
    if (job.path / "go").exists():
        break
    time.sleep(0.02)
if "status" in told:
    print("what went wrong", flush=True)
    os._exit(told["status"])
job.write_result(JobResult(outcome=Outcome.DONE, attempts=attempt, finished=datetime.now(UTC)))
os._exit(0)  # a forked child is not waited for
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return (sys.executable, "-P", str(script))


@pytest.fixture
def pool(command: tuple[str, ...]) -> WorkerPool:
    return WorkerPool(command, progress_s=0.05, grace_s=0.5)


@pytest.fixture
async def make_job(tmp_path: Path, pool: WorkerPool) -> AsyncIterator[Callable[..., JobDirectory]]:
    jobs: list[JobDirectory] = []

    def make(**told: Any) -> JobDirectory:
        job = JobDirectory(tmp_path / "jobs" / f"job-{len(jobs)}")
        job.create(
            JobSpec(
                id=job.path.name,
                dataset_id="d",
                dataset_name="azaion-2026-01-02",
                data_yaml=tmp_path / "data.yaml",
                class_names=("car",),
                model="yolo26n.yaml",
                epochs=1,
                batch_size=1,
                imgsz=64,
                save_period=1,
                workers=0,
                overrides=told,
                export_imgsz=64,
                gpu_locks=tmp_path / "gpus",
            ),
        )
        jobs.append(job)
        return job

    yield make
    for job in jobs:
        await pool.cancel(job)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)


async def ready(job: JobDirectory) -> Identity:
    await until((job.path / "ready").exists)
    identity = job.read_identity()
    assert identity is not None
    return identity


def lives(identity: Identity) -> bool:
    if (descriptor := open_alive(identity)) is None:
        return False
    os.close(descriptor)
    return True


def is_locked(job: JobDirectory) -> bool:
    with job.lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def leave(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_worker_runs_to_its_result_and_its_progress_is_followed(pool: WorkerPool, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job()
    seen: list[Progress] = []
    task = asyncio.create_task(pool.run(job, seen.append))
    await until(lambda: len(seen) > 3)
    (job.path / "go").touch()
    result = await task
    assert result.outcome is Outcome.DONE
    assert [progress.epoch for progress in seen] == sorted({progress.epoch for progress in seen})
    assert {progress.phase for progress in seen} == {Phase.TRAIN}


async def test_a_job_with_a_result_is_run_again_only_when_it_is_retired(pool: WorkerPool, make_job: Callable[..., JobDirectory]) -> None:
    job = make_job()
    (job.path / "go").touch()
    first = await pool.run(job)
    assert await pool.run(job) == first
    job.retire_result()
    assert (await pool.run(job)).attempts == 2


async def test_leaving_the_wait_leaves_the_worker_and_another_pool_adopts_it(
    command: tuple[str, ...], pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job()
    task = asyncio.create_task(pool.run(job))
    identity = await ready(job)
    await leave(task)
    assert lives(identity)
    seen: list[Progress] = []
    adopting = asyncio.create_task(WorkerPool(command, progress_s=0.05).run(job, seen.append))
    await until(lambda: bool(seen))
    assert job.read_identity() == identity
    (job.path / "go").touch()
    result = await adopting
    assert (result.outcome, result.attempts) == (Outcome.DONE, 1)


ANOTHER_DAEMON = """
import asyncio, sys
from pathlib import Path
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.pool import WorkerPool
asyncio.run(WorkerPool(sys.argv[2:]).run(JobDirectory(Path(sys.argv[1]))))
"""


@pytest.mark.parametrize("end", ["result", "kill"])
async def test_the_worker_of_a_daemon_that_was_killed_is_adopted(
    command: tuple[str, ...], pool: WorkerPool, make_job: Callable[..., JobDirectory], end: str
) -> None:
    job = make_job()
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", ANOTHER_DAEMON, str(job.path), *command)
    identity = await ready(job)
    daemon.kill()
    await daemon.wait()
    seen: list[Progress] = []
    task = asyncio.create_task(pool.run(job, seen.append))
    await until(lambda: bool(seen))
    if end == "result":
        (job.path / "go").touch()
        assert (await task).outcome is Outcome.DONE
    else:
        os.kill(identity.pid, signal.SIGKILL)
        result = await task
        assert result.outcome is Outcome.INFRASTRUCTURE
        assert result.reason.startswith("The worker ended in phase train, epoch ")


@pytest.mark.parametrize("start_s", [0, 0.5])
async def test_two_daemons_never_have_two_workers_on_one_job(
    command: tuple[str, ...], pool: WorkerPool, make_job: Callable[..., JobDirectory], start_s: float
) -> None:
    job = make_job(slow_start_s=start_s)
    tasks = [asyncio.create_task(one.run(job)) for one in (pool, WorkerPool(command), WorkerPool(command))]
    identity = await ready(job)
    assert lives(identity)
    (job.path / "go").touch()
    results = await asyncio.gather(*tasks)
    assert {result.attempts for result in results} == {1}
    assert job.read_identity() == identity


async def test_a_worker_that_is_killed_before_its_first_line_is_seen(make_job: Callable[..., JobDirectory]) -> None:
    result = await WorkerPool(("/bin/sh", "-c", "kill -9 $$")).run(make_job())
    assert result.outcome is Outcome.INFRASTRUCTURE
    assert result.reason == "The worker was killed by SIGKILL before it said anything, without a result."


async def test_a_worker_that_leaves_without_a_result_is_reported_with_its_last_lines(
    pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job(status=3)
    (job.path / "go").touch()
    result = await pool.run(job)
    assert result.outcome is Outcome.INFRASTRUCTURE
    assert result.reason == "The worker ended with status 3 in phase train, epoch 1, without a result."
    assert result.log_tail.endswith("what went wrong\n")
    assert job.read_result() is None  # the next attempt goes on from the checkpoint


@pytest.mark.parametrize("told", [{}, {"ignore_sigterm": True}, {"child": "forked"}, {"child": "own session"}], ids=str)
async def test_cancelling_ends_the_worker_and_all_that_it_started(
    pool: WorkerPool, make_job: Callable[..., JobDirectory], told: dict[str, Any]
) -> None:
    job = make_job(**told)
    task = asyncio.create_task(pool.run(job))
    identity = await ready(job)
    await pool.cancel(job)
    assert not lives(identity)
    assert not is_locked(job)
    assert carriers(job) == []
    expected = "SIGKILL" if told.get("ignore_sigterm") else "SIGTERM"
    assert (await task).reason.startswith(f"The worker was killed by {expected} in phase train")


async def test_a_worker_that_is_ended_while_nobody_waits_for_it_stays_no_zombie(
    pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job()
    for _ in range(2):  # the second time it is adopted
        task = asyncio.create_task(pool.run(job))
        identity = await ready(job)
        await leave(task)
    await pool.cancel(job)
    assert not psutil.pid_exists(identity.pid)


QUICK = Ceilings(start_s=30, first_batch_s=2.5, train_s=2.5)


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"hangs": "in training"}, "in phase train, epoch 3, batch 17 of 40"),
        ({"hangs": "in training", "child": "deaf", "ignore_sigterm": True}, "in phase train, epoch 3, batch 17 of 40"),
        ({"hangs": "at once"}, "before it said anything"),
    ],
    ids=["in a batch", "with a child in its own session that ignores SIGTERM", "before its first word"],
)
async def test_a_worker_that_does_not_get_on_is_ended_with_all_that_it_started(
    command: tuple[str, ...], make_job: Callable[..., JobDirectory], told: dict[str, Any], where: str
) -> None:
    job = make_job(**told)
    ceilings = replace(QUICK, start_s=2) if told["hangs"] == "at once" else QUICK
    result = await WorkerPool(command, progress_s=0.05, ceilings=ceilings).run(job)
    assert (result.outcome, result.counts) == (Outcome.INFRASTRUCTURE, True)
    assert re.fullmatch(rf"The worker made no progress for \d s {where}, and was ended\.", result.reason), result.reason
    assert carriers(job) == []
    assert not is_locked(job)


async def test_a_worker_that_was_stopped_has_come_to_a_standstill(command: tuple[str, ...], make_job: Callable[..., JobDirectory]) -> None:
    job = make_job()
    task = asyncio.create_task(WorkerPool(command, progress_s=0.05, ceilings=QUICK).run(job))
    identity = await ready(job)
    os.kill(identity.pid, signal.SIGSTOP)
    assert "made no progress" in (await task).reason
    assert not lives(identity)


async def test_a_worker_that_gets_on_is_not_ended_and_after_an_adoption_the_clock_begins_anew(
    command: tuple[str, ...], make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job()
    first = asyncio.create_task(WorkerPool(command, progress_s=0.05, ceilings=QUICK).run(job))
    identity = await ready(job)
    await asyncio.sleep(2 * QUICK.train_s)
    assert not first.done()
    os.kill(identity.pid, signal.SIGSTOP)
    await asyncio.sleep(0.5 * QUICK.train_s)
    await leave(first)
    second = asyncio.create_task(WorkerPool(command, progress_s=0.05, ceilings=QUICK).run(job))
    await asyncio.sleep(0.7 * QUICK.train_s)
    assert not second.done()
    os.kill(identity.pid, signal.SIGCONT)
    (job.path / "go").touch()
    assert (await second).outcome is Outcome.DONE


class AfterTheKill:
    """The double of GPUs: one that gives its memory back at the third look, or never."""

    def __init__(self, *, looks: int) -> None:
        self._looks = looks

    def discover(self) -> Discovery:
        self._looks -= 1
        free = 80 << 30 if self._looks < 0 else 30 << 30
        return Discovery((Gpu("GPU-1", "a GPU", 80 << 30, free),), driver="1")


@pytest.mark.parametrize(("looks", "ending"), [(2, "was ended."), (1000, "or restart the machine.")], ids=["given back", "kept"])
async def test_the_gpu_of_a_worker_that_was_ended_is_looked_at(
    command: tuple[str, ...], make_job: Callable[..., JobDirectory], looks: int, ending: str
) -> None:
    job = make_job(hangs="in training")
    job.create(job.read_spec().model_copy(update={"gpus": ("GPU-1",)}))
    pool = WorkerPool(command, progress_s=0.05, ceilings=QUICK, gpus=AfterTheKill(looks=looks), gpu_patience_s=1)
    result = await pool.run(job)
    assert result.reason.endswith(ending)
    assert ("GPU 0 has 53.7 GB in use by nobody" in result.reason) is (looks > 2)


async def test_a_worker_that_the_kernel_killed_for_memory_is_told_from_one_that_somebody_killed(
    command: tuple[str, ...], make_job: Callable[..., JobDirectory]
) -> None:
    kills = 7
    pool = WorkerPool(command, progress_s=0.05, oom_kills=lambda: kills)
    for killed, by, expected in (
        (0, signal.SIGKILL, Outcome.INFRASTRUCTURE),
        (1, signal.SIGKILL, Outcome.OUT_OF_HOST_MEMORY),
        (1, signal.SIGSEGV, Outcome.INFRASTRUCTURE),  # the kernel has killed another one, some day
    ):
        job = make_job()
        task = asyncio.create_task(pool.run(job))
        identity = await ready(job)
        kills += killed
        os.kill(identity.pid, by)
        assert (await task).outcome is expected


async def test_after_a_boot_the_job_goes_on_and_a_process_that_has_its_pid_is_left_alone(
    pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job()
    stranger = await asyncio.create_subprocess_exec("sleep", "3600")
    ticks = start_ticks(stranger.pid)
    assert ticks is not None
    before = Identity(pid=stranger.pid, start_ticks=ticks, boot_id="another boot", token="t", attempt=3)
    job.write_identity(before)
    now = datetime.now(UTC)
    job.write_progress(Progress(phase=Phase.TRAIN, epoch=9, attempt=3, started=now, phase_started=now, updated=now))
    seen: list[Progress] = []
    task = asyncio.create_task(pool.run(job, seen.append))
    await until(lambda: bool(seen))
    (job.path / "go").touch()
    assert (await task).attempts == 4
    assert {progress.attempt for progress in seen} == {4}  # what the one before had said is not taken for news
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_a_worker_that_dies_before_its_first_word_is_not_where_the_one_before_was(
    pool: WorkerPool, command: tuple[str, ...], make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job()
    task = asyncio.create_task(pool.run(job))
    os.kill((await ready(job)).pid, signal.SIGKILL)
    assert "in phase train, epoch " in (await task).reason
    again = await WorkerPool(("/bin/sh", "-c", "kill -9 $$")).run(job)
    assert again.reason == "The worker was killed by SIGKILL before it said anything, without a result."


@pytest.mark.parametrize("release", ["there", "gone", "without a worker"])
async def test_a_job_goes_on_with_the_release_that_it_began_with_where_that_is_still_there(
    tmp_path: Path, make_job: Callable[..., JobDirectory], capsys: pytest.CaptureFixture[str], release: str
) -> None:
    """Another interpreter: a link of its own, as that of a virtual environment is."""
    other = tmp_path / "release" / "python"
    other.parent.mkdir()
    if release == "there":
        other.write_text(
            f'#!/bin/sh\n[ "$2" = -c ] && exit 0\necho "the other release: $*"; exec {sys.executable} -c "raise SystemExit(9)"\n'
        )
        other.chmod(0o755)
    elif release == "without a worker":
        other.symlink_to("/bin/false")
    job = make_job()
    spec = job.read_spec().model_copy(update={"python": str(other), "data_yaml": tmp_path / "nothing.yaml", "model": "/nowhere.pt"})
    job.create(spec)
    result = await WorkerPool(progress_s=0.1).run(job)
    if release == "there":
        assert f"the other release: -P -u -m azaion_daemon.training.worker {job.path}" in job.log.read_text()
        assert "ended with status 9" in result.reason
    else:
        assert result.outcome is Outcome.BAD_JOB  # said by the worker of this release
    assert ("worker.other_release" in capsys.readouterr().out) is (release != "there")


def carriers(job: JobDirectory) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"AZAION_JOB={job.path}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append(directory.name)
    return found


async def test_cancelling_a_job_that_nobody_works_on_does_nothing(pool: WorkerPool, make_job: Callable[..., JobDirectory]) -> None:
    await pool.cancel(make_job())


@pytest.mark.parametrize("child", ["forked", "own session"])
async def test_what_a_killed_worker_leaves_behind_is_ended_before_the_next_start(
    command: tuple[str, ...], pool: WorkerPool, make_job: Callable[..., JobDirectory], child: str
) -> None:
    job = make_job(child=child)
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", ANOTHER_DAEMON, str(job.path), *command)
    identity = await ready(job)
    daemon.kill()
    await daemon.wait()
    os.kill(identity.pid, signal.SIGKILL)
    await until(lambda: not lives(identity))
    assert is_locked(job) == (child == "forked")
    (job.path / "go").touch()
    assert (await pool.run(job)).attempts == 2
    assert carriers(job) == []


async def test_what_a_worker_with_a_result_has_left_is_ended_by_whoever_takes_the_result(
    command: tuple[str, ...], pool: WorkerPool, make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job(child="own session")
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", ANOTHER_DAEMON, str(job.path), *command)
    identity = await ready(job)
    daemon.kill()
    await daemon.wait()
    (job.path / "go").touch()
    await until(lambda: not lives(identity))
    assert len(carriers(job)) == 1
    assert (await pool.run(job)).attempts == 1
    assert carriers(job) == []


async def test_a_lock_that_no_worker_holds_is_an_error_with_a_way_out(
    command: tuple[str, ...], make_job: Callable[..., JobDirectory]
) -> None:
    job = make_job()
    with job.lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="fuser"):
            await WorkerPool(command, patience_s=0).run(job)


async def test_the_daemons_secrets_stay_with_the_daemon(command: tuple[str, ...], make_job: Callable[..., JobDirectory]) -> None:
    job = make_job()
    (job.path / "go").touch()
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "AZAION_API_PASSWORD": "p", "AWS_SECRET_ACCESS_KEY": "s"}
    await WorkerPool(command, environment=environment).run(job)
    assert "environment ['AZAION_JOB', 'AZAION_WORKER', 'LC_ALL', 'PATH']" in job.log.read_text()


def test_looking_for_processes_keeps_no_descriptors() -> None:
    """Those of other users cannot be read."""
    end_marked("AZAION_NOBODY_HAS_THIS", "x", grace_s=0)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    end_marked("AZAION_NOBODY_HAS_THIS", "x", grace_s=0)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
