"""What a model was made with: versions and hardware, for the result and the report."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import psutil

from azaion_daemon.training.gpus import NvmlGpus
from azaion_daemon.training.jobs import JobSpec

_PACKAGES = ("torch", "ultralytics-opencv-headless", "onnx", "onnxruntime")
_GIB = 2**30


def versions(spec: JobSpec | None) -> dict[str, str]:
    """Of Python and the libraries; with GPUs, also of CUDA and the driver."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package.removesuffix("-opencv-headless")] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a GPU server has onnxruntime-gpu in the place of onnxruntime
            found[package] = metadata.version(f"{package}-gpu")
    if spec is not None and spec.gpus and (torch := sys.modules.get("torch")) is not None:
        found |= {"cuda": str(torch.version.cuda), "driver": NvmlGpus().discover().driver or "unknown"}
    return found


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
