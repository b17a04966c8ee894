"""The whole outside world on one machine, for the demo and the tests."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before anything imports ONNX Runtime, which would write an id into the user's home
