"""The third phase: the ONNX that consumers load, and the proof that it is what they expect."""

import ast
import shutil

import numpy as np
import onnx
import onnxruntime
from pydantic import JsonValue
from ultralytics import YOLO

from azaion_daemon.store.durable import replace_durably
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.worker.failures import PhaseError
from azaion_daemon.training.worker.progress import ProgressReport

# From 19 on ONNX Runtime's CUDA provider lacks kernels for some nodes and copies their tensors to the CPU and back.
_OPSET = 18
_MAX_DETECTIONS = 300
_DETECTION = 6  # x1, y1, x2, y2, confidence, class


def run(job: JobDirectory, spec: JobSpec, _report: ProgressReport) -> dict[str, JsonValue]:
    """Export `model.pt` to `model.onnx` and run it once; returns its shapes.

    On the CPU, so that the file does not depend on the GPU at hand.

    Raises:
        PhaseError: What came out is not what consumers read.
    """
    directory = job.run / "export"
    directory.mkdir(exist_ok=True)
    source = directory / "model.pt"
    shutil.copyfile(job.pt, source)  # the library writes beside what it exports
    model = YOLO(str(source))
    side = spec.export_imgsz
    model.export(
        format="onnx", imgsz=side, batch=spec.export_batch, nms=False, opset=_OPSET, dynamic=False, simplify=True, device="cpu",
    )  # fmt: skip
    content = source.with_suffix(".onnx").read_bytes()
    # A small image has fewer places for a detection than the most that are ever reported.
    anchors = sum((side // int(stride)) ** 2 for stride in model.model.stride)
    output = check(
        content,
        input_shape=(spec.export_batch, 3, side, side),
        output_shape=(spec.export_batch, min(_MAX_DETECTIONS, anchors), _DETECTION),
        names=spec.class_names,
    )
    replace_durably(job.onnx, content)
    return {"opset": _OPSET, "input": [spec.export_batch, 3, side, side], "output": list(output)}


def check(
    content: bytes,
    *,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    names: tuple[str, ...],
) -> tuple[int, ...]:
    """Run an exported model as a consumer does; returns the shape of its output.

    Raises:
        PhaseError: Shapes, class names or values are not what consumers expect.
    """
    onnx.checker.check_model(onnx.load_from_string(content))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    metadata = session.get_modelmeta().custom_metadata_map
    if [tuple(one.shape) for one in inputs] != [input_shape]:
        raise PhaseError(Outcome.BAD_JOB, f"The exported model takes {[one.shape for one in inputs]}, consumers give {list(input_shape)}.")
    found = {int(index): str(name) for index, name in ast.literal_eval(metadata.get("names", "{}")).items()}
    if found != dict(enumerate(names)):
        raise PhaseError(Outcome.BAD_JOB, "The class names in the exported model are not those of the dataset.")
    image = np.random.default_rng(0).random(input_shape, dtype=np.float32)
    results = session.run(None, {inputs[0].name: image})
    shapes = [tuple(result.shape) for result in results]
    if shapes != [output_shape] or [tuple(one.shape) for one in outputs] != [output_shape] or metadata.get("end2end") != "True":
        raise PhaseError(
            Outcome.BAD_JOB,
            f"The exported model gives {shapes}, consumers read {[output_shape]}: has training.model a head without NMS, as YOLO26 has?",
        )
    if not np.isfinite(results[0]).all():
        raise PhaseError(Outcome.DIVERGED, "The exported model gives numbers that are not finite.")
    return shapes[0]
