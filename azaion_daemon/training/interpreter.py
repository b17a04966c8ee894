"""Which Python, and with it which release of the code, runs a job's worker.

A job runs and is resumed by the release that it began with. The interpreter's path is taken as it is: resolved, that of a virtual
environment would be the one that it was made with, without what is installed in it.
"""

import subprocess
import sys

from azaion_daemon.children import inherited

_MODULE = "azaion_daemon.training.worker"
_PROBE_S = 60.0


def worker_command(python: str = sys.executable) -> tuple[str, ...]:
    """The worker of the release that the interpreter belongs to, without its argument."""
    return (python, "-P", "-u", "-m", _MODULE)


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
