"""ONNX Runtime in a process of its own: it takes memory that is not given back, and a damaged model may end it.

`python -m … LIMIT_S PARENT MODEL PLAINTEXT` runs a model and what consumers get of it on the same input, prints `{"outcome", "why"}`, and
ends by itself when its time is over or the process that started it dies. `python -m … LIMIT_S` loads a model that comes on stdin and prints
`{"inputs", "outputs"}`, the shapes that it has, or `{"error"}`.
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


def _session(model: str | bytes) -> Any:
    """A model, by its file or its bytes, ready to run. One thread, so that sums are added up in the same order."""
    import onnxruntime  # noqa: PLC0415 - after the limits are set

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: Path) -> list[Output]:
    """Every output of a model on a fixed input."""
    import numpy as np  # noqa: PLC0415 - after the limits are set

    session = _session(str(model))
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


def load(model: bytes) -> dict[str, Any]:
    """Whether a model loads, and its shapes."""
    try:
        session = _session(model)
    except Exception as error:  # noqa: BLE001 - as above
        return {"error": " ".join(str(error).split())[:500]}
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return {"inputs": [list(one.shape) for one in inputs], "outputs": [list(one.shape) for one in outputs]}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


def _be_modest() -> None:
    """Come last for the processor and first for lost memory."""
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """The command."""
    limit_s, *rest = sys.argv[1:]
    _be_modest()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if rest:
        parent, model, plaintext = rest
        signal.alarm(int(limit_s))
        _die_with(int(parent))
        answer: dict[str, Any] = compare(Path(model), Path(plaintext))
    else:
        model_bytes = sys.stdin.buffer.read()  # as long as its download takes; it ends with the one who starts this
        signal.alarm(int(limit_s))
        answer = load(model_bytes)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
