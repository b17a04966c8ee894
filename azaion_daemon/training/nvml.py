"""NVIDIA's management library: what each GPU says of itself. It works without CUDA and makes no context on any GPU."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from azaion_daemon.training.gpus import Discovery, Gpu, GpuProcess


class NvmlGpus:
    """GPUs as NVML sees them. `nvml` is the module `pynvml`, or what stands in for it."""

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml

    def discover(self) -> Discovery:
        """The GPUs as they are now; none on a machine without a driver. One that does not answer hides no other."""
        nvml = self._nvml
        if nvml is None:
            import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415 - most commands never ask for a GPU

            nvml = pynvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                return Discovery()  # no driver is installed: a machine without GPUs
            return Discovery(broken=f"the NVIDIA driver does not answer: {error}. Check it with nvidia-smi.")
        try:
            driver = str(nvml.nvmlSystemGetDriverVersion())
            count = int(nvml.nvmlDeviceGetCount())
        except nvml.NVMLError as error:
            return Discovery(broken=f"the NVIDIA driver does not answer: {error}. Check it with nvidia-smi.")
        else:
            return Discovery(tuple(_gpu(nvml, index) for index in range(count)), driver)
        finally:
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    uuid, name = f"unknown-{index}", "a GPU that does not answer"
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        processes = _told(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        utilisation = _told(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
        temperature = _told(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        errors = _told(nvml, nvml.nvmlDeviceGetTotalEccErrors, handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
        return Gpu(
            uuid=uuid,
            name=name,
            memory_total_bytes=int(memory.total),
            memory_free_bytes=int(memory.free),
            processes=tuple(_process(nvml, process) for process in processes),
            faults=_faults(nvml, handle, errors),
            index=index,
            utilisation_percent=None if utilisation is None else int(utilisation.gpu),
            temperature_celsius=None if temperature is None else int(temperature),
            memory_errors=None if errors is None else int(errors),
        )
    except nvml.NVMLError as error:
        return Gpu(uuid, name, 0, 0, faults=(f"it does not answer ({error}), as one that fell off the bus: look at dmesg",), index=index)


def _told(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """What the card says; None where it, or its driver, does not know the question or may not answer."""
    try:
        return ask(*arguments)
    except nvml.NVMLError as error:
        unknown = {nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION}
        if error.value in unknown:
            return None
        raise


def _faults(nvml: Any, handle: Any, errors: Any) -> tuple[str, ...]:
    """Why the GPU is not to be used."""
    found = []
    if errors:
        found.append(f"{errors} uncorrected memory errors since its last reset: reset it with nvidia-smi --gpu-reset")
    if (rows := _told(nvml, nvml.nvmlDeviceGetRemappedRows, handle)) is not None:
        _, _, pending, failed = rows
        if failed:
            found.append("its memory has rows that could not be remapped: it needs to be replaced")
        if pending:
            found.append("its memory has rows to be remapped: reset it with nvidia-smi --gpu-reset")
    if _told(nvml, nvml.nvmlDeviceGetRetiredPagesPendingStatus, handle) == nvml.NVML_FEATURE_ENABLED:
        found.append("its memory has pages to be retired: reset it with nvidia-smi --gpu-reset")
    if _told(nvml, nvml.nvmlDeviceGetComputeMode, handle) == nvml.NVML_COMPUTEMODE_PROHIBITED:
        found.append("its compute mode is PROHIBITED: allow it with nvidia-smi --compute-mode=0")
    mode = _told(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE:
        found.append("it is divided (MIG): end that with nvidia-smi --multi-instance-gpu=0")
    return tuple(found)


def _process(nvml: Any, process: Any) -> GpuProcess:
    """A process of another user, or of another container, may have no name here."""
    pid = int(process.pid)
    name: str | None = None
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    if name is None:
        with suppress(nvml.NVMLError):
            name = Path(str(nvml.nvmlSystemGetProcessName(pid)).split(" ", 1)[0]).name
    used = process.usedGpuMemory
    return GpuProcess(pid, name or None, None if used is None else int(used))
