"""The real worker compares two tiny models: on the same images, keeping what it has evaluated, whatever becomes of it or of the other."""

import asyncio
import hashlib
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from azaion_daemon.sections import GateSettings
from azaion_daemon.training.evaluation import Comparison, Rival
from azaion_daemon.training.gate import Decision, judge
from azaion_daemon.training.jobs import JobDirectory, JobResult, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.pool import WorkerPool
from tests.integration.trainings import CLASSES, SIDE, small_job

PARTS = {"train": 8, "valid": 4, "test": 5}
TEST = tuple(f"test-{number}.jpg" for number in range(PARTS["test"]))

pytestmark = pytest.mark.slow


def make_dataset(root: Path) -> Path:
    dice = random.Random(0)
    for part, count in PARTS.items():
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True)
        for number in range(count):
            x, y, side = dice.randint(0, 30), dice.randint(0, 30), dice.randint(20, 30)
            image = Image.new("RGB", (SIDE, SIDE), (90, 100, 110))
            ImageDraw.Draw(image).rectangle((x, y, x + side, y + side), fill=(200, 60 * (number % 2), 50))
            image.save(root / part / "images" / f"{part}-{number}.jpg")
            box = f"{(x + side / 2) / SIDE:.6f} {(y + side / 2) / SIDE:.6f} {side / SIDE:.6f} {side / SIDE:.6f}"
            (root / part / "labels" / f"{part}-{number}.txt").write_text(f"{number % 2} {box}\n")
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: {root}\ntrain: train/images\nval: valid/images\ntest: test/images\nnames:\n{names}")
    return root


class World:
    """A dataset, a cache, and jobs that are evaluated without being trained anew each time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dataset = make_dataset(root / "azaion-2026-01-02")
        self.pool = WorkerPool(progress_s=0.05)

    def job(self, name: str, **changes: Any) -> JobDirectory:
        job = JobDirectory(self.root / "jobs" / name)
        job.create(small_job(self.dataset, self.root / "gpus", **{"id": name, **changes}))
        return job

    def exported(self, name: str, model: JobDirectory, **changes: Any) -> JobDirectory:
        """A job that has got as far as its export, with the model of another one."""
        job = self.job(name, **changes)
        for phase in (Phase.PREPARE, Phase.TRAIN, Phase.EXPORT):
            job.mark(phase, 1.0, {"epochs": 1} if phase is Phase.TRAIN else {})
        for source, target in ((model.pt, job.pt), (model.onnx, job.onnx)):
            shutil.copyfile(source, target)
        return job

    def compare(self, job: JobDirectory, rival: Path | None, *, images: tuple[str, ...] = TEST) -> None:
        digest = "" if rival is None else digest_of(rival)
        job.write_comparison(
            Comparison(
                rival=None if rival is None else Rival(sha256=digest, onnx=rival, job="first"),
                images=images,
                own=TEST,
                digest=f"digest of {len(images)}",
                own_digest=f"digest of {len(TEST)}",
                cache=self.root / "evaluations",
            )
        )

    async def run(self, job: JobDirectory) -> JobResult:
        result = await self.pool.run(job)
        assert result.outcome is Outcome.DONE, job.log.read_text()
        return result

    def evaluations(self) -> int:
        return len(list((self.root / "evaluations").glob("*.json")))


def validations(job: JobDirectory) -> list[str]:
    """What the worker validated itself, by its log."""
    text = job.log.read_text()
    steps = ("the model", "comparison", "the current model")
    return [step for step in steps for number in (5, 3) if f"--- {step}: {number} images" in text]


async def test_two_models_are_compared_on_the_same_images_and_neither_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.job("first")
    world.compare(first, None)
    one = await world.run(first)
    assert one.metrics is not None
    assert one.evaluation is not None
    assert (one.evaluation.rival, one.metrics.images, one.evaluation.candidate) == (None, 5, one.metrics)
    assert judge(one.metrics, one.evaluation, GateSettings(min_map50_95=0)).decision is Decision.ACCEPTED
    curves = first.read_curves()
    assert curves is not None
    assert (list(curves.pr.precision), curves.confusion.labels) == (["car", "truck"], ("car", "truck", "background"))
    assert len(curves.pr.recall) == len(curves.f1.f1["car"]) == 101
    in_test = [sum(row[column] for row in curves.confusion.matrix) for column in (0, 1)]
    assert in_test == [3, 2]  # each column is what is there

    second = world.job("second", epochs=2)
    world.compare(second, first.onnx, images=TEST[:3])
    two = await world.run(second)
    assert two.evaluation is not None
    assert two.evaluation.current is not None
    assert two.metrics is not None
    assert (two.metrics.images, two.evaluation.images) == (5, 3)
    assert [each.images for each in (two.evaluation.candidate, two.evaluation.current)] == [3, 3]
    assert validations(second) == ["the model", "comparison", "the current model"]
    assert world.evaluations() == 4
    changed = {path.name for path in world.dataset.rglob("*") if path.stat().st_mtime > first.log.stat().st_mtime}
    assert changed <= {"labels.cache", "labels", "train", "valid", "test"}  # by `prepare` alone

    again = world.exported("again", second, epochs=2)
    world.compare(again, first.onnx)  # the same images as its own: one run for both, and the first model was evaluated on them
    three = await world.run(again)
    assert three.evaluation is not None
    assert (three.evaluation.candidate, three.evaluation.current) == (two.metrics, one.metrics)
    assert validations(again) == ["the model"]  # its curves are not there yet
    assert again.read_curves() == second.read_curves()

    itself = world.exported("itself", first)
    world.compare(itself, first.onnx)
    same = await world.run(itself)
    assert same.metrics is not None
    strict = GateSettings(min_images=1, min_map50_95=0, max_class_drop=0, min_class_instances=1)
    assert judge(same.metrics, same.evaluation, strict).decision is Decision.ACCEPTED


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> JobDirectory:
    """A model that several tests compare."""
    world = World(tmp_path_factory.mktemp("trained"))
    job = world.job("first")
    asyncio.run(world.run(job))
    return job


async def test_a_worker_killed_in_its_evaluation_repeats_only_what_was_not_finished(tmp_path: Path, trained: JobDirectory) -> None:
    world = World(tmp_path)
    job = world.exported("killed", trained)
    renamed(trained, tmp_path / "rival.onnx", "{0: 'car', 1: 'truck', 2: 'ship'}")  # another file that finds the same
    world.compare(job, tmp_path / "rival.onnx", images=TEST[:3])

    def kill(progress: Progress) -> None:
        if progress.step == "the current model" and (identity := job.read_identity()) is not None:
            os.kill(identity.pid, signal.SIGKILL)

    killed = await world.pool.run(job, kill)
    assert "SIGKILL in phase evaluate" in killed.reason
    kept = world.evaluations()
    job.log.write_text("")
    result = await world.run(job)
    assert result.evaluation is not None
    assert result.evaluation.current is not None
    assert (kept, validations(job)) in [(2, ["the current model"]), (3, [])]  # a kill may come when it is as good as done


async def test_a_current_model_that_is_damaged_fails_no_job(tmp_path: Path, trained: JobDirectory) -> None:
    world, rival = World(tmp_path), tmp_path / "rival.onnx"
    rival.write_bytes(trained.onnx.read_bytes()[:5000])
    job = world.exported("second", trained)
    world.compare(job, rival)
    result = await world.run(job)
    assert result.metrics is not None
    assert result.evaluation is not None
    assert (result.evaluation.current, result.evaluation.images) == (None, 5)
    assert "rival.onnx is no model that can be run" in result.evaluation.problem
    assert judge(result.metrics, result.evaluation, GateSettings(min_images=1, min_map50_95=0)).decision is Decision.HELD


def renamed(model: JobDirectory, rival: Path, names: str) -> None:
    """The same model with other class names."""
    import onnx  # noqa: PLC0415 - heavy

    graph = onnx.load(model.onnx)
    (entry,) = [one for one in graph.metadata_props if one.key == "names"]
    entry.value = names
    onnx.save(graph, rival)


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("{0: 'car', 1: 'truck'}", "it finds 2 classes, and the new model 3"),
        ("{0: 'truck', 1: 'car', 2: 'boat'}", "class 0 was truck and is car now"),
        ("{0: 'a', 1: 'b', 2: 'c'}", "it finds none of the classes that there are now"),
        ("{0: 'car', 2: 'boat', 5: 'truck'}", "does not say which classes it finds"),
        ("car, truck", "is no model that can be run"),
        ("7", "does not say which classes it finds"),
    ],
)
def test_a_current_model_of_other_classes_cannot_be_compared(tmp_path: Path, trained: JobDirectory, names: str, sentence: str) -> None:
    from azaion_daemon.training.worker.rival import RivalError, open_rival  # noqa: PLC0415 - heavy

    file = tmp_path / "rival.onnx"
    renamed(trained, file, names)
    with pytest.raises(RivalError, match=sentence):
        open_rival(Rival(sha256=digest_of(file), onnx=file), CLASSES)


def test_a_current_model_must_be_there_and_be_the_one_that_is_meant(tmp_path: Path, trained: JobDirectory) -> None:
    from azaion_daemon.training.worker.rival import RivalError, open_rival  # noqa: PLC0415 - heavy

    with pytest.raises(RivalError, match=r"rival\.onnx cannot be read: No such file"):
        open_rival(Rival(sha256="ab" * 32, onnx=tmp_path / "rival.onnx"), CLASSES)
    with pytest.raises(RivalError, match=r"is damaged: its SHA-256 begins with .* instead of abab"):
        open_rival(Rival(sha256="ab" * 32, onnx=trained.onnx), CLASSES)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(RivalError, match="is no model that can be run"):
        open_rival(Rival(sha256=digest_of(tmp_path / "empty.onnx"), onnx=tmp_path / "empty.onnx"), CLASSES)
    with pytest.raises(RivalError, match="it was exported for 64 pixels, and the images were reduced to 32"):
        open_rival(Rival(sha256=digest_of(trained.onnx), onnx=trained.onnx), CLASSES, reduced_to=32)
    found = open_rival(Rival(sha256=digest_of(trained.onnx), onnx=trained.onnx), CLASSES, reduced_to=64)
    assert (found.imgsz, found.known) == (SIDE, (True, True, True))


async def test_a_class_that_the_current_model_does_not_know_has_no_figure(tmp_path: Path, trained: JobDirectory) -> None:
    world = World(tmp_path)
    rival = tmp_path / "rival.onnx"
    renamed(trained, rival, "{0: 'car', 1: 'Class-1', 2: 'boat'}")
    job = world.exported("second", trained)
    world.compare(job, rival)
    evaluation = (await world.run(job)).evaluation
    assert evaluation is not None
    assert evaluation.current is not None
    assert [(one.name, one.instances, one.map50_95 is None) for one in evaluation.current.classes] == [
        ("car", 3, False), ("truck", 2, True), ("boat", 0, True),
    ]  # fmt: skip


async def test_a_current_model_of_the_kind_that_leaves_overlaps_to_its_consumer_is_compared_at_its_own_size(
    tmp_path: Path, trained: JobDirectory
) -> None:
    """As a service before may have exported it: no detections, but a raw head, for 96 pixels and one image at a time."""
    world = World(tmp_path)
    rival = tmp_path / "raw" / "model.onnx"
    rival.parent.mkdir()
    shutil.copyfile(trained.pt, rival.with_suffix(".pt"))
    code = (
        "import sys; from ultralytics import YOLO; m = YOLO(sys.argv[1]); m.model.end2end = False; "
        "m.export(format='onnx', imgsz=96, batch=1, nms=False, opset=18, device='cpu', simplify=False)"
    )
    environment = {**os.environ, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(rival.with_suffix(".pt")), env=environment, cwd=tmp_path)
    assert await process.wait() == 0
    job = world.exported("second", trained)
    world.compare(job, rival)
    evaluation = (await world.run(job)).evaluation
    assert evaluation is not None
    assert evaluation.problem == ""
    assert evaluation.current is not None
    assert evaluation.current.images == 5
    assert "input of shape (1, 3, 96, 96)" in job.log.read_text()
