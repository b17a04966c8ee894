"""The padded plaintext: still the same model, and no mix of parts damages it."""

import hashlib
import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pydantic import SecretBytes, SecretStr

from azaion_daemon.errors import ReleaseError
from azaion_daemon.publish.cipher import decrypt
from azaion_daemon.publish.keys import aes_key
from azaion_daemon.publish.packing import PADDING, SMALL_BYTES, BigPart, ModelGoneError, model_digests, padding, small_part, split_size

KEY = aes_key(SecretStr("a model key"))


def model(seed: int, width: int, doc_string: str | None = None) -> bytes:
    """A real ONNX model: one matrix product with weights of its own."""
    weights = np.random.default_rng(seed).standard_normal((width, width)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["images", "weights"], ["output0"])],
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor("weights", TensorProto.FLOAT, [width, width], weights.tobytes(), raw=True)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if doc_string is not None:
        made.doc_string = doc_string
    helper.set_model_props(made, {"names": "{0: 'person'}"})
    content: bytes = made.SerializeToString()
    return content


def run(content: bytes, width: int) -> "np.typing.NDArray[np.float32]":
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(5).standard_normal((4, width)).astype(np.float32)
    result: np.typing.NDArray[np.float32] = session.run(None, {"images": images})[0]
    return result


def parts(path: Path, content: bytes, key: SecretBytes = KEY) -> tuple[bytes, bytes]:
    path.write_bytes(content)
    small = small_part(key)
    with BigPart(path, key, small) as big:
        rest = big.readall()
        assert rest is not None
        assert big.size == len(rest)
    return small, rest


def test_padding_is_the_doc_string_of_a_model() -> None:
    empty = onnx.ModelProto.FromString(PADDING)
    assert empty.doc_string == " " * 4096
    assert [field.name for field, _ in empty.ListFields()] == ["doc_string"]


@pytest.mark.parametrize("doc_string", [None, "made by a trainer"])
def test_a_padded_model_is_the_same_model(doc_string: str | None) -> None:
    content = model(1, 64, doc_string)
    padded = onnx.load_model_from_string(padding(len(content)) + content)
    onnx.checker.check_model(padded, full_check=True)
    assert padded.doc_string == (" " * 4096 if doc_string is None else doc_string)
    original = onnx.load_model_from_string(content)
    for either in (padded, original):
        either.ClearField("doc_string")
    assert padded == original
    assert np.array_equal(run(padding(len(content)) + content, 64), run(content, 64))


@pytest.mark.parametrize("doc_string", [None, "made by a trainer"])
@pytest.mark.parametrize(("old_width", "new_width"), [(64, 96), (8, 96), (96, 8), (4, 4)])
def test_big_decrypts_to_its_own_model_with_any_small(tmp_path: Path, old_width: int, new_width: int, doc_string: str | None) -> None:
    new = model(2, new_width, doc_string)
    old_small, _ = parts(tmp_path / "old", model(1, old_width))
    _, new_big = parts(tmp_path / "new", new)

    mixed = decrypt(old_small + new_big, KEY)

    right = padding(len(new)) + new
    wrong = [index for index, (ours, theirs) in enumerate(zip(mixed, right, strict=True)) if ours != theirs]
    assert wrong  # the releases have IVs of their own, so the seam shows
    assert wrong[0] >= SMALL_BYTES - 16
    assert wrong[-1] < SMALL_BYTES < len(PADDING)
    onnx.checker.check_model(mixed, full_check=True)
    assert onnx.load_model_from_string(mixed).graph == onnx.load_model_from_string(new).graph
    assert np.array_equal(run(mixed, new_width), run(new, new_width))


@given(st.integers(min_value=0, max_value=1 << 32))
def test_split_is_the_contracts_formula(size: int) -> None:
    assert split_size(size) == min(3072, int(size * 20 // 100))


@given(st.integers(min_value=0, max_value=100_000))
def test_every_release_has_a_small_of_the_same_size(model_size: int) -> None:
    head = padding(model_size)
    assert head == PADDING * (len(head) // len(PADDING))
    ciphertext = 16 + ((len(head) + model_size) // 16 + 1) * 16
    assert split_size(ciphertext) == SMALL_BYTES
    if model_size > 12_000:
        assert head == PADDING


@given(content=st.binary(max_size=5000), buffer_bytes=st.integers(min_value=16, max_value=9000))
def test_big_part_is_the_same_in_buffers_of_any_size(tmp_path_factory: pytest.TempPathFactory, content: bytes, buffer_bytes: int) -> None:
    path = tmp_path_factory.mktemp("model") / "model"
    path.write_bytes(content)
    small = small_part(KEY)
    read = io.BytesIO()
    buffer = bytearray(buffer_bytes)
    with BigPart(path, KEY, small) as big:
        while size := big.readinto(buffer):
            read.write(buffer[:size])
    plaintext = decrypt(small + read.getvalue(), KEY)
    assert plaintext == padding(len(content)) + content
    digests = model_digests(path)
    assert digests.model == hashlib.sha256(content).hexdigest()
    assert digests.plaintext == hashlib.sha256(plaintext).hexdigest()


def test_big_part_fills_every_buffer_but_the_last(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(1_000_000))
    with BigPart(path, KEY, small_part(KEY)) as big:
        sizes = []
        buffer = bytearray(300_000)
        while size := big.readinto(buffer):
            sizes.append(size)
    assert sizes[:-1] == [300_000] * (len(sizes) - 1)


def test_the_same_small_gives_the_same_bytes_again(tmp_path: Path) -> None:
    path = tmp_path / "model"
    small, first = parts(path, bytes(50_000))
    with BigPart(path, KEY, small) as big:
        assert big.readall() == first


def test_a_model_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    small, big = parts(path, bytes(50_000))
    path.write_bytes(b"x" * 50_000)
    with (
        pytest.raises(ReleaseError, match="changed"),
        BigPart(path, KEY, small, expected_sha256=hashlib.sha256(small + big).hexdigest()) as part,
    ):
        part.readall()


def test_a_model_that_is_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(500_000))
    with BigPart(path, KEY, small_part(KEY)) as big:
        big.readinto(bytearray(1600))
        path.write_bytes(bytes(1000))
        with pytest.raises(ReleaseError, match="changed"):
            big.readall()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelGoneError, match=r"missing\.onnx"):
        model_digests(tmp_path / "missing.onnx")
