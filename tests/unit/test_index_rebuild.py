"""A ledger that was lost, made anew: what the tree, the datasets, the models and the last status still know."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from azaion_daemon.dataset.classes import load_classes
from azaion_daemon.dataset.plan import plan_dataset
from azaion_daemon.dataset.snapshot import form_snapshot
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import OperatorError, RootError, StorageError
from azaion_daemon.index.rebuild import RebuildReport, rebuild
from azaion_daemon.ops.indexing import render_rebuild
from azaion_daemon.publish.record import Published, ReleaseRecord, ReleaseRecords
from azaion_daemon.sandbox.scenes import write_classes
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import UNKNOWN_DIGEST, UNKNOWN_MEDIA, Annotation, Model, Position
from azaion_daemon.store.root import lock_root
from azaion_daemon.training.evaluation import Metrics
from azaion_daemon.training.jobs import JobDirectory, JobResult, ModelFile
from azaion_daemon.training.outcomes import Outcome
from tests.unit.builders import SMALL, make_root, picture, put_files, row

SEED, VALIDATED = Home.SEED, Home.VALIDATED
AT = datetime(2026, 3, 1, tzinfo=UTC)


def settings_of(layout: Layout) -> Settings:
    return Settings.model_validate(
        {
            "api": {"url": "http://127.0.0.1:9", "email": "u@x.io", "password": "p"},
            "stream": {"host": "127.0.0.1", "port": 1, "user": "u", "password": "p", "name": "s"},
            "directories": {"root": layout.root, "data": "data", "data_seed": "data-seed", "data_deleted": "data_deleted"},
            "training": {"model": "yolo26n.yaml", "epochs": 1, "batch_size": 1, "imgsz": 64, "save_period": 1, "workers": 0},
            "export": {"imgsz": 64},
        }
    )


def remake(layout: Layout, offset: int | None = None) -> tuple[RebuildReport, Ledger]:
    report = rebuild(settings_of(layout), layout, offset=offset, say=lambda _: None)
    return report, Ledger(layout.ledger)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A root that has consumed up to offset 41 and formed one dataset of 30 annotations from 10 videos."""
    made = make_root(tmp_path / "azaion")
    write_classes(made.classes)
    rows = [row(VALIDATED, name=f"{number:02}", media=f"v{number % 10}") for number in range(30)]
    put_files(made, *rows, row(SEED, name="seed"))
    ledger = Ledger(made.ledger)
    ledger.commit_batch("s", Position(41, b"digest"), [*rows, row(SEED, name="seed")])
    classes, settings = load_classes(made.classes), SMALL
    plan = plan_dataset(rows, {}, classes, settings, key="k")
    form_snapshot(plan, made, classes, settings, position=41, now=AT, record_sides=ledger.add_sides)
    ledger.close()
    made.status.write_text(json.dumps({"pid": 1, "stream": {"position": 41}}))
    return made


def test_annotations_positions_and_sides_are_as_they_were(layout: Layout) -> None:
    before = Ledger(layout.ledger)
    sides = before.sides()
    before.close()
    report, ledger = remake(layout)
    assert ledger.sides() == sides
    assert len(sides) == 10
    assert ledger.counts() == {SEED: 1, VALIDATED: 30, Home.DELETED: 0}
    assert ledger.position("s") == Position(41, b"")
    rows = ledger.annotations(["00", "seed"])
    assert (rows["00"].media, rows["00"].image) == ("v0", row().image)
    assert (rows["seed"].media, rows["seed"].image) == (UNKNOWN_MEDIA, UNKNOWN_DIGEST)
    assert (report.offset, report.media) == (42, 10)
    ledger.close()


def test_the_next_split_is_the_one_before(layout: Layout) -> None:
    _, ledger = remake(layout)
    sides = {media: Side(side) for media, side in ledger.sides().items()}
    plan = plan_dataset(ledger.in_home(VALIDATED), sides, load_classes(layout.classes), SMALL, key="another")
    assert plan.new_sides == {}
    ledger.close()


def test_the_digest_of_a_dataset_is_not_believed_for_another_file(layout: Layout) -> None:
    path = layout.image(VALIDATED, "00", "jpg")
    path.unlink()
    path.write_bytes(picture(1))
    _, ledger = remake(layout)
    assert ledger.annotations(["00"])["00"].image == UNKNOWN_DIGEST
    ledger.close()


def test_the_ledger_from_before_is_kept(layout: Layout) -> None:
    content = layout.ledger.read_bytes()
    report, ledger = remake(layout)
    ledger.close()
    assert report.old_ledger is not None
    assert Path(report.old_ledger).read_bytes() == content
    layout.ledger.unlink()
    report, ledger = remake(layout)
    ledger.close()
    assert report.old_ledger is None


def test_a_damaged_ledger_is_replaced(layout: Layout) -> None:
    layout.ledger.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError):
        Ledger(layout.ledger)
    _, ledger = remake(layout)
    assert ledger.counts()[VALIDATED] == 30
    ledger.close()


def test_positions_go_on_growing_where_one_stream_followed_another(layout: Layout) -> None:
    layout.status.write_text(json.dumps({"pid": 1, "stream": {"position": 141, "offset": 41}}))
    _, ledger = remake(layout)
    assert ledger.position("s") == Position(41, b"", 100)
    ledger.close()


@pytest.mark.parametrize("status", [None, "", "{}", '{"stream": {"position": null}}'])
def test_a_position_that_nobody_knows_is_asked_for(layout: Layout, status: str | None) -> None:
    layout.status.unlink()
    if status is not None:
        layout.status.write_text(status)
    before = layout.ledger.read_bytes()
    with pytest.raises(OperatorError, match="--offset N"):
        remake(layout)
    assert layout.ledger.read_bytes() == before
    _, ledger = remake(layout, offset=17)
    assert ledger.position("s") == Position(16, b"")
    ledger.close()
    _, ledger = remake(layout, offset=0)
    assert ledger.position("s") is None
    ledger.close()


def keep_model(layout: Layout, directory: Path, content: bytes, map50: float, dataset_id: str = "d") -> str:
    digest = hashlib.sha256(content).hexdigest()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "azaion.onnx").write_bytes(content)
    result = JobResult(
        outcome=Outcome.DONE,
        onnx=ModelFile(path="model.onnx", sha256=digest, size_bytes=len(content)),
        metrics=Metrics(images=1, instances=1, map50=map50, map50_95=map50, classes=()),
        dataset_id=dataset_id,
        finished=AT,
    )
    (directory / "result.json").write_bytes(result.render())
    return digest


def test_models_are_known_by_their_results_and_the_current_one_by_its_digest(layout: Layout) -> None:
    first = keep_model(layout, layout.models / "azaion-2026-03-01", b"one", 0.5)
    keep_model(layout, layout.models / "azaion-2026-03-02", b"two", 0.6)
    keep_model(layout, layout.jobs / "20260301T000000Z", b"one", 0.5)
    (layout.models / "broken").mkdir()
    (layout.models / "broken" / "result.json").write_text("{")
    layout.onnx.write_bytes(b"one")
    report, ledger = remake(layout)
    models: list[Model] = ledger.models()
    ledger.close()
    assert {(model.metrics["map50"], model.current, model.job) for model in models} == {(0.5, True, "20260301T000000Z"), (0.6, False, None)}
    assert (report.models, report.current) == (2, first)
    assert {model.current_since for model in models} == {file.stat().st_mtime for file in layout.models.glob("azaion-*/result.json")}
    assert len(report.unreadable) == 1


def test_a_damaged_manifest_says_what_it_can(layout: Layout) -> None:
    manifest = next(layout.datasets.glob("*/manifest.jsonl"))
    manifest.write_bytes(manifest.read_bytes()[:-20])
    report, ledger = remake(layout)
    rows: dict[str, Annotation] = ledger.annotations(["00", "29"])
    ledger.close()
    assert [rows["00"].media, rows["29"].media] == ["v0", UNKNOWN_MEDIA]
    assert len(report.unreadable) == 1


def test_a_root_that_is_in_use_or_none_is_refused(layout: Layout, tmp_path: Path) -> None:
    with lock_root(layout), pytest.raises(RootError, match="in use"):
        remake(layout)
    with pytest.raises(RootError, match="Is its disk mounted"):
        remake(Layout(tmp_path / "elsewhere"))


def test_what_is_in_the_tree_counts_as_of_the_position_that_is_gone_on_from(layout: Layout) -> None:
    _, ledger = remake(layout)
    assert ledger.annotations(["00"])["00"].position == 41
    ledger.close()


def add_dataset(layout: Layout, name: str, created: str | None, **sides: str) -> None:
    directory = layout.datasets / name
    for side in Side:
        (directory / side / "images").mkdir(parents=True)
    if created is not None:
        (directory / "dataset.json").write_text(json.dumps({"created": created}))
    lines = [
        {"name": f"x-{media}", "extension": "jpg", "media": f"media:{media}", "split": side, "image": "0" * 64}
        for media, side in sides.items()
    ]
    (directory / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_where_datasets_contradict_each_other_the_earliest_counts_and_it_is_said(layout: Layout) -> None:
    add_dataset(layout, "azaion-2026-01-01", "2026-05-01T00:00:00+00:00", w="train")  # what it says goes before its name
    add_dataset(layout, "azaion-2026-04-01", None, w="valid", x="test")
    add_dataset(layout, "azaion-2026-04-01-10", None, w="test", x="valid")
    add_dataset(layout, "azaion-2026-04-01-2", None, w="test")
    report, ledger = remake(layout)
    sides = ledger.sides()
    ledger.close()
    assert (sides["media:w"], sides["media:x"]) == ("valid", "test")
    assert report.contradictions == [
        "azaion-2026-04-01-2: media:w is on the side test, in an earlier dataset on valid",
        "azaion-2026-04-01-10: media:x is on the side valid, in an earlier dataset on test",
        "azaion-2026-01-01: media:w is on the side train, in an earlier dataset on valid",
    ]
    assert "3 sides contradict" in render_rebuild(report, settings_of(layout))


def test_a_dataset_that_was_never_complete_says_nothing(layout: Layout) -> None:
    add_dataset(layout, ".forming-azaion-2026-02-01", None, w="train")
    report, ledger = remake(layout)
    ledger.close()
    assert (report.media, report.contradictions) == (10, [])


def test_by_name_the_media_is_known_again_too(layout: Layout) -> None:
    shutil.rmtree(next(layout.datasets.iterdir()))
    ledger = Ledger(layout.ledger)
    rows = ledger.in_home(VALIDATED)
    ledger.close()
    classes, settings = load_classes(layout.classes), SMALL.model_copy(update={"split_by": "name"})
    plan = plan_dataset(rows, {}, classes, settings, key="k")
    form_snapshot(plan, layout, classes, settings, position=41, now=AT, record_sides=lambda _: None)
    _, ledger = remake(layout)
    assert ledger.sides() == plan.new_sides
    assert {one.media for one in ledger.in_home(VALIDATED)} == {f"v{number}" for number in range(10)}
    ledger.close()


def validate_more(layout: Layout, count: int) -> None:
    """Frames that came after the dataset, of media that stand in it."""
    put_files(layout, *(row(VALIDATED, name=f"late{number}") for number in range(count)))


def test_what_came_after_the_datasets_does_not_leak_into_what_models_are_judged_by(layout: Layout) -> None:
    validate_more(layout, 40)
    report, ledger = remake(layout)
    sides = {unit: Side(side) for unit, side in ledger.sides().items()}
    plan = plan_dataset(ledger.in_home(VALIDATED), sides, load_classes(layout.classes), SMALL, key="k")
    ledger.close()
    assert {entry.side for entry in plan.entries if entry.annotation.name.startswith("late")} == {Side.TRAIN}
    assert report.index.media_lost == 41
    assert "The media of 41 annotations is lost" in render_rebuild(report, settings_of(layout))


def test_without_datasets_no_media_has_a_side_to_leak_into(layout: Layout) -> None:
    shutil.rmtree(next(layout.datasets.iterdir()))
    report, ledger = remake(layout)
    plan = plan_dataset(ledger.in_home(VALIDATED), {}, load_classes(layout.classes), SMALL, key="k")
    ledger.close()
    assert {entry.side for entry in plan.entries} == set(Side)
    assert report.index.media_lost == 0


def keep_model_of_the_dataset(layout: Layout) -> str:
    (described,) = layout.datasets.glob("*/dataset.json")
    keep_model(layout, layout.models / "azaion-2026-03-01", b"one", 0.5, json.loads(described.read_bytes())["id"])
    return described.parent.name


def test_the_trigger_counts_from_what_the_newest_model_was_trained_on(layout: Layout) -> None:
    name = keep_model_of_the_dataset(layout)
    report, ledger = remake(layout)
    record = ledger.due.record("")
    (job,) = ledger.jobs()
    ledger.close()
    assert (record.changed, record.last_ended, record.failure) == (0, AT.timestamp(), None)
    assert (job.dataset, job.state, job.judged) == (name, "released", True)
    assert (report.trained_on, report.changed_since) == (name, 0)
    assert f"Last trained on: {name}, and 0 annotations" in render_rebuild(report, settings_of(layout))


@pytest.mark.parametrize("offset", [None, 0, 1, 17])
def test_what_differs_from_that_dataset_counts_as_changed_and_so_does_what_comes(layout: Layout, offset: int | None) -> None:
    keep_model_of_the_dataset(layout)
    validate_more(layout, 3)
    layout.label(VALIDATED, "00").unlink()
    layout.label(VALIDATED, "00").write_text("2 0.5 0.5 0.5 0.5\n")
    layout.image(VALIDATED, "01", "jpg").rename(layout.image(Home.DELETED, "01", "jpg"))
    layout.label(VALIDATED, "01").rename(layout.label(Home.DELETED, "01"))
    report, ledger = remake(layout, offset)
    assert (report.changed_since, ledger.due.record("").changed) == (5, 5)
    after = report.offset
    ledger.commit_batch("s", Position(after, b"next"), [row(VALIDATED, name="next", validated_position=after)])
    assert ledger.due.record("").changed == (5 if after == 0 else 6)  # the very first message of all has no mark before it
    ledger.close()


def test_without_a_dataset_of_a_model_everything_counts_and_it_is_said(layout: Layout) -> None:
    report, ledger = remake(layout)
    assert ledger.due.record("").changed == 30
    ledger.close()
    assert report.trained_on is None
    assert "everything counts as new" in render_rebuild(report, settings_of(layout))


def test_while_a_worker_lives_its_job_is_not_forgotten(layout: Layout) -> None:
    job = JobDirectory(layout.jobs / "20260301T000000Z")
    job.path.mkdir()
    before = layout.ledger.read_bytes()
    with exclusive_lock(job.lock, busy=""), pytest.raises(OperatorError, match=r"worker .* is alive: job 20260301T000000Z"):
        remake(layout)
    assert layout.ledger.read_bytes() == before
    _, ledger = remake(layout)  # it has ended
    ledger.close()


def keep_record(layout: Layout, serial: int, model: str, *, published: bool) -> None:
    done = Published(serial, model, "p", "c", 1, 1, "downloaded", AT) if published else None
    ReleaseRecords(layout.releases).save(ReleaseRecord(serial, model, "p", 1, b"small", published=done))


def test_serial_numbers_go_on_above_those_that_were_given(layout: Layout) -> None:
    keep_record(layout, 3, "a" * 64, published=True)
    keep_record(layout, 12, "b" * 64, published=False)
    (layout.releases / "13.json").write_text("{")
    report, ledger = remake(layout)
    assert [(one.serial, one.model_sha256[:1], one.state) for one in ledger.releases()] == [
        (3, "a", "published"), (12, "b", "superseded"), (13, "", "superseded"),
    ]  # fmt: skip
    assert ledger.releases()[0].changed == AT.timestamp()
    assert ledger.add_release("c" * 64).serial == 14
    assert report.releases == 3
    assert any(what.startswith("releases/13.json") for what in report.unreadable)
    assert "3 releases" in render_rebuild(report, settings_of(layout))
    ledger.close()


def test_a_release_of_the_current_model_that_was_under_way_goes_on(layout: Layout) -> None:
    layout.onnx.write_bytes(b"onnx")
    keep_record(layout, 4, hashlib.sha256(b"onnx").hexdigest(), published=False)
    _, ledger = remake(layout)
    assert [(one.serial, one.state) for one in ledger.releases()] == [(4, "waiting")]
    assert ledger.releases()[0].model_sha256 in {model.sha256 for model in ledger.models()}
    ledger.close()
