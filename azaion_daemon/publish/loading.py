"""Whether a model loads in ONNX Runtime, found out beside its download in a process of its own. No plaintext is put on a disk."""

import importlib.util
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from azaion_daemon.children import inherited

_LIMIT_S = 300


@dataclass(frozen=True)
class Loaded:
    """The shapes that a model has; a free axis has a name. `error` is what the runtime says of one that does not load."""

    inputs: tuple[tuple[int | str, ...], ...] = ()
    outputs: tuple[tuple[int | str, ...], ...] = ()
    error: str = ""


def can_load() -> bool:
    """Whether ONNX Runtime is installed; it is not imported for that."""
    return importlib.util.find_spec("onnxruntime") is not None


class Loading:
    """A process that takes a model in pieces. Blocking: for a thread."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "azaion_daemon.publish.probe_worker", str(_LIMIT_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=inherited(prefixes=["OMP_"]),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):  # what is left in the buffer
            self._process.communicate()

    def take(self, model: bytes) -> None:
        """The next piece. That the process has ended is seen at the end."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(model)

    def finish(self) -> Loaded:
        """What came of it, after the last piece."""
        try:
            answer, _ = self._process.communicate(timeout=_LIMIT_S)
            document: dict[str, Any] = json.loads(answer)
        except BrokenPipeError:
            return Loaded(error="the process that loads it has died")
        except subprocess.TimeoutExpired:
            return Loaded(error=f"it does not load within {_LIMIT_S} s")
        except ValueError:
            return Loaded(error=f"the process that loads it has died (status {self._process.returncode}); is there enough memory?")
        if "error" in document:
            return Loaded(error=document["error"])
        return Loaded(tuple(map(tuple, document["inputs"])), tuple(map(tuple, document["outputs"])))
