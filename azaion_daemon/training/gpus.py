"""Which GPUs there are, which are free, and which a job gets.

A lease is a flock on `{uuid}.lock`, held by the worker itself, so nothing stays leased by the dead. Here it is only looked at.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from azaion_daemon.store.durable import is_locked


@dataclass(frozen=True)
class Gpu:
    """One GPU. `processes` are the pids that compute on it, ours or not."""

    uuid: str
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    processes: tuple[int, ...] = ()


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


class NvmlGpus:
    """NVIDIA's management library; works without CUDA and makes no context on any GPU."""

    def discover(self) -> Discovery:
        """The GPUs as they are now; none on a machine without a driver."""
        import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415 - most commands never ask for a GPU

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                return Discovery()  # no driver is installed: a machine without GPUs
            return Discovery(broken=f"the NVIDIA driver does not answer: {error}. Check it with nvidia-smi.")
        try:
            driver = str(pynvml.nvmlSystemGetDriverVersion())
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            return Discovery(tuple(self._gpu(pynvml, handle) for handle in handles), driver)
        except pynvml.NVMLError as error:  # a GPU that fell off the bus fails here
            return Discovery(broken=f"a GPU does not answer: {error}. Check it with nvidia-smi.")
        finally:
            pynvml.nvmlShutdown()

    @staticmethod
    def _gpu(nvml: Any, handle: Any) -> Gpu:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return Gpu(
            uuid=str(nvml.nvmlDeviceGetUUID(handle)),
            name=str(nvml.nvmlDeviceGetName(handle)),
            memory_total_bytes=int(memory.total),
            memory_free_bytes=int(memory.free),
            processes=tuple(int(process.pid) for process in processes),
        )


def leased(locks: Path, uuids: Iterable[str]) -> frozenset[str]:
    """Those of the GPUs whose lease some worker holds now."""
    return frozenset(uuid for uuid in uuids if is_locked(locks / f"{uuid}.lock"))


@dataclass(frozen=True)
class Chosen:
    """What a job runs on; no GPU means the CPU."""

    uuids: tuple[str, ...]


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
) -> Chosen | Wait:
    """Decide which GPUs a job gets.

    Args:
        setting: `none`: the CPU. `auto`: the GPUs with the most free memory that nobody computes on; the CPU on a machine that has no GPU
            at all, but never because a driver is broken. UUIDs: only these, in this order, even where something else runs on them.
        found: What there is.
        busy: The leased ones.
        count: How many GPUs one job takes.
    """
    if setting == "none" or (setting == "auto" and not found.gpus and found.broken is None):
        return Chosen(())
    if found.broken is not None:
        return Wait(found.broken)
    if setting == "auto":
        free = [gpu for gpu in found.gpus if gpu.uuid not in busy and not gpu.processes]
        free.sort(key=lambda gpu: (-gpu.memory_free_bytes, gpu.uuid))
        usable = [gpu.uuid for gpu in free]
        why = f"{len(usable)} of {len(found.gpus)} GPUs are free, a job takes {count}"
    else:
        if missing := sorted(set(setting) - {gpu.uuid for gpu in found.gpus}):
            return Wait(f"training.gpus names what this machine does not have: {', '.join(missing)}")
        usable = [uuid for uuid in setting if uuid not in busy]
        why = f"{len(usable)} of the {len(setting)} GPUs in training.gpus are free, a job takes {count}"
    return Chosen(tuple(usable[:count])) if len(usable) >= count else Wait(why)
