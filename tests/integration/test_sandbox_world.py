import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import numpy as np
import pytest
from dotenv import dotenv_values
from onnx import TensorProto, helper, numpy_helper

from azaion_daemon.sandbox import formulas
from azaion_daemon.sandbox.consumer import Model, judge
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.sandbox.scenes import CLASS_NAMES, Box, Scene, draw_scene
from azaion_daemon.sandbox.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as running:
        yield running


def test_shell_and_dotenv_read_the_environment_alike(world: World, tmp_path: Path) -> None:
    environment = world.environment()
    assert len(environment) == 20
    assert all(environment.values())
    file = tmp_path / ".env"
    file.write_text(world.dotenv())
    assert dotenv_values(file, interpolate=False) == environment
    assert dict(word.split("=", 1) for word in shlex.split(world.dotenv())) == environment


def test_the_root_has_its_classes(world: World) -> None:
    assert (Path(world.environment()["AZAION_ROOT_DIR"]) / "classes.json").is_file()


def publish(world: World, model: bytes) -> None:
    ciphertext = formulas.encrypt(model, world.model_key)
    cut = min(3072, len(ciphertext) // 5)
    world.platform.resources.write("models", "azaion.onnx.small", ciphertext[:cut])
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=world.store.region,
        endpoint_url=world.store.endpoint,
        aws_access_key_id=world.store.uploader.key,
        aws_secret_access_key=world.store.uploader.secret,
    )
    client.put_object(Bucket=world.store.bucket, Key="azaion.onnx.big", Body=ciphertext[cut:])
    client.close()


def test_a_consumer_joins_and_decrypts_what_was_published(world: World) -> None:
    model = os.urandom(100_000)
    publish(world, model)
    assert world.consumer().download() == model


def test_a_consumer_says_when_the_parts_do_not_belong_together(world: World) -> None:
    publish(world, os.urandom(50_001))
    world.platform.resources.write("models", "azaion.onnx.small", os.urandom(100))
    with pytest.raises(SandboxError, match="does not decrypt"):
        world.consumer().download()


def test_a_consumer_says_what_is_missing(world: World) -> None:
    world.platform.resources.path("models", "azaion.onnx.small").unlink(missing_ok=True)
    with pytest.raises(SandboxError, match=r"does not give azaion\.onnx\.small"):
        world.consumer().download()


SIDE = 64


def model_that_sees(boxes: list[Box], output: tuple[int, ...] = (2, 300, 6)) -> bytes:
    """An ONNX model that gives the same detections for every image, with the shapes and metadata of an exported detector."""
    rows = np.zeros(output, np.float32)
    for index, box in enumerate(boxes):
        rows[:, index] = [*(corner * SIDE for corner in box.corners()), 0.9, box.class_id]
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["peak"], keepdims=0),
        helper.make_node("Mul", ["peak", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["output0"]),
    ]
    constants = [numpy_helper.from_array(rows, "rows"), numpy_helper.from_array(np.float32(0), "zero")]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [2, 3, SIDE, SIDE])
    result = helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(output))
    graph = helper.make_graph(nodes, "detector", [images], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": str(dict(enumerate(CLASS_NAMES)))})
    content: bytes = model.SerializeToString()
    return content


def test_known_shapes_are_counted_by_class_and_overlap() -> None:
    scene = draw_scene(11, SIDE)
    right = scene.boxes[0]
    elsewhere = Box(right.class_id, 1 - right.cx, 1 - right.cy, 0.02, 0.02)
    other_class = Box((right.class_id + 1) % 3, right.cx, right.cy, right.width, right.height)
    scenes = [Scene(scene.image_jpeg, (right,))] * 3
    verdict = judge(Model(model_that_sees([right, elsewhere])), scenes)
    assert (verdict.known, verdict.found, verdict.false_alarms) == (3, 3, 3)
    assert verdict.input_shape == (2, 3, SIDE, SIDE)
    assert verdict.names[1] == "Truck"
    assert judge(Model(model_that_sees([other_class])), scenes).found == 0
    assert judge(Model(model_that_sees([right, right])), scenes).found == 3


def test_a_raw_output_is_not_what_consumers_read() -> None:
    with pytest.raises(SandboxError, match="nms=False"):
        Model(model_that_sees([], output=(2, 7, 100)))


def test_what_is_no_model_does_not_load() -> None:
    with pytest.raises(SandboxError, match="does not load"):
        Model(os.urandom(1000))
