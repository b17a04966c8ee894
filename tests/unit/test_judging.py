"""What a job is compared with and decided by, over a real root: manifests, the ledger, a job's directory that a crash has left anyhow."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.conducting.judging import Judge
from azaion_daemon.errors import DiskFullError, TrainingError
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Job, Model
from azaion_daemon.training.evaluation import ClassMetrics, Comparison, Evaluated, Evaluation, Metrics
from azaion_daemon.training.gate import Decision
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec, ModelFile
from azaion_daemon.training.outcomes import Outcome, Phase
from tests.unit.builders import make_root, row, settings_on
from tests.unit.test_training_jobs import spec as any_spec

NOW = 1_780_000_000.0
OLD, NEW = NOW - 1000, NOW + 1000
BETTER, WORSE = (
    Metrics(images=60, instances=9, map50=value, map50_95=value, classes=(ClassMetrics(name="car", images=9, instances=9, map50_95=value),))
    for value in (0.6, 0.4)
)


class World:
    """A root, its ledger, and the job that is to be judged."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.now = NOW
        self.call = LedgerThread(Ledger(layout.ledger, clock=lambda: self.now))
        self.ledger = self.call.ledger
        self.judge = Judge(settings_on(layout, gate={"min_images": 1, "max_images": 4}), layout, self.call, clock=lambda: self.now)
        self.directory = JobDirectory(layout.jobs / "j2")

    def spec(self, dataset: str = "azaion-2026-02-02", **changes: Any) -> JobSpec:
        path = self.layout.datasets / dataset
        made = any_spec(id="j2", dataset_id=f"id of {dataset}", dataset_name=dataset, data_yaml=path / "data.yaml", **changes)
        self.directory.create(made)
        return made

    def dataset(self, name: str = "azaion-2026-02-02", **lines: Mapping[str, Any]) -> Path:
        """A dataset's documents; by name what a line says otherwise than that it is on the test side and of its own."""
        path = self.layout.datasets / name
        path.mkdir()
        with (path / "manifest.jsonl").open("w") as file:
            for one, given in lines.items():
                line = {"name": one, "extension": "jpg", "media": f"name:{one}", "split": "test", "image": f"i{one}", "label": "l", **given}
                file.write(json.dumps(line) + "\n")
        created = datetime.fromtimestamp(NOW, UTC).isoformat()
        (path / "dataset.json").write_text(json.dumps({"id": f"id of {name}", "name": name, "created": created, "position": 1}))
        return path

    def current(self, sha256: str = "m1", dataset: str | None = "azaion-2026-01-01", job: str | None = "j1") -> Model:
        model = Model(sha256, job, dataset and f"id of {dataset}", {}, "/gone.onnx", current=True, created=NOW)
        self.ledger.put_current_model(model)
        return model

    async def prepared(self, **changes: Any) -> Comparison:
        await self.judge.prepare(self.directory, self.spec(**changes))
        comparison = self.directory.read_comparison()
        assert comparison is not None
        return comparison

    def evaluated(self, rival: str | None, metrics: Metrics = BETTER) -> JobResult:
        """The worker's work, as it leaves it."""
        images = 0 if rival is None else 60
        evaluation = Evaluation(rival=rival, images=images, digest="", candidate=metrics, current=None if rival is None else WORSE)
        self.directory.mark(Phase.EVALUATE, 1.0, Evaluated(metrics=metrics, evaluation=evaluation).model_dump(mode="json"))
        result = JobResult(outcome=Outcome.DONE, metrics=metrics, evaluation=evaluation, finished=datetime.now(UTC))
        self.directory.write_result(result)
        return result


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(make_root(tmp_path / "azaion"))
    yield world
    world.call.close()


TRAIN = {"split": "train"}


async def test_a_first_model_is_evaluated_on_its_own_test_images(world: World) -> None:
    world.dataset(a={}, b={}, t=TRAIN, twin={"image": "ishared"}, u={"split": "valid", "image": "ishared"})
    comparison = await world.prepared()
    assert (comparison.rival, comparison.images, comparison.own) == (None, (), ("a.jpg", "b.jpg"))
    assert comparison.cache == world.layout.evaluations


async def test_what_the_current_model_was_trained_on_is_left_out(world: World) -> None:
    world.dataset("azaion-2026-01-01", a=TRAIN, x={"split": "valid", "image": "ib"}, y={"media": "media:v", **TRAIN}, d={})
    world.dataset(a={}, b={}, c={"media": "media:v"}, d={}, e={})
    world.current()
    comparison = await world.prepared()
    assert comparison.rival is not None
    assert (comparison.rival.sha256, comparison.rival.job) == ("m1", "j1")
    assert comparison.rival.onnx == world.layout.onnx  # where it was kept it is gone
    assert (comparison.images, comparison.left_out) == (("d.jpg", "e.jpg"), {"may have been seen by the current model": 3})
    assert len(comparison.own) == 4  # gate.max_images


async def test_the_same_images_are_chosen_with_the_same_digest_by_every_job(world: World) -> None:
    many: dict[str, Any] = {f"n{number:03}": {} for number in range(100)}
    world.dataset("azaion-2026-01-01", **many)
    world.dataset("azaion-2026-02-02", **many, new={"split": "train"})
    world.current()
    first, second = await world.prepared(), await world.prepared(dataset="azaion-2026-01-01")
    assert (first.images, first.digest) == (second.images, second.digest)
    assert first.images == first.own
    assert first.left_out == {"are beyond gate.max_images": 96}


async def test_of_a_model_that_was_taken_over_only_what_came_later_is_unseen(world: World) -> None:
    world.ledger.add_annotations(
        [
            row(Home.VALIDATED, name="indexed", first_seen=NEW, created_at=OLD),  # by init, of a tree that was there
            row(Home.VALIDATED, name="later", first_seen=NEW, created_at=NEW),
            row(Home.VALIDATED, name="new", first_seen=NEW, created_at=None, media="w"),
            row(Home.VALIDATED, name="frame", first_seen=NEW, created_at=NEW, media="v"),
            row(Home.SEED, name="oldframe", first_seen=OLD, media="v"),
            row(Home.VALIDATED, name="lost", first_seen=NEW, media="?"),
            row(Home.VALIDATED, name="ahead", first_seen=OLD, created_at=NEW),  # a producer's clock
        ]
    )
    lines: dict[str, Any] = {name: {} for name in ("indexed", "later", "new", "frame", "lost", "ahead", "unknown")}
    world.dataset(**lines)
    world.current(dataset=None, job=None)
    comparison = await world.prepared()
    assert (comparison.images, comparison.left_out) == (("later.jpg", "new.jpg"), {"may have been seen by the current model": 5})


async def test_where_its_dataset_is_gone_the_sides_of_the_ledger_tell(world: World) -> None:
    """What stood on the test side by then was not trained on, and what came later neither."""
    world.now = OLD
    world.ledger.add_sides({"name:stood": "test", "name:trained": "train"})
    world.now = NEW
    world.ledger.add_sides({"name:restored": "test", "name:late": "test"})  # as after index rebuild
    world.ledger.add_annotations(
        [row(Home.VALIDATED, name=name, first_seen=NEW if name == "late" else OLD) for name in ("stood", "trained", "restored", "late")]
    )
    world.now = NOW
    world.current()
    world.dataset(stood={}, trained={}, restored={}, late={})
    assert (await world.prepared()).images == ("late.jpg", "stood.jpg")


async def test_a_manifest_that_cannot_be_read_to_its_end_is_as_good_as_gone(world: World) -> None:
    path = world.dataset("azaion-2026-01-01", t=TRAIN)
    with (path / "manifest.jsonl").open("a") as file:
        file.write('{"name": "a"')
    world.dataset(a={}, b={})
    world.current()
    comparison = await world.prepared()
    assert (comparison.images, comparison.left_out) == ((), {"may have been seen by the current model": 2})


async def test_a_fine_tuned_model_has_seen_what_its_predecessors_have(world: World) -> None:
    def result(number: int, before: int | None) -> dict[str, Any]:
        pt = ModelFile(path="model.pt", sha256=f"pt{number}", size_bytes=1).model_dump()
        started = {} if before is None else {"started_from": "current", "model_sha256": f"pt{before}"}
        return {"pt": pt, "onnx": {**pt, "sha256": f"m{number}"}, "dataset_id": f"id of azaion-2026-01-0{number}", "settings": started}

    world.dataset("azaion-2026-01-01", a=TRAIN)
    world.dataset("azaion-2026-01-02", b=TRAIN)
    world.dataset(a={}, b={}, c={})
    for number, before in ((1, None), (2, 1)):
        world.ledger.put_job(Job(f"j{number}", "released", "", NOW, NOW, result=result(number, before)))
    world.current("m2", "azaion-2026-01-02")
    assert (await world.prepared()).images == ("c.jpg",)
    (world.directory.path / "comparison.json").unlink()
    world.current("m3", "azaion-2026-01-03")  # which knows nothing of those
    world.ledger.add_sides({})
    candidate = await world.prepared(started_from="current", model_sha256="pt2")
    assert "c.jpg" not in candidate.images  # m3's dataset is gone, and nothing is known of its sides


async def test_a_base_model_that_a_job_has_made_has_seen_what_that_was_trained_on(world: World) -> None:
    pt = ModelFile(path="model.pt", sha256="pt1", size_bytes=1).model_dump()
    made = {"pt": pt, "onnx": {**pt, "sha256": "m1"}, "dataset_id": "id of azaion-2026-01-01", "settings": {"started_from": "base"}}
    world.ledger.put_job(Job("j1", "released", "", NOW, NOW, result=made))
    world.dataset("azaion-2026-01-01", a=TRAIN)
    world.dataset("azaion-2026-01-02", t=TRAIN)
    world.dataset(a={}, b={})
    world.current("m2", "azaion-2026-01-02")
    comparison = await world.prepared(started_from="base", model_sha256="pt1")
    assert (comparison.images, comparison.left_out) == (("b.jpg",), {"may have been seen by the model that it was started from": 1})
    (world.directory.path / "comparison.json").unlink()
    assert (await world.prepared(started_from="base", model_sha256="pt of the makers")).images == ("a.jpg", "b.jpg")


async def test_started_from_a_model_that_was_taken_over_it_has_seen_what_that_has(world: World) -> None:
    world.ledger.put_current_model(Model("m0", None, None, {}, "", current=True, created=NOW))
    world.ledger.add_annotations([row(Home.VALIDATED, name=name, first_seen=NEW if name == "b" else OLD) for name in ("a", "b")])
    world.dataset("azaion-2026-01-01", t=TRAIN)
    world.dataset(a={}, b={})
    world.current()
    comparison = await world.prepared(started_from="current", model_sha256="pt of the service before")
    assert (comparison.images, comparison.left_out) == (("b.jpg",), {"may have been seen by the model that it was started from": 1})


async def test_a_base_model_that_is_the_checkpoint_of_one_that_was_taken_over_has_seen_what_that_has(world: World) -> None:
    kept = world.layout.models / "azaion-taken-over"
    kept.mkdir()
    (kept / "azaion.pt").write_bytes(b"before")
    world.ledger.put_current_model(Model("m0", None, None, {}, str(kept / "azaion.onnx"), current=True, created=NOW))
    world.ledger.add_annotations([row(Home.VALIDATED, name=name, first_seen=NEW if name == "b" else OLD) for name in ("a", "b")])
    world.dataset("azaion-2026-01-01", t=TRAIN)
    world.dataset(a={}, b={})
    world.current()
    comparison = await world.prepared(started_from="base", model_sha256=hashlib.sha256(b"before").hexdigest())
    assert (comparison.images, comparison.left_out) == (("b.jpg",), {"may have been seen by the model that it was started from": 1})


async def test_names_that_no_list_can_hold_are_left_out(world: World) -> None:
    lines: dict[str, Any] = {"a\u2028b": {}, "c": {}}
    world.dataset(**lines)
    comparison = await world.prepared()
    assert (comparison.own, comparison.left_out) == (("c.jpg",), {"have names that no list can hold": 1})


async def test_a_trial_is_compared_with_nothing(world: World) -> None:
    world.dataset(a={})
    await world.judge.prepare(world.directory, world.spec(trial=True))
    assert world.directory.read_comparison() is None


async def test_a_job_whose_dataset_is_gone_says_so(world: World) -> None:
    with pytest.raises(TrainingError, match=r"the manifest of .*azaion-2026-02-02 cannot be read: FileNotFoundError"):
        await world.prepared()


async def test_what_is_prepared_stays_until_another_model_is_the_current_one(world: World) -> None:
    world.dataset(a={}, b={})
    first = await world.prepared()
    world.evaluated(None)
    before = (world.directory.path / "comparison.json").stat().st_ino
    assert await world.prepared() == first
    assert (world.directory.path / "comparison.json").stat().st_ino == before
    assert world.directory.read_result() is not None
    world.current(dataset=None, job=None)
    second = await world.prepared()
    assert second.rival is not None
    assert (world.directory.read_result(), world.directory.marker(Phase.EVALUATE)) == (None, None)
    assert (world.directory.path / "result.1.json").exists()


async def test_only_the_evaluation_is_repeated(world: World) -> None:
    world.dataset(a={})
    await world.prepared()
    for phase in (Phase.PREPARE, Phase.TRAIN, Phase.EXPORT):
        world.directory.mark(phase, 1.0, {})
    world.evaluated(None)
    world.current()
    await world.prepared()
    assert [phase for phase in Phase if world.directory.marker(phase) is not None] == [Phase.PREPARE, Phase.TRAIN, Phase.EXPORT]


async def test_a_worker_that_lives_keeps_what_it_was_told(world: World) -> None:
    """What it evaluates has no verdict then, and is evaluated again."""
    world.dataset(a={})
    first = await world.prepared()
    world.current()
    with exclusive_lock(world.directory.lock, busy=""):
        assert await world.prepared() == first
    assert await world.judge.verdict(world.directory, world.evaluated(None)) is None
    assert (await world.prepared()).rival is not None


async def test_what_was_evaluated_before_there_was_a_comparison_is_evaluated_again(world: World) -> None:
    world.dataset(a={})
    world.current()
    world.spec()
    world.directory.mark(Phase.EVALUATE, 1.0, {"images": 3, "map50": 0.5})  # of the release before
    with exclusive_lock(world.directory.lock, busy=""):  # and its worker still lives
        await world.prepared()
    assert world.directory.marker(Phase.EVALUATE) is not None
    await world.prepared()
    assert world.directory.marker(Phase.EVALUATE) is None


@pytest.mark.parametrize("at", range(4))
async def test_a_preparation_that_is_cut_short_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    world.dataset(a={})
    await world.prepared()
    world.evaluated(None)
    world.current()
    steps = ("retire_result", "reopen", "write_comparison")
    if at < len(steps):
        with monkeypatch.context() as patched:
            patched.setattr(JobDirectory, steps[at], _full)
            with pytest.raises(DiskFullError):
                await world.prepared()
    comparison = await world.prepared()
    assert comparison.rival is not None
    assert (world.directory.read_result(), world.directory.marker(Phase.EVALUATE)) == (None, None)


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def test_the_verdict_is_that_of_the_gate_with_the_settings_in_force(world: World) -> None:
    world.spec()
    world.current()
    result = world.evaluated("m1")
    verdict = await world.judge.verdict(world.directory, result)
    assert verdict is not None
    assert verdict.decision is Decision.ACCEPTED
    world.judge.reconfigure(settings_on(world.layout, gate={"min_images": 61}))
    held = await world.judge.verdict(world.directory, result)
    assert held is not None
    assert held.decision is Decision.HELD


@pytest.mark.parametrize(("compared_with", "current"), [("m0", "m1"), (None, "m1"), ("m1", None)])
async def test_there_is_no_verdict_by_what_is_not_the_current_model(world: World, compared_with: str | None, current: str | None) -> None:
    world.spec()
    if current is not None:
        world.current(current)
    assert await world.judge.verdict(world.directory, world.evaluated(compared_with)) is None


async def test_a_result_without_figures_cannot_be_judged(world: World) -> None:
    world.spec()
    result = world.evaluated(None)
    with pytest.raises(TrainingError, match="has no figures"):
        await world.judge.verdict(world.directory, result.model_copy(update={"metrics": None}))
