"""Which GPUs a job gets."""

import fcntl
import threading
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from azaion_daemon.training.gpus import (
    Chosen,
    Discovery,
    Gpu,
    GpuProcess,
    Gpus,
    PatientGpus,
    Wait,
    choose,
    lease_names,
    leased,
    not_given_back,
)

GIB = 1 << 30
NONE: frozenset[str] = frozenset()
FOREIGN = GpuProcess(4711, "python3", 3_200_000_000)


def gpu(uuid: str, free_gib: int = 70, *processes: GpuProcess, faults: tuple[str, ...] = ()) -> Gpu:
    return Gpu(uuid, "a GPU", 80 * GIB, free_gib * GIB, processes, faults, index=ord(uuid) - ord("A"))


class FixedGpus:
    """The double: what is found is given."""

    def __init__(self, *gpus: Gpu, broken: str | None = None) -> None:
        self._found = Discovery(gpus, driver="1", broken=broken)

    def discover(self) -> Discovery:
        return self._found


def taken(*uuids: str) -> Chosen:
    return Chosen(uuids, uuids)


def test_auto_takes_the_free_gpu_with_the_most_memory() -> None:
    gpus: Gpus = FixedGpus(gpu("A", 40), gpu("B", 70), gpu("C", 79, FOREIGN), gpu("D", 80))
    assert choose("auto", gpus.discover(), frozenset({"D"})) == taken("B")


def test_auto_takes_the_cpu_where_there_is_no_gpu() -> None:
    assert choose("auto", FixedGpus().discover(), NONE) == Chosen((), ("cpu-0",))


@pytest.mark.parametrize("setting", ["auto", ("A",)])
def test_a_broken_driver_is_waited_for_and_never_replaced_by_the_cpu(setting: Literal["auto"] | tuple[str, ...]) -> None:
    assert choose(setting, FixedGpus(broken="the driver does not answer").discover(), NONE) == Wait("the driver does not answer")


def test_none_takes_the_cpu_even_where_there_are_gpus() -> None:
    assert choose("none", FixedGpus(gpu("A"), broken="anything").discover(), NONE) == Chosen((), ("cpu-0",))


def test_as_many_jobs_run_on_the_cpu_as_there_are_slots() -> None:
    nothing = Discovery()
    assert choose("auto", nothing, frozenset({"cpu-0"}), cpu_slots=2) == Chosen((), ("cpu-1",))
    full = choose("auto", nothing, frozenset({"cpu-0", "cpu-1"}), cpu_slots=2)
    assert full == Wait("2 trainings run on the CPU, and no more may (training.max_parallel_jobs)")
    assert lease_names(FixedGpus(gpu("A")).discover(), 2) == ("A", "cpu-0", "cpu-1")


def test_named_gpus_are_taken_in_their_order() -> None:
    found = FixedGpus(gpu("A"), gpu("B", 1), gpu("C")).discover()
    assert choose(("B", "A"), found, NONE) == taken("B")
    assert choose(("B", "A"), found, frozenset({"B"})) == taken("A")


def test_a_foreign_process_is_waited_for_and_named_also_on_a_gpu_that_the_settings_name() -> None:
    found = FixedGpus(gpu("A", 70, FOREIGN, GpuProcess(9)), gpu("B")).discover()
    assert choose(("A",), found, NONE) == Wait(
        "0 of the 1 GPUs in training.gpus are free, a job takes 1; "
        "GPU 0 is used by process 4711 (python3, 3.2 GB), process 9 (name unknown)"
    )
    assert choose(("A", "B"), found, NONE) == taken("B")


def test_the_processes_of_a_training_that_holds_the_lease_are_not_foreign() -> None:
    found = FixedGpus(gpu("A", 70, FOREIGN)).discover()
    assert choose("auto", found, frozenset({"A"})) == Wait("0 of 1 GPUs are free, a job takes 1; GPU 0 is leased by a training")


@pytest.mark.parametrize("setting", ["auto", ("A", "B")])
def test_a_gpu_with_a_fault_is_never_chosen_and_it_is_said_why(setting: Literal["auto"] | tuple[str, ...]) -> None:
    faulty = gpu("A", 79, faults=("2 uncorrected memory errors",))
    assert choose(setting, FixedGpus(faulty, gpu("B", 1)).discover(), NONE) == taken("B")
    alone = choose(setting, FixedGpus(faulty, gpu("B", 1, FOREIGN)).discover(), NONE)
    assert isinstance(alone, Wait)
    assert "GPU 0 is not used: 2 uncorrected memory errors; GPU 1 is used by process 4711" in alone.reason


def test_the_gpus_of_the_last_failure_are_taken_only_where_there_are_no_others() -> None:
    found = FixedGpus(gpu("A", 79), gpu("B", 10)).discover()
    assert choose("auto", found, NONE, avoid=("A",)) == taken("B")
    assert choose(("A", "B"), found, NONE, avoid=("A",)) == taken("B")
    assert choose("auto", found, frozenset({"B"}), avoid=("A",)) == taken("A")
    assert choose("auto", found, NONE, count=2, avoid=("A",)) == taken("B", "A")


@pytest.mark.parametrize(
    ("setting", "busy", "count", "reason"),
    [
        ("auto", {"A", "B"}, 1, "0 of 2 GPUs are free, a job takes 1; GPU 0 is leased by a training; GPU 1 is leased by a training"),
        ("auto", {"A"}, 2, "1 of 2 GPUs are free, a job takes 2; GPU 0 is leased by a training"),
        ("auto", set(), 3, "2 of 2 GPUs are free, a job takes 3"),
        (("A", "X", "Y"), set(), 1, "training.gpus names what this machine does not have: X, Y"),
    ],
)
def test_a_job_waits_with_a_reason(setting: Literal["auto"] | tuple[str, ...], busy: set[str], count: int, reason: str) -> None:
    found = FixedGpus(gpu("A"), gpu("B")).discover()
    assert choose(setting, found, frozenset(busy), count=count) == Wait(reason)


def test_several_gpus_go_to_one_job() -> None:
    found = FixedGpus(gpu("A", 10), gpu("B", 30), gpu("C", 20)).discover()
    assert choose("auto", found, NONE, count=2) == taken("B", "C")


def test_a_lease_is_seen_while_it_is_held(tmp_path: Path) -> None:
    (tmp_path / "A.lock").touch()
    with (tmp_path / "B.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert leased(tmp_path, ["A", "B", "C"]) == {"B"}
    assert leased(tmp_path, ["A", "B", "C"]) == NONE


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (gpu("A", 79), None),
        (gpu("A", 40, GpuProcess(9, "train", GIB)), None),  # somebody else came meanwhile: that is found when a job is to start
        (gpu("A", 40, FOREIGN), "GPU 0 still has process 4711 (python3, 3.2 GB), which is dead"),
        (gpu("A", 40), "GPU 0 has 42.9 GB in use by nobody"),
        (gpu("A", 79, faults=("it does not answer",)), "GPU 0 is not to be used: it does not answer"),
        (gpu("B", 40), None),
    ],
)
def test_what_a_killed_worker_leaves_of_its_gpu_is_said(after: Gpu, said: str | None) -> None:
    found = not_given_back(FixedGpus(after).discover(), ["A"], frozenset({4711}))
    assert (found or "").startswith(said or "")
    assert (found is None) is (said is None)


def test_a_driver_that_broke_meanwhile_is_said() -> None:
    assert not_given_back(replace(Discovery(), broken="the driver does not answer"), ["A"], frozenset()) == "the driver does not answer"


class Hanging:
    """A driver that answers when it is told to."""

    def __init__(self) -> None:
        self.looks = 0
        self.may_answer = threading.Event()

    def discover(self) -> Discovery:
        self.looks += 1
        self.may_answer.wait(30)
        return Discovery(driver=str(self.looks))


def test_a_driver_that_hangs_is_waited_for_so_long_and_asked_once() -> None:
    driver = Hanging()
    gpus = PatientGpus(driver, patience_s=0.05)
    for _ in range(3):
        found = gpus.discover()
        assert "does not answer" in str(found.broken)
        assert choose("auto", found, NONE) == Wait(str(found.broken))
    assert driver.looks == 1
    driver.may_answer.set()
    gpus = PatientGpus(driver)
    assert [gpus.discover().driver, gpus.discover().driver] == ["2", "3"]


def test_what_fails_in_looking_fails_for_who_asked() -> None:
    class Odd:
        def discover(self) -> Discovery:
            raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        PatientGpus(Odd()).discover()
