"""The machine: its clock, shared memory for data loaders, limits, and whether it starts the daemon again."""

import asyncio
import ctypes
import os
import resource
from pathlib import Path

from azaion_daemon.ops.doctor.findings import Area, Finding, Outcome, Subject
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.ops.wording import duration, size
from azaion_daemon.sections import TrainingSettings

_OFF_S, _WRONG_S = 5.0, 60.0
_TIMEX_BYTES = 512  # struct timex has 208
_UNSYNCHRONISED = 5  # TIME_ERROR
_SHM = Path("/dev/shm")  # noqa: S108 - it is the subject
_FILES = 1024
_PREFETCH = 2
_UNIT = "azaion-daemon.service"
_UNIT_PATHS = (Path("/etc/systemd/system"), Path("/usr/local/lib/systemd/system"), Path("/usr/lib/systemd/system"))


async def _clock(patient: Patient) -> Finding:
    return judge_clock(patient.clock_ahead_s, synchronised=_synchronised())


def _synchronised() -> bool | None:
    """Whether the kernel's clock follows a time server; None where that may not be asked."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # modes is 0: nothing is set
    return None if state < 0 else state != _UNSYNCHRONISED


def judge_clock(ahead_s: float | None, *, synchronised: bool | None) -> Finding:
    """Whether the clock is right enough, from how far it is ahead of the platform's."""
    following = {True: "it follows a time server", False: "it follows no time server", None: "whether it is synchronised is not known"}
    said, remedy = following[synchronised], "Have it set by a time server: timedatectl set-ntp true; see: timedatectl timesync-status"
    if ahead_s is None:
        detail = f"{said}; the platform does not say what time it is"
        return Finding(Outcome.UNCHECKED if synchronised else Outcome.WARNING, detail, "" if synchronised else remedy)
    off = f"the clock is {duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} the platform's"
    if abs(ahead_s) > _WRONG_S:
        return Finding(Outcome.BROKEN, f"{off}: signatures to the CDN will be refused, and times in the history are wrong", remedy)
    if abs(ahead_s) > _OFF_S:
        return Finding(Outcome.WARNING, f"{off}; {said}", remedy)
    if synchronised is False:
        return Finding(Outcome.WARNING, f"the clock agrees with the platform's, but {said} on this machine", remedy)
    return Finding.ok(f"the clock agrees with the platform's; {said}")


async def _shared_memory(patient: Patient) -> Finding:
    numbers = await asyncio.to_thread(os.statvfs, _SHM)
    return judge_shared_memory(numbers.f_bavail * numbers.f_frsize, patient.settings.training)


def judge_shared_memory(free: int, training: TrainingSettings) -> Finding:
    """Whether data loaders can hand their batches over: each prepares two, of one byte a pixel and colour."""
    batch = training.batch_size * 3 * training.imgsz**2
    wanted = batch * training.workers * _PREFETCH * training.max_parallel_jobs
    detail = f"{size(free)} of {_SHM} are free, {training.workers} loaders may take {size(wanted)}"
    if free < wanted:
        remedy = "Lower TRAINING_WORKERS, or enlarge it: mount -o remount,size=50% /dev/shm; in Docker --shm-size or --ipc=host"
        return Finding(Outcome.WARNING, detail, remedy)
    return Finding.ok(detail)


async def _open_files(_: Patient) -> Finding:
    return judge_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))


def judge_open_files(soft: int, hard: int) -> Finding:
    """Whether enough files may be open at a time."""
    if soft == resource.RLIM_INFINITY or soft >= _FILES:
        return Finding.ok(f"{'any number of' if soft == resource.RLIM_INFINITY else f'{soft:,}'} files may be open at a time here")
    remedy = f"ulimit -n {min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536}; for the unit LimitNOFILE="
    return Finding(Outcome.WARNING, f"only {soft:,} files may be open at a time here; loaders share memory by files", remedy)


async def _unit(_: Patient) -> Finding:
    return await asyncio.to_thread(_find_unit)


def _find_unit() -> Finding:
    if not Path("/run/systemd/system").is_dir():
        return Finding.ok("systemd does not run here; what starts the daemon again after a failure is your business")
    for directory in _UNIT_PATHS:
        if (directory / _UNIT).exists():
            started = (Path("/etc/systemd/system/multi-user.target.wants") / _UNIT).exists()
            if started:
                return Finding.ok(f"{directory / _UNIT} is installed, and started when the machine is")
            return Finding(
                Outcome.WARNING, f"{directory / _UNIT} is installed, but not started when the machine is", "systemctl enable azaion-daemon"
            )
    return Finding(Outcome.OK, f"{_UNIT} is not installed; fine before an installation", "How that is done: deploy/README.md")


SUBJECTS = (
    Subject("clock", _clock, after=("platform",), area=Area.MACHINE),
    Subject("shared memory", _shared_memory, area=Area.MACHINE),
    Subject("open files", _open_files, area=Area.MACHINE),
    Subject("systemd unit", _unit, area=Area.MACHINE),
)
