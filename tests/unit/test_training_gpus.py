"""Which GPUs a job gets."""

import fcntl
from pathlib import Path
from typing import Literal

import pytest

from azaion_daemon.training.gpus import Chosen, Discovery, Gpu, Gpus, NvmlGpus, Wait, choose, leased

GIB = 1 << 30
NONE: frozenset[str] = frozenset()


def gpu(uuid: str, free_gib: int = 70, *processes: int) -> Gpu:
    return Gpu(uuid, "a GPU", 80 * GIB, free_gib * GIB, processes)


class FixedGpus:
    """The double: what is found is given."""

    def __init__(self, *gpus: Gpu, broken: str | None = None) -> None:
        self._found = Discovery(gpus, driver="1", broken=broken)

    def discover(self) -> Discovery:
        return self._found


def test_auto_takes_the_free_gpu_with_the_most_memory() -> None:
    gpus: Gpus = FixedGpus(gpu("A", 40), gpu("B", 70), gpu("C", 79, 4711), gpu("D", 80))
    assert choose("auto", gpus.discover(), frozenset({"D"})) == Chosen(("B",))


def test_auto_takes_the_cpu_where_there_is_no_gpu() -> None:
    assert choose("auto", FixedGpus().discover(), NONE) == Chosen(())


@pytest.mark.parametrize("setting", ["auto", ("A",)])
def test_a_broken_driver_is_waited_for_and_never_replaced_by_the_cpu(setting: Literal["auto"] | tuple[str, ...]) -> None:
    assert choose(setting, FixedGpus(broken="the driver does not answer").discover(), NONE) == Wait("the driver does not answer")


def test_none_takes_the_cpu_even_where_there_are_gpus() -> None:
    assert choose("none", FixedGpus(gpu("A"), broken="anything").discover(), NONE) == Chosen(())


def test_named_gpus_are_taken_in_their_order_whatever_else_runs_there() -> None:
    found = FixedGpus(gpu("A"), gpu("B", 1, 4711), gpu("C")).discover()
    assert choose(("B", "A"), found, NONE) == Chosen(("B",))
    assert choose(("B", "A"), found, frozenset({"B"})) == Chosen(("A",))


@pytest.mark.parametrize(
    ("setting", "busy", "count", "reason"),
    [
        ("auto", {"A", "B"}, 1, "0 of 2 GPUs are free, a job takes 1"),
        ("auto", {"A"}, 2, "1 of 2 GPUs are free, a job takes 2"),
        (("A",), {"A"}, 1, "0 of the 1 GPUs in training.gpus are free, a job takes 1"),
        (("A", "X", "Y"), set(), 1, "training.gpus names what this machine does not have: X, Y"),
    ],
)
def test_a_job_waits_with_a_reason(setting: Literal["auto"] | tuple[str, ...], busy: set[str], count: int, reason: str) -> None:
    found = FixedGpus(gpu("A"), gpu("B")).discover()
    assert choose(setting, found, frozenset(busy), count=count) == Wait(reason)


def test_several_gpus_go_to_one_job() -> None:
    found = FixedGpus(gpu("A", 10), gpu("B", 30), gpu("C", 20)).discover()
    assert choose("auto", found, NONE, count=2) == Chosen(("B", "C"))


def test_a_lease_is_seen_while_it_is_held(tmp_path: Path) -> None:
    (tmp_path / "A.lock").touch()
    with (tmp_path / "B.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert leased(tmp_path, ["A", "B", "C"]) == {"B"}
    assert leased(tmp_path, ["A", "B", "C"]) == NONE


def test_a_machine_without_a_driver_has_no_gpu() -> None:
    found = NvmlGpus().discover()
    if found.driver is not None:
        pytest.skip("this machine has an NVIDIA driver")
    assert found == Discovery()


@pytest.mark.gpu
def test_real_gpus_are_discovered() -> None:
    found = NvmlGpus().discover()
    if not found.gpus:
        pytest.skip(f"no CUDA device here: {found.broken or 'no NVIDIA driver is installed'}")
    assert found.driver
    for one in found.gpus:
        assert one.uuid.startswith("GPU-")
        assert 0 < one.memory_free_bytes <= one.memory_total_bytes
