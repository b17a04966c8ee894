"""What a model was made with: versions and hardware, for the result and the report."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import psutil

import azaion_daemon
from azaion_daemon.training.jobs import JobSpec
from azaion_daemon.training.nvml import NvmlGpus

_PACKAGES = ("torch", "ultralytics-opencv-headless", "onnx", "onnxruntime")
_GIB = 2**30


def versions(spec: JobSpec | None) -> dict[str, str]:
    """What another machine would need to come to the same model."""
    found = {"azaion-daemon": azaion_daemon.__version__, "python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        # A GPU server has onnxruntime-gpu in the place of onnxruntime. What is missing has been a failure already, and wants its result.
        version = _installed(package) or _installed(f"{package}-gpu") or "unknown"
        found[package.removesuffix("-opencv-headless")] = version
    if spec is not None and spec.gpus:
        gpus = NvmlGpus().discover()
        found |= {"driver": gpus.driver or "unknown", "gpus": ", ".join(gpu.name for gpu in gpus.gpus if gpu.uuid in spec.gpus)}
        if (torch := sys.modules.get("torch")) is not None:  # not for its version alone
            found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return found


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def hardware(spec: JobSpec) -> str:
    """What it was trained on, in a few words: the names of its GPUs, or of the CPU."""
    memory = f"{psutil.virtual_memory().total / _GIB:.0f} GiB of memory"
    host = f"{_processor()}, {os.cpu_count()} cores, {memory}"
    if not spec.gpus:
        return f"CPU: {host}"
    known = {gpu.uuid: f"{gpu.name} ({gpu.memory_total_bytes / _GIB:.0f} GiB)" for gpu in NvmlGpus().discover().gpus}
    return f"{', '.join(known.get(uuid, uuid) for uuid in spec.gpus)}; {host}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
