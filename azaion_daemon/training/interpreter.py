"""Which Python, and with it which release of the code, runs a job's worker.

A job runs and is resumed by the release that it began with. The interpreter's path is taken as it is: resolved, that of a virtual
environment would be the one that it was made with, without what is installed in it.
"""

import subprocess
import sys
from collections.abc import Mapping

from azaion_daemon.children import inherited

_INHERITED_PREFIXES = ("CUDA_", "NCCL_", "NVIDIA_", "OMP_", "PYTORCH_", "TORCH_")
_MODULE = "azaion_daemon.training.worker"
_PROBE_S = 60.0


def worker_command(python: str = sys.executable) -> tuple[str, ...]:
    """The worker of the release that the interpreter belongs to, without its argument."""
    return (python, "-P", "-u", "-m", _MODULE)


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a worker gets of the daemon's environment. Not where modules are looked for: a job may run with another release than ours."""
    return inherited(environment, prefixes=_INHERITED_PREFIXES, without={"PYTHONPATH"})


def has_worker(python: str) -> bool:
    """Whether an interpreter is there, and has a release with a worker. Blocking."""
    try:
        probe = subprocess.run(
            [python, "-P", "-c", f"import {_MODULE}"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_S,
            env=inherited(without={"PYTHONPATH"}),
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0
