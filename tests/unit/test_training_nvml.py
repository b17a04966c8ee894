"""What NVIDIA's library says of GPUs, and what is made of it. The double speaks as `pynvml` does."""

import os
from types import SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from azaion_daemon.training.gpus import Gpu, GpuProcess
from azaion_daemon.training.nvml import NvmlGpus

GIB = 1 << 30
HEALTHY: dict[str, Any] = {
    "UUID": "GPU-0",
    "Name": "NVIDIA H100",
    "MemoryInfo": SimpleNamespace(total=80 * GIB, free=79 * GIB, used=GIB),
    "ComputeRunningProcesses": [],
    "UtilizationRates": SimpleNamespace(gpu=7, memory=1),
    "Temperature": 41,
    "TotalEccErrors": 0,
    "RemappedRows": (1, 0, 0, 0),
    "RetiredPagesPendingStatus": pynvml.NVML_FEATURE_DISABLED,
    "ComputeMode": pynvml.NVML_COMPUTEMODE_DEFAULT,
    "MigMode": [0, 0],
}
NOT_SUPPORTED = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
LOST = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)


class FakeNvml:
    """A machine with these cards. An answer that is an exception is raised."""

    def __init__(self, *cards: dict[str, Any] | Exception, init: Exception | None = None) -> None:
        self._cards = cards
        self._init = init
        self.open = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvmlDeviceGet"):
            return lambda card, *_: self._answer(card, name.removeprefix("nvmlDeviceGet"))
        return getattr(pynvml, name)

    def _answer(self, card: dict[str, Any], question: str) -> Any:
        if isinstance(answer := card[question], Exception):
            raise answer
        return answer

    def nvmlInit(self) -> None:  # noqa: N802
        if self._init is not None:
            raise self._init
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "595.1"

    def nvmlSystemGetProcessName(self, _: int) -> str:  # noqa: N802
        return "/usr/bin/python3 train.py"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        if isinstance(card := self._cards[index], Exception):
            raise card
        return card


def only(**answers: Any) -> Gpu:
    (found,) = NvmlGpus(FakeNvml({**HEALTHY, **answers})).discover().gpus
    return found


def test_a_gpu_is_read_whole() -> None:
    nvml = FakeNvml(HEALTHY)
    found = NvmlGpus(nvml).discover()
    assert (found.driver, found.broken, nvml.open) == ("595.1", None, 0)
    expected = Gpu("GPU-0", "NVIDIA H100", 80 * GIB, 79 * GIB, utilisation_percent=7, temperature_celsius=41, memory_errors=0)
    assert found.gpus == (expected,)


def test_processes_are_named_where_that_can_be_read() -> None:
    own, gone = SimpleNamespace(pid=os.getpid(), usedGpuMemory=GIB), SimpleNamespace(pid=1 << 30, usedGpuMemory=None)
    ours, foreign = only(ComputeRunningProcesses=[own, gone]).processes
    assert (ours.pid, ours.memory_bytes) == (os.getpid(), GIB)
    assert ours.name
    assert foreign == GpuProcess(1 << 30, "python3", None)


def test_what_a_card_does_not_support_is_unknown_and_no_error() -> None:
    told = ("UUID", "Name", "MemoryInfo")
    found = only(**{question: NOT_SUPPORTED for question in HEALTHY if question not in told})
    assert (found.faults, found.processes, found.utilisation_percent, found.temperature_celsius) == ((), (), None, None)


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ({"TotalEccErrors": 2}, "2 uncorrected memory errors"),
        ({"RemappedRows": (0, 1, 1, 0)}, "rows to be remapped"),
        ({"RemappedRows": (0, 9, 0, 1)}, "needs to be replaced"),
        ({"RetiredPagesPendingStatus": pynvml.NVML_FEATURE_ENABLED}, "pages to be retired"),
        ({"ComputeMode": pynvml.NVML_COMPUTEMODE_PROHIBITED}, "compute mode is PROHIBITED"),
        ({"MigMode": [1, 1]}, "divided (MIG)"),
        ({"MemoryInfo": LOST}, "fell off the bus"),
        ({"TotalEccErrors": LOST}, "fell off the bus"),
    ],
)
def test_a_gpu_that_must_not_be_used_says_why(answers: dict[str, Any], fault: str) -> None:
    found = only(**answers)
    assert found.uuid == "GPU-0"
    assert len(found.faults) == 1
    assert fault in found.faults[0]


def test_a_gpu_that_is_lost_hides_no_other() -> None:
    found = NvmlGpus(FakeNvml(LOST, {**HEALTHY, "UUID": "GPU-1"})).discover()
    assert found.broken is None
    assert [(gpu.uuid, gpu.index, bool(gpu.faults)) for gpu in found.gpus] == [("unknown-0", 0, True), ("GPU-1", 1, False)]


def test_a_driver_that_does_not_answer_is_no_machine_without_gpus() -> None:
    mismatch = pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    found = NvmlGpus(FakeNvml(init=mismatch)).discover()
    assert found.gpus == ()
    assert "the NVIDIA driver does not answer" in str(found.broken)
    absent = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    assert NvmlGpus(FakeNvml(init=absent)).discover().broken is None


def test_a_machine_without_a_driver_has_no_gpu() -> None:
    found = NvmlGpus().discover()
    if found.driver is not None:
        pytest.skip("this machine has an NVIDIA driver")
    assert found.gpus == ()
    assert found.broken is None


@pytest.mark.gpu
def test_real_gpus_are_discovered() -> None:
    found = NvmlGpus().discover()
    if not found.gpus:
        pytest.skip(f"no CUDA device here: {found.broken or 'no NVIDIA driver is installed'}")
    assert found.driver
    for one in found.gpus:
        assert one.uuid.startswith("GPU-")
        assert 0 < one.memory_free_bytes <= one.memory_total_bytes
        assert one.temperature_celsius is None or 0 < one.temperature_celsius < 120
