"""Processes that are not ours to wait for: who they are, whether they live, how they are ended.

A worker outlives the daemon that started it, so the next one meets it as a stranger. It is told apart from a later process with the same
pid by its start time and the machine's boot, and its children (which may have sessions of their own) by a token in their environment.
"""

import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from azaion_daemon.errors import TrainingError
from azaion_daemon.training.jobs import Identity

EXIT_TAKEN = os.EX_TEMPFAIL  # a worker's status when another one has the job
EXIT_NO_SPACE = os.EX_CANTCREAT  # a worker's status when the disk is so full that it cannot even write its result
JOB_VARIABLE = "AZAION_JOB"  # the job's directory
TOKEN_VARIABLE = "AZAION_WORKER"  # noqa: S105 - names one start of a worker, opens nothing

_STAT_START = 19  # field 22 of /proc/PID/stat, counted behind the command's name
_KILL_S = 30.0  # how long the kernel may take to tear down a killed process: gigabytes of pinned memory take seconds


def boot_id() -> str:
    """Another one after each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None if there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may hold anything
    return None if fields[0] in {"Z", "X"} else int(fields[_STAT_START])


def own_identity(token: str, attempt: int) -> Identity:
    """The calling process."""
    pid = os.getpid()
    ticks = start_ticks(pid)
    assert ticks is not None
    return Identity(pid=pid, start_ticks=ticks, boot_id=boot_id(), token=token, attempt=attempt)


def open_alive(identity: Identity) -> int | None:
    """A pidfd of the process, which the caller closes, or None if it is gone."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # Compared after opening: from here on the descriptor cannot come to mean another process.
    if identity.boot_id == boot_id() and start_ticks(identity.pid) == identity.start_ticks:
        return descriptor
    os.close(descriptor)
    return None


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since the boot; 0 where it does not count them."""
    for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def end_marked(variable: str, value: str, *, grace_s: float, also: Identity | None = None) -> frozenset[int]:
    """End every process that carries the variable in its environment; returns their pids. Blocks until all are gone.

    They get SIGTERM, and SIGKILL after `grace_s` seconds. What they start meanwhile is ended too. `also` is for a worker that was started
    by hand, without the variable.

    Raises:
        TrainingError: One cannot be killed: it hangs in the kernel, most likely in the driver of its GPU.
    """
    ended: set[int] = set()
    term_until = time.monotonic() + grace_s
    while found := _open_all(variable, value, also):
        with ExitStack() as stack:
            for descriptor in found.values():
                stack.callback(os.close, descriptor)
            ended |= set(found)
            if left := _end(found, term_until):
                pids = ", ".join(str(pid) for pid in sorted(left))
                raise TrainingError(
                    f"process {pids} does not die of SIGKILL: it hangs in the kernel, most likely in the driver of its GPU (see dmesg). "
                    "Reset the GPU with nvidia-smi --gpu-reset, or restart the machine; then ask for the training again."
                )
    return frozenset(ended)


def _open_all(variable: str, value: str, also: Identity | None) -> dict[int, int]:
    entry = f"{variable}={value}".encode()
    found: dict[int, int] = {}
    if also is not None and (descriptor := open_alive(also)) is not None:
        found[also.pid] = descriptor
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208 - names are all that is needed
        if pid == os.getpid() or pid in found:
            continue
        with suppress(OSError), ExitStack() as stack:  # gone meanwhile, or another user's
            descriptor = os.pidfd_open(pid)
            stack.callback(os.close, descriptor)
            # Read after opening, so that it is this process's; that of a zombie is empty.
            if entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found[pid] = descriptor
                stack.pop_all()
    return found


def _end(found: dict[int, int], term_until: float) -> set[int]:
    waiting = select.poll()
    pids = {descriptor: pid for pid, descriptor in found.items()}
    for descriptor in pids:
        waiting.register(descriptor, select.POLLIN)
    for sent, until in ((signal.SIGTERM, term_until), (signal.SIGKILL, max(term_until, time.monotonic()) + _KILL_S)):
        for descriptor in pids:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, sent)
        while pids and (gone := waiting.poll(max(0.0, until - time.monotonic()) * 1000)):
            for descriptor, _ in gone:
                waiting.unregister(descriptor)
                del pids[descriptor]
    return set(pids.values())
