"""Which GPUs there are, which are free, and which a job gets.

A lease is a flock on `{name}.lock`, held by the worker itself, so nothing stays leased by the dead. Here it is only looked at. Its name is
a GPU's UUID; a machine without GPUs has slots `cpu-0`, `cpu-1` ... in their place.
"""

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from azaion_daemon.store.durable import is_locked

_GB = 1e9
_NAMED = 3  # so many processes of a GPU are named in a sentence


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that computes on a GPU, ours or not; what cannot be read is None."""

    pid: int
    name: str | None = None
    memory_bytes: int | None = None

    def __str__(self) -> str:
        details = [self.name or "name unknown"]
        if self.memory_bytes is not None:
            details.append(f"{self.memory_bytes / _GB:.1f} GB")
        return f"process {self.pid} ({', '.join(details)})"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as it is now. What the card does not tell is None. `faults` are sentences: with any, it is not to be used."""

    uuid: str
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    processes: tuple[GpuProcess, ...] = ()
    faults: tuple[str, ...] = ()
    index: int = 0
    utilisation_percent: int | None = None
    temperature_celsius: int | None = None
    memory_errors: int | None = None
    """Uncorrected ones (ECC) since its last reset."""


@dataclass(frozen=True)
class Discovery:
    """What was found. `broken` says why GPUs that should be there cannot be seen; None where there are none or all is well."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    broken: str | None = None


class Gpus(Protocol):
    """Where GPUs are discovered. It may block: call it off the event loop."""

    def discover(self) -> Discovery:
        """The GPUs as they are now."""
        ...


class PatientGpus:
    """The GPUs as another finds them, but for so long only: a driver may hang for good, and with it whoever asks.

    Each look has a thread of its own, which ends with the process. Until one that hangs has come back there is no other.
    """

    def __init__(self, gpus: Gpus, patience_s: float = 20.0) -> None:
        self._gpus = gpus
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._looking: Future[Discovery] | None = None

    def discover(self) -> Discovery:
        """The GPUs as they are now. What is still looked at is waited for."""
        with self._lock:
            looking = self._looking
            if looking is None or looking.done():
                looking = self._looking = Future()
                threading.Thread(target=self._look, args=(looking,), name="nvml", daemon=True).start()
        try:
            return looking.result(self._patience_s)
        except TimeoutError:
            return Discovery(broken="the NVIDIA driver does not answer: look at nvidia-smi and the kernel's log")

    def _look(self, looking: "Future[Discovery]") -> None:
        try:
            looking.set_result(self._gpus.discover())
        except Exception as error:  # noqa: BLE001 - for whoever waits
            looking.set_exception(error)


def lease_names(found: Discovery, cpu_slots: int = 1) -> tuple[str, ...]:
    """Everything that may be leased here."""
    return (*(gpu.uuid for gpu in found.gpus), *(f"cpu-{number}" for number in range(cpu_slots)))


def leased(locks: Path, names: Iterable[str]) -> frozenset[str]:
    """Those whose lease some worker holds now."""
    return frozenset(name for name in names if is_locked(locks / f"{name}.lock"))


@dataclass(frozen=True)
class Chosen:
    """What a job runs on; no GPU means the CPU. `leases` are what its worker has to hold meanwhile."""

    uuids: tuple[str, ...]
    leases: tuple[str, ...]


@dataclass(frozen=True)
class Wait:
    """Why no job can start now."""

    reason: str


def choose(
    setting: Literal["auto", "none"] | tuple[str, ...],
    found: Discovery,
    busy: frozenset[str],
    *,
    count: int = 1,
    avoid: Iterable[str] = (),
    cpu_slots: int = 1,
) -> Chosen | Wait:
    """Decide which GPUs a job gets. One that has a fault, or on which somebody computes, is never among them.

    Args:
        setting: `none`: the CPU. `auto`: the GPUs with the most free memory; the CPU on a machine that has no GPU at all, but never because
            a driver is broken. UUIDs: only these, in this order.
        found: What there is.
        busy: Those of `lease_names` that are leased.
        count: How many GPUs one job takes.
        avoid: GPUs that are taken only where there are no others.
        cpu_slots: How many jobs may run on the CPU at a time.
    """
    if setting == "none" or (setting == "auto" and not found.gpus and found.broken is None):
        return _cpu(busy, cpu_slots)
    if found.broken is not None:
        return Wait(found.broken)
    if setting == "auto":
        candidates = sorted(found.gpus, key=lambda gpu: (-gpu.memory_free_bytes, gpu.uuid))
        which = f"{len(found.gpus)} GPUs"
    else:
        if missing := sorted(set(setting) - {gpu.uuid for gpu in found.gpus}):
            return Wait(f"training.gpus names what this machine does not have: {', '.join(missing)}")
        by_uuid = {gpu.uuid: gpu for gpu in found.gpus}
        candidates = [by_uuid[uuid] for uuid in dict.fromkeys(setting)]
        which = f"the {len(candidates)} GPUs in training.gpus"
    obstacles = {gpu.uuid: _obstacle(gpu, busy) for gpu in candidates}
    avoided = frozenset(avoid)
    usable = sorted((gpu.uuid for gpu in candidates if obstacles[gpu.uuid] is None), key=lambda uuid: uuid in avoided)
    if len(usable) >= count:
        return Chosen(tuple(usable[:count]), tuple(usable[:count]))
    why = [f"GPU {gpu.index} {obstacle}" for gpu in sorted(candidates, key=lambda gpu: gpu.index) if (obstacle := obstacles[gpu.uuid])]
    return Wait("; ".join([f"{len(usable)} of {which} are free, a job takes {count}", *why]))


def _cpu(busy: frozenset[str], slots: int) -> Chosen | Wait:
    free = [slot for slot in lease_names(Discovery(), slots) if slot not in busy]
    return Chosen((), (free[0],)) if free else Wait(f"{slots} trainings run on the CPU, and no more may (training.max_parallel_jobs)")


def _obstacle(gpu: Gpu, busy: frozenset[str]) -> str | None:
    """Why a GPU cannot be taken, as the rest of a sentence. The processes of a worker that holds the lease are no news."""
    if gpu.faults:
        return f"is not used: {', '.join(gpu.faults)}"
    if gpu.uuid in busy:
        return "is leased by a training"
    if gpu.processes:
        named = [str(process) for process in gpu.processes[:_NAMED]]
        more = len(gpu.processes) - len(named)
        return f"is used by {', '.join(named)}{f' and {more} more' if more else ''}"
    return None


def not_given_back(found: Discovery, uuids: Iterable[str], ended: frozenset[int]) -> str | None:
    """What still holds the GPUs of a job after all its processes are gone, as a sentence; None when they are as free as they can be.

    Args:
        found: The GPUs as they are now.
        uuids: Those of the job.
        ended: The pids of its processes.
    """
    if found.broken is not None:
        return found.broken
    wanted = frozenset(uuids)
    for gpu in (one for one in found.gpus if one.uuid in wanted):
        if gpu.faults:
            return f"GPU {gpu.index} is not to be used: {', '.join(gpu.faults)}"
        if held := [process for process in gpu.processes if process.pid in ended]:
            return f"GPU {gpu.index} still has {held[0]}, which is dead; reset it with nvidia-smi --gpu-reset, or restart the machine"
        used = gpu.memory_total_bytes - gpu.memory_free_bytes
        if not gpu.processes and used > max(2 * _GB, gpu.memory_total_bytes / 10):
            return f"GPU {gpu.index} has {used / _GB:.1f} GB in use by nobody; reset it with nvidia-smi --gpu-reset, or restart the machine"
    return None
