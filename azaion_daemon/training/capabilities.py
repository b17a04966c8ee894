"""What a worker could do here, asked of one: its libraries, and the GPUs that they see. A process of its own, since they are large."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from pydantic import BaseModel, ConfigDict, ValidationError

from azaion_daemon.errors import TrainingError
from azaion_daemon.training.interpreter import worker_environment

WORKER_S = 120.0
"""So long a worker may take to import everything, from a disk that is slow and busy."""
_MODULE = "azaion_daemon.training.worker.ability"
_LAST_WORDS = 300


class Capabilities(BaseModel):
    """What a worker says of itself. What cannot be imported has no version, and its error is among the `errors`."""

    model_config = ConfigDict(frozen=True)

    versions: dict[str, str]
    cuda: str | None = None
    """Of which CUDA torch is a build; None for one that only knows the CPU."""
    cuda_available: bool = False
    gpus: tuple[str, ...] = ()
    """The UUIDs of those that torch sees."""
    providers: tuple[str, ...] = ()
    """What ONNX Runtime can run on."""
    model_known: bool = False
    """Whether the library has an architecture of the name that was asked for."""
    errors: tuple[str, ...] = ()


async def ask_worker(python: str, model: str, environment: Mapping[str, str], *, longest_s: float = WORKER_S) -> Capabilities:
    """Ask a worker of the release that an interpreter belongs to, and which model it could train.

    Raises:
        TrainingError: It did not answer, or not in time.
    """
    with tempfile.TemporaryDirectory(prefix="azaion-doctor-") as home:
        try:
            process = await asyncio.create_subprocess_exec(
                *(python, "-P", "-m", _MODULE, model, home),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=home,
                env=worker_environment(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise TrainingError(f"{python} cannot be started: {error.strerror}. Install the daemon again") from error
        try:
            async with asyncio.timeout(longest_s):
                said, complained = await process.communicate()
        except TimeoutError:
            raise TrainingError(
                f"a worker did not answer within {longest_s:g} s. Look at the load of this machine and at nvidia-smi"
            ) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    try:
        return Capabilities.model_validate_json(said.strip().rpartition(b"\n")[2])
    except ValidationError:
        words = " ".join(complained.decode(errors="replace").split())[-_LAST_WORDS:]
        raise TrainingError(f"a worker ended with status {process.returncode}: {words}. Install requirements/server.txt again") from None
