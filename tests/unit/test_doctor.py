"""What is made of what doctor finds, and how it looks: side by side, in time, and none hides another."""

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from azaion_daemon.errors import OperatorError, OutsideError
from azaion_daemon.ops.doctor import configuration, root, training
from azaion_daemon.ops.doctor.broker import judge_position
from azaion_daemon.ops.doctor.configuration import judge_files
from azaion_daemon.ops.doctor.findings import Area, Finding, Outcome, Subject
from azaion_daemon.ops.doctor.machine import judge_clock, judge_open_files, judge_shared_memory
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.ops.doctor.publishing import _ahead_s as ahead_s
from azaion_daemon.ops.doctor.root import judge_latency, judge_space
from azaion_daemon.ops.doctor.running import look, selected, subjects
from azaion_daemon.ops.doctor.training import judge_gpus, judge_source, judge_worker
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.sections import TrainingSettings
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Position
from azaion_daemon.stream.resume import StreamEnds
from azaion_daemon.training.capabilities import Capabilities
from azaion_daemon.training.gpus import Discovery, Gpu
from azaion_daemon.training.weights import Source
from tests.unit.builders import make_root, settings_on

OK, WARNING, BROKEN, UNCHECKED = Outcome.OK, Outcome.WARNING, Outcome.BROKEN, Outcome.UNCHECKED
GPU = Gpu("GPU-a", "H100", 80_000_000_000, 79_000_000_000)
OTHER = replace(GPU, uuid="GPU-b", index=1)
FAULTY = replace(OTHER, faults=("it is divided (MIG)",))
TRAINING = TrainingSettings(model="yolo26m.pt", epochs=1, batch_size=11, imgsz=1280, save_period=1, workers=24)
ABLE = Capabilities(
    versions={"torch": "2.14"}, cuda="13.0", cuda_available=True, gpus=("GPU-a", "GPU-b"), providers=("CUDAExecutionProvider",)
)


def trained(**changes: Any) -> TrainingSettings:
    return TRAINING.model_copy(update=changes)


def able(**changes: Any) -> Capabilities:
    return ABLE.model_copy(update=changes)


@pytest.mark.parametrize(
    ("found", "settings", "outcome", "word"),
    [
        (Discovery((GPU, OTHER), "570.1"), {}, OK, "GPU 1 H100 with 80.0 GB"),
        (Discovery(), {}, WARNING, "trainings run on the CPU"),
        (Discovery(), {"gpus": "none"}, OK, "on the CPU"),
        (Discovery(broken="the driver does not answer"), {}, BROKEN, "does not answer"),
        (Discovery((GPU,)), {"gpus": ("GPU-a", "GPU-x")}, BROKEN, "GPU-x"),
        (Discovery((GPU,)), {"gpus_per_job": 2}, BROKEN, "none would ever start"),
        (Discovery((GPU, FAULTY)), {}, WARNING, "GPU 1: it is divided"),
        (Discovery((FAULTY,)), {}, BROKEN, "GPU 1: it is divided"),
        (Discovery((GPU, FAULTY)), {"gpus": ("GPU-a",)}, OK, "GPU 0"),
    ],
)
def test_gpus_are_those_that_trainings_may_have(found: Discovery, settings: dict[str, Any], outcome: Outcome, word: str) -> None:
    finding = judge_gpus(found, trained(**settings))
    assert (finding.outcome, word in finding.detail) == (outcome, True), finding
    assert bool(finding.remedy) == (outcome is not OK)


@pytest.mark.parametrize(
    ("found", "gpus", "settings", "outcome", "word"),
    [
        (ABLE, (GPU, OTHER), {}, OK, "on 2 GPUs with CUDA 13.0"),
        (able(cuda=None, cuda_available=False, gpus=()), (), {}, OK, "on the CPU"),
        (able(cuda=None, cuda_available=False, gpus=()), (GPU,), {"gpus": "none"}, OK, "on the CPU"),
        (able(cuda=None, cuda_available=False, gpus=()), (GPU,), {}, BROKEN, "for the CPU only"),
        (able(cuda_available=False, gpus=(), errors=("The driver is too old",)), (GPU,), {}, BROKEN, "The driver is too old"),
        (able(gpus=("GPU-a",)), (GPU, OTHER), {}, BROKEN, "not GPU 1"),
        (able(gpus=("GPU-a",)), (GPU, FAULTY), {}, OK, "on 1 GPUs"),
        (able(providers=("CPUExecutionProvider",)), (GPU,), {}, WARNING, "evaluated on the CPU"),
        (able(errors=("torchvision cannot be imported: no",)), (), {"gpus": "none"}, BROKEN, "torchvision"),
    ],
)
def test_a_worker_must_see_what_the_driver_shows(
    found: Capabilities, gpus: tuple[Gpu, ...], settings: dict[str, Any], outcome: Outcome, word: str
) -> None:
    finding = judge_worker(found, Discovery(gpus), trained(**settings))
    assert (finding.outcome, word in finding.detail) == (outcome, True), finding


def test_the_base_model_is_there_and_whole_or_known_by_name(tmp_path: Path) -> None:
    path = tmp_path / "yolo26m.pt"
    assert judge_source(Source("base", "yolo26m.pt", None), path, known=False).remedy == f"Put the base model to {path}"
    path.touch()
    assert judge_source(Source("base", "yolo26m.pt", path), path, known=False).outcome is BROKEN
    path.write_bytes(b"weights")
    assert judge_source(Source("base", "yolo26m.pt", path), path, known=False).outcome is OK
    instead = Source("base", "yolo26m.pt", path, why="there is no current model: the training starts from yolo26m.pt")
    assert judge_source(instead, path, known=False).outcome is WARNING
    assert judge_source(Source("base", "m.pt", tmp_path), path, known=False).outcome is BROKEN  # a directory
    for known, outcome in ((True, OK), (False, BROKEN)):
        assert judge_source(Source("base", "yolo26m.yaml", None), path, known=known).outcome is outcome


@pytest.mark.parametrize(
    ("ends", "offset", "outcome", "word"),
    [
        (StreamEnds(5, 90), 80, OK, "10 behind its end"),
        (StreamEnds(5, 90), 4, BROKEN, "retention"),
        (StreamEnds(5, 90), 91, BROKEN, "made anew"),
        (None, 3, BROKEN, "made anew"),
        (None, None, OK, "is empty"),
        (StreamEnds(5, 90), None, OK, "nothing of it is consumed"),
    ],
)
def test_a_position_lies_between_the_ends_of_its_stream(ends: StreamEnds | None, offset: int | None, outcome: Outcome, word: str) -> None:
    finding = judge_position(ends, None if offset is None else Position(offset, b"", 0))
    assert (finding.outcome, word in finding.detail) == (outcome, True), finding


def test_a_position_that_this_user_may_not_read_is_not_called_right() -> None:
    assert judge_position(StreamEnds(0, 1), None, unknown="it cannot be read").outcome is UNCHECKED


@pytest.mark.parametrize(
    ("ahead", "synchronised", "outcome"),
    [
        (0.0, True, OK),
        (4.0, None, OK),
        (-6.0, True, WARNING),
        (61.0, True, BROKEN),
        (-3600.0, None, BROKEN),
        (0.0, False, WARNING),
        (None, True, UNCHECKED),
        (None, False, WARNING),
    ],
)
def test_a_clock_is_held_against_the_platforms(ahead: float | None, synchronised: bool | None, outcome: Outcome) -> None:  # noqa: FBT001
    assert judge_clock(ahead, synchronised=synchronised).outcome is outcome


def test_whole_seconds_and_slow_answers_are_no_difference() -> None:
    date, then = "Thu, 01 Jan 1970 00:16:40 GMT", 1000.0
    assert ahead_s(date, then + 0.9, then + 1.1) == 0
    assert ahead_s(date, then - 8, then + 1) == 0  # the answer took its time
    assert ahead_s(date, then + 31, then + 31.5) == 30
    assert ahead_s(date, then - 30.5, then - 30) == -30
    assert ahead_s("yesterday", 0, 0) is None
    assert ahead_s("", 0, 0) is None


def test_room_is_held_against_what_the_settings_want() -> None:
    assert judge_space(10, None, 5, 8).outcome is OK
    assert judge_space(10, "high", 5, 8).outcome is WARNING
    assert "no dataset" in judge_space(6, None, 5, 8).detail
    assert "nothing would be taken" in judge_space(4, "critical", 5, 8).detail


def test_a_slow_disk_is_called_slow_and_a_single_pause_is_not() -> None:
    assert judge_latency([0.01] * 19 + [3.0]).outcome is OK
    slow = judge_latency([0.15] * 20)
    assert (slow.outcome, "150.0 ms" in slow.detail) == (WARNING, True)


def test_shared_memory_must_hold_the_batches_of_all_loaders() -> None:
    wanted = 11 * 3 * 1280**2 * 24 * 2
    assert judge_shared_memory(wanted, TRAINING).outcome is OK
    assert judge_shared_memory(wanted - 1, TRAINING).outcome is WARNING
    assert judge_shared_memory(0, trained(workers=0)).outcome is OK


def test_open_files_are_counted_by_the_limit_in_force() -> None:
    assert [judge_open_files(*limits).outcome for limits in ((1024, 4096), (256, 4096), (-1, -1))] == [OK, WARNING, OK]


def test_files_with_passwords_are_closed_to_others(tmp_path: Path) -> None:
    config, env = tmp_path / "config.yaml", tmp_path / ".env"
    config.write_text("")
    config.chmod(0o640)
    assert judge_files([config, env]).outcome is OK
    env.write_text("")
    env.chmod(0o664)
    finding = judge_files([config, env])
    assert (finding.outcome, finding.remedy) == (WARNING, f"chmod o-rwx,g-w {env}")


class Ward(NamedTuple):
    """Where subjects are looked at by themselves."""

    layout: Layout
    look: Callable[[Subject[Patient]], Finding]


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    layout = make_root(tmp_path / "azaion")

    def examine(subject: Subject[Patient]) -> Finding:
        async def found() -> Finding:
            settings = settings_on(layout)
            async with PlatformClient(settings.api, layout.hardware) as platform, AsyncExitStack() as opened:
                alone = replace(subject, needs=())
                return (await look([alone], Patient(settings, layout, platform, opened)))[subject.name]

        return asyncio.run(found())

    return Ward(layout, examine)


DIRECTORIES = next(one for one in root.SUBJECTS if one.name == "directories")
OWNERS = next(one for one in root.SUBJECTS if one.name == "owners")


def everything(layout: Layout) -> list[Path]:
    return sorted(path for path in layout.root.rglob("*") if not path.name.startswith(f"{layout.ledger.name}-"))  # SQLite's own


@pytest.mark.parametrize("name", ["root directory", "directories", "owners", "disk space", "inodes", "disk latency", "ledger"])
def test_a_root_as_init_makes_it_is_well_and_stays_as_it_is(ward: Ward, name: str) -> None:
    before = everything(ward.layout)
    assert ward.look(next(one for one in root.SUBJECTS if one.name == name)).outcome is not BROKEN
    assert everything(ward.layout) == before


def test_before_init_it_says_what_that_would_make(tmp_path: Path, ward: Ward) -> None:
    ward.layout.root_id.unlink()
    ward.layout.requests.rmdir()
    finding = ward.look(root.SUBJECTS[0])
    assert (finding.outcome, "init would make 1 directories" in finding.detail) == (BROKEN, True)
    assert "azaion-daemon init" in finding.remedy


@pytest.mark.parametrize(
    ("number", "outcome", "word"),
    [(errno.EPERM, WARNING, "no hard links"), (errno.EXDEV, BROKEN, "another filesystem"), (errno.EROFS, BROKEN, "cannot be written")],
)
def test_a_filesystem_that_will_not_link_is_named_and_nothing_stays(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, number: int, outcome: Outcome, word: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    before = everything(ward.layout)
    finding = ward.look(DIRECTORIES)
    assert (finding.outcome, word in finding.detail) == (outcome, True)
    assert everything(ward.layout) == before


@pytest.mark.parametrize(("owner", "outcome"), [(12345, UNCHECKED), (-1, BROKEN)])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_only_another_user_may_is_not_called_broken(ward: Ward, monkeypatch: pytest.MonkeyPatch, owner: int, outcome: Outcome) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    os.chown(ward.layout.root_id, owner, -1)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert ward.look(DIRECTORIES).outcome is outcome


def test_a_directory_that_is_no_directory_is_named(ward: Ward) -> None:
    ward.layout.datasets.rmdir()
    ward.layout.datasets.touch()
    finding = ward.look(DIRECTORIES)
    assert (finding.outcome, str(ward.layout.datasets) in finding.detail) == (BROKEN, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_of_another_user_are_found(ward: Ward) -> None:
    assert ward.look(OWNERS).outcome is OK
    image = ward.layout.image(Home.VALIDATED, "a", "jpg")
    image.touch()
    os.chown(image, 12345, -1)
    assert ward.look(OWNERS).outcome in {BROKEN, OK}  # by fs.protected_hardlinks of this machine
    request = ward.layout.requests / "x.json"
    request.touch()
    os.chown(request, 12345, -1)
    finding = ward.look(OWNERS)
    assert (finding.outcome, str(request) in finding.detail) == (WARNING, True)
    os.chown(ward.layout.root_id, 12345, -1)
    assert ward.look(DIRECTORIES).outcome is OK  # root may all the same
    other = ward.look(next(one for one in configuration.SUBJECTS if one.name == "user"))
    assert (other.outcome, "12345" in other.remedy) == (WARNING, True)


async def _hang(_: object) -> Finding:
    await asyncio.sleep(60)
    raise AssertionError


async def _unreadable(_: object) -> Finding:
    raise PermissionError(13, "Permission denied", "/root/x")


async def _away(_: object) -> Finding:
    raise OutsideError("The store does not answer. Wait.")


async def _wrong(_: object) -> Finding:
    raise LookupError("a fault of ours")


async def _well(_: object) -> Finding:
    return Finding.ok("well")


async def test_one_that_takes_too_long_or_fails_hides_no_other() -> None:
    found = await look(
        [
            Subject("slow", _hang, limit_s=0.05),
            Subject("rests on it", _well, needs=("slow",)),
            Subject("comes later", _well, after=("slow",)),
            Subject("secret", _unreadable),
            Subject("away", _away),
            Subject("wrong", _wrong),
            Subject("well", _well),
        ],
        None,
    )
    assert [one.outcome for one in found.values()] == [BROKEN, UNCHECKED, OK, BROKEN, BROKEN, BROKEN, OK]
    assert found["slow"].detail == "no answer within 0.05 s"
    assert found["rests on it"].detail == "it needs the slow"
    assert "/root/x" in found["secret"].detail
    assert (found["away"].detail, found["away"].remedy) == ("The store does not answer", "Wait")


async def test_they_are_looked_at_side_by_side_and_it_is_told_how_far_that_is() -> None:
    met = asyncio.Barrier(3)

    async def meet(_: object) -> Finding:
        await met.wait()  # one after the other they would never meet
        return Finding.ok("")

    told: list[tuple[int, tuple[str, ...]]] = []
    await look([Subject(name, meet) for name in "abc"], None, progress=lambda done, busy: told.append((done, tuple(busy))))
    assert (0, ("a", "b", "c")) in told
    assert told[-1] == (3, ())


def test_what_is_asked_for_comes_with_what_it_needs() -> None:
    every = subjects(settings_on(Layout(Path("/azaion"))))
    assert selected(every, ()) == every
    assert [one.name for one in selected(every, ["stream", "Clock"])] == ["broker", "stream", "clock"]
    names = [one.name for one in selected(every, ["CDN upload"])]
    assert names == ["platform", "platform login", "platform hardware", "CDN credentials", "CDN upload"]
    assert {one.area for one in selected(every, ["machine"])} == {Area.MACHINE}
    with pytest.raises(OperatorError, match=r"called kitchen. Areas are: configuration, .*subjects: settings"):
        selected(every, ["kitchen"])


def test_every_subject_has_a_name_of_its_own_that_is_no_area_and_needs_what_there_is() -> None:
    every = subjects(settings_on(Layout(Path("/azaion"))))
    names = [one.name for one in every]
    assert len(set(names)) == len(names)
    assert not {name for name in names if name in set(Area)} - {"broker"}
    assert {other for one in every for other in (*one.needs, *one.after)} <= set(names)


async def test_a_worker_is_asked_which_model_it_could_train(tmp_path: Path) -> None:
    layout = make_root(tmp_path / "azaion")
    settings = settings_on(layout)
    asked: list[str] = []

    async def worker(model: str) -> Capabilities:
        asked.append(model)
        return able(model_known=True, cuda=None, cuda_available=False)

    class NoGpus:
        def discover(self) -> Discovery:
            return Discovery()

    async with PlatformClient(settings.api, layout.hardware) as platform, AsyncExitStack() as opened:
        patient = Patient(settings, layout, platform, opened, gpus=NoGpus(), worker=worker)
        found = await look(training.SUBJECTS, patient)
    assert asked == ["yolo26n.yaml"]
    assert [one.outcome for one in found.values()] == [WARNING, OK, OK]
