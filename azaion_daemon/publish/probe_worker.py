"""Run a model and what consumers get of it on the same input: `python -m … MODEL PLAINTEXT LIMIT_S PARENT`.

A process of its own, since ONNX Runtime and a large model take more memory than a daemon should. It prints one JSON object, `{"outcome",
"why"}`, and ends by itself when its time is over or the process that started it dies.
"""

import ctypes
import hashlib
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

_SEED = 26
_FREE_SIDE = 64  # pixels, where the model takes any size
_SET_PDEATHSIG = 1  # prctl(2)


class Output(NamedTuple):
    """What a model gives, in so far as two of them can be compared."""

    name: str
    kind: str
    shape: tuple[int, ...]
    sha256: str


def run(model: Path) -> list[Output]:
    """Every output of a model on a fixed input. One thread, so that sums are added up in the same order."""
    import numpy as np  # noqa: PLC0415 - after the limits are set
    import onnxruntime  # noqa: PLC0415

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(_SEED)
    given = {entry.name: chance.random(_shape(entry.shape)).astype(_kind(entry.type)) for entry in session.get_inputs()}
    results: list[Any] = session.run(None, given)
    return [
        Output(entry.name, str(result.dtype), tuple(result.shape), hashlib.sha256(np.ascontiguousarray(result).tobytes()).hexdigest())
        for entry, result in zip(session.get_outputs(), results, strict=True)
    ]


def _shape(declared: list[Any]) -> list[int]:
    """One image, unless the model says how many, of a small size, unless it says which."""
    return [size if isinstance(size, int) and size > 0 else (1 if axis == 0 else _FREE_SIDE) for axis, size in enumerate(declared)]


def _kind(declared: str) -> str:
    """The numpy name of `tensor(float)` and the like."""
    name = declared.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def compare(model: Path, plaintext: Path) -> dict[str, str]:
    """Whether both load and give the same, bit by bit."""
    try:
        expected = run(model)
    except Exception as error:  # noqa: BLE001 - the runtime's own hierarchy has no common public base
        return {"outcome": "unusable", "why": f"ONNX Runtime does not run the model: {_first_line(error)}"}
    try:
        got = run(plaintext)
    except Exception as error:  # noqa: BLE001
        return {"outcome": "differs", "why": f"ONNX Runtime runs the model, but not what consumers get of it: {_first_line(error)}"}
    if got != expected:
        return {"outcome": "differs", "why": "the model gives other results than what consumers get of it"}
    return {"outcome": "identical", "why": ""}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


def _limit(seconds: int, parent: int) -> None:
    """Die by the kernel's hand when the time is over or the parent is gone; come last for the processor and first for lost memory."""
    signal.alarm(seconds)
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os.kill(os.getpid(), signal.SIGKILL)
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def main() -> None:
    """The command."""
    model, plaintext, limit_s, parent = sys.argv[1:]
    _limit(int(limit_s), int(parent))
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.stdout.write(json.dumps(compare(Path(model), Path(plaintext))) + "\n")


if __name__ == "__main__":
    main()
