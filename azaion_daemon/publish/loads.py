"""Load a model that comes on stdin with ONNX Runtime, as consumers do, and say its inputs' and outputs' shapes as JSON on stdout.

A process of its own, run as `python -m azaion_daemon.publish.loads`: the runtime takes memory that is not given back, and a damaged model
may end it.
"""

import json
import sys

import onnxruntime


def main() -> None:
    """Read, load, say."""
    model = sys.stdin.buffer.read()
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the runtime's errors have no public base
        document: dict[str, object] = {"error": " ".join(str(error).split())[:500]}
    else:
        document = {
            "inputs": [list(one.shape) for one in session.get_inputs()],
            "outputs": [list(one.shape) for one in session.get_outputs()],
        }
    print(json.dumps(document))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
