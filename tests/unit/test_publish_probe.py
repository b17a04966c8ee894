"""Running what consumers get beside the model, in a process of its own."""

import os
import sys
from pathlib import Path

import pytest

from azaion_daemon.publish.packing import padding
from azaion_daemon.publish.probe import IDENTICAL, NOT_INSTALLED, OnnxProbe, ProbeError
from tests.unit.test_publish_packing import model


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and what consumers get of it."""
    content = model(1, 16)
    made, padded = tmp_path / "model.onnx", tmp_path / "plaintext"
    made.write_bytes(content)
    padded.write_bytes(padding(len(content)) + content)
    return made, padded


async def test_what_consumers_get_does_the_same_bit_by_bit(files: tuple[Path, Path]) -> None:
    probe = OnnxProbe()
    assert probe.hindrance is None
    assert await probe.compare(*files) == IDENTICAL
    assert "onnxruntime" not in sys.modules or "numpy" in sys.modules  # by the tests, not by the probe


async def test_other_weights_are_told_apart(files: tuple[Path, Path]) -> None:
    files[1].write_bytes(model(2, 16))
    with pytest.raises(ProbeError, match="other results"):
        await OnnxProbe().compare(*files)


async def test_what_does_not_load_for_consumers_is_an_error(files: tuple[Path, Path]) -> None:
    files[1].write_bytes(files[1].read_bytes()[:-40])
    with pytest.raises(ProbeError, match="not what consumers get"):
        await OnnxProbe().compare(*files)


async def test_a_model_that_does_not_run_at_all_is_an_error(files: tuple[Path, Path]) -> None:
    files[0].write_bytes(b"no model")
    with pytest.raises(ProbeError, match="does not run the model"):
        await OnnxProbe().compare(*files)


def test_a_runtime_that_is_not_installed_is_said() -> None:
    assert OnnxProbe(module="no_such_runtime").hindrance == NOT_INSTALLED


async def test_a_process_that_is_killed_says_nothing_against_the_model(files: tuple[Path, Path]) -> None:
    os.unlink(files[1])  # noqa: PTH108
    os.mkfifo(files[1])  # nobody ever writes: only the kernel's alarm ends it
    assert "the process ended with status -14" in await OnnxProbe(limit_s=2).compare(*files)
