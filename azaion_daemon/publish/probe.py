"""Running what consumers get, beside the model that was meant: both must give the same on a fixed input, bit by bit."""

import asyncio
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from azaion_daemon.children import inherited
from azaion_daemon.errors import ReleaseError
from azaion_daemon.health import waiting_for

NOT_INSTALLED = "onnxruntime is not installed here"
IDENTICAL = "identical"
_LIMIT_S = 1800  # a large model on one slow core that a training shares
_GRACE_S = 30.0
_MOST_WORDS = 500


class ProbeError(ReleaseError):
    """The model does not run, or what consumers would get of it does something else."""


class Probe(Protocol):
    """Runs models."""

    @property
    def hindrance(self) -> str | None:
        """Why nothing can be run here; None when it can."""
        ...

    async def compare(self, model: Path, plaintext: Path) -> str:
        """What became of running both: `identical`, or why that could not be found out.

        Raises:
            ProbeError: They differ, or one does not run.
        """
        ...


@dataclass(frozen=True)
class OnnxProbe:
    """Runs models in ONNX Runtime, in a process of its own and at the lowest priority."""

    limit_s: int = _LIMIT_S
    module: str = "onnxruntime"

    @property
    def hindrance(self) -> str | None:
        """That the runtime is missing, where it is."""
        return None if importlib.util.find_spec(self.module) else NOT_INSTALLED

    async def compare(self, model: Path, plaintext: Path) -> str:
        """See `Probe`. A process that is killed, for its memory or its time, says nothing against the model."""
        arguments = ["-m", "azaion_daemon.publish.probe_worker", str(self.limit_s), str(os.getpid()), str(model), str(plaintext)]
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=inherited(prefixes=["OMP_"]),
        )
        try:
            with waiting_for("the process that tries the model"):
                async with asyncio.timeout(self.limit_s + _GRACE_S):
                    said, complained = await worker.communicate()
        except TimeoutError:
            return f"it took longer than {self.limit_s} s"
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
        try:
            outcome = json.loads(said)
        except ValueError:
            words = complained.decode(errors="replace").strip()[-_MOST_WORDS:]
            return f"the process ended with status {worker.returncode}: {words or 'it said nothing; it was killed for its memory or time'}"
        if outcome["outcome"] == IDENTICAL:
            return IDENTICAL
        raise ProbeError(f"{outcome['why']}. Look at the training that made it, and train again.")
