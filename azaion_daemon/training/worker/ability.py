"""`python -m azaion_daemon.training.worker.ability MODEL HOME`: says as JSON what a worker could do here, for `doctor`.

No tensor is put on a GPU: a training may be at work there.
"""

import io
import os
import sys
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

from azaion_daemon.training.capabilities import Capabilities
from azaion_daemon.training.worker.environment import offline

_LIBRARIES = ("torch", "torchvision", "ultralytics", "onnx", "onnxruntime")


def main(model: str, home: str) -> None:
    """Look, and print."""
    os.environ.update(offline(home))
    noise = io.StringIO()
    with redirect_stdout(noise), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = look(model)
    # Why there is no CUDA is told by a warning alone.
    cuda = tuple(str(one.message) for one in warned if "cuda" in str(one.message).lower())
    sys.stdout.write(found.model_copy(update={"errors": (*found.errors, *cuda)}).model_dump_json())


def look(model: str) -> Capabilities:
    """What there is; whatever is broken hides nothing else."""
    modules: dict[str, Any] = {}
    errors: list[str] = []
    for name in _LIBRARIES:
        try:
            modules[name] = import_module(name)
        except Exception as error:  # noqa: BLE001 - a library that is broken raises anything
            errors.append(f"{name} cannot be imported: {error}")
    torch, runtime = modules.get("torch"), modules.get("onnxruntime")
    available = torch is not None and torch.cuda.is_available()
    return Capabilities(
        versions={name: str(module.__version__) for name, module in modules.items()},
        cuda=None if torch is None else torch.version.cuda,
        cuda_available=available,
        gpus=_uuids(torch) if available else (),
        providers=() if runtime is None else tuple(runtime.get_available_providers()),
        model_known="ultralytics" in modules and _is_known(model),
        errors=tuple(errors),
    )


def _uuids(torch: Any) -> tuple[str, ...]:
    """As NVML names them."""
    return tuple(f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in range(torch.cuda.device_count()))


def _is_known(model: str) -> bool:
    """Whether the library comes with that architecture: `yolo26n.yaml` is the size n of its yolo26.yaml."""
    from ultralytics.nn.tasks import yaml_model_load  # noqa: PLC0415 - only where it can be imported

    try:
        return model.endswith(".yaml") and bool(yaml_model_load(model))
    except Exception:  # noqa: BLE001 - as above
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
