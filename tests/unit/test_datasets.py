"""Datasets as an operator looks at them: the list, one of them, what one would hold now, and one formed by hand."""

import errno
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from azaion_daemon.cli import main
from azaion_daemon.dataset.classes import load_classes
from azaion_daemon.dataset.manifest import Content, growth
from azaion_daemon.dataset.plan import plan_dataset
from azaion_daemon.dataset.snapshot import Snapshot, form_snapshot
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import RootError, StorageError
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.store.durable import exclusive_lock, storage
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation, Model, Position
from tests.unit.builders import BOX, make_root, put_files, row

STREAM = "annotations"
SMALL = DatasetSettings(min_images=1, min_objects=1)
FIRST_DAY, SECOND_DAY = datetime(2026, 4, 1, 12, tzinfo=UTC), datetime(2026, 4, 2, 12, tzinfo=UTC)


def rows_of(count: int, **others: Any) -> list[Annotation]:
    return [row(Home.VALIDATED, name=f"n{number:02}", **others) for number in range(count)]


class Site:
    """A root with annotations, and the commands."""

    def __init__(self, directory: Path) -> None:
        self.layout = make_root(directory / "azaion")
        self.layout.classes.write_text(json.dumps([{"Id": 0, "Name": "Car"}, {"Id": 1, "Name": "Boat"}]))
        self.config = directory / "config.yaml"
        self.configure()

    def configure(self, **sections: Any) -> None:
        document = {
            "api": {"url": "http://127.0.0.1:9", "email": "e", "password": "p"},
            "stream": {"host": "h", "port": 1, "user": "u", "password": "p", "name": STREAM},
            "directories": {"root": str(self.layout.root), "data": "data", "data_seed": "data-seed", "data_deleted": "data_deleted"},
            "training": {"model": "m.yaml", "epochs": 1, "batch_size": 1, "imgsz": 64, "save_period": 1, "workers": 0},
            "export": {"imgsz": 64},
            "dataset": {"min_images": 1, "min_objects": 1, "min_free_disk": 0},
            "ingest": {"min_free_disk": 0},
            **sections,
        }
        self.config.write_text(yaml.safe_dump(document))

    def put(self, rows: Sequence[Annotation], *, position: int = 5) -> None:
        put_files(self.layout, *rows)
        ledger = Ledger(self.layout.ledger)
        ledger.commit_batch(STREAM, Position(position, b"d"), rows)
        ledger.close()

    def form(self, rows: Sequence[Annotation], now: datetime, *, position: int = 5) -> Snapshot:
        self.put(rows, position=position)
        ledger = Ledger(self.layout.ledger)
        classes = load_classes(self.layout.classes)

        def record(sides: Mapping[str, Side]) -> None:
            ledger.add_sides(sides)

        try:
            sides = {media: Side(side) for media, side in ledger.sides().items()}
            plan = plan_dataset(rows, sides, classes, SMALL, key=STREAM)
            return form_snapshot(plan, self.layout, classes, SMALL, position=position, now=now, record_sides=record)
        finally:
            ledger.close()

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["dataset", *arguments, "--config", str(self.config)], catch_exceptions=False)

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def two_datasets(site: Site) -> tuple[Snapshot, Snapshot]:
    first = site.form(rows_of(10), FIRST_DAY)
    changed = [one._replace(label=f"0{BOX[1:]}") if one.name == "n01" else one for one in rows_of(14)[1:]]
    return first, site.form(changed, SECOND_DAY, position=9)


def test_what_is_new_changed_and_gone_is_counted_by_the_digests_of_label_and_image() -> None:
    before = {"same": Content("i", "l"), "label": Content("i", "l"), "image": Content("i", "l"), "gone": Content("i", "l")}
    after = {"same": Content("i", "l"), "label": Content("i", "m"), "image": Content("j", "l"), "new": Content("i", "l")}
    found = growth("d", before, after)
    assert (found.new, found.changed, found.gone) == (1, 2, 1)


def test_an_image_that_nobody_has_read_yet_is_taken_for_the_one_that_was_there() -> None:
    assert growth("d", {"a": Content("i", "l")}, {"a": Content(UNKNOWN_DIGEST, "l")}).changed == 0
    assert growth("d", {"a": Content("i", "l")}, {"a": Content(UNKNOWN_DIGEST, "m")}).changed == 1


def test_the_newest_dataset_is_shown_with_its_counts_and_its_growth(site: Site) -> None:
    first, second = two_datasets(site)
    document = site.json("show")
    assert (document["name"], document["id"], document["path"], document["position"]) == (second.name, second.id, str(second.path), 9)
    assert sum(document["images"].values()) == 13
    assert [(one["name"], sum(one["objects"].values())) for one in document["classes"] if any(one["objects"].values())] == [
        ("Car", 1),
        ("Boat", 12),
    ]
    assert document["growth"] == {"since": first.name, "new": 4, "changed": 1, "gone": 1}
    text = site.run("show").stdout
    assert f"{second.name} (id {second.id[:12]}), formed 2026-04-02 12:00Z, at position 9" in text
    assert f"Since {first.name}: 4 new, 1 changed, 1 gone." in text
    assert "4 classes without any instance: Car(Wint), Boat(Wint), Car(Night), Boat(Night)" in text


def test_a_dataset_is_found_by_its_name_or_the_beginning_of_its_id(site: Site) -> None:
    first, second = two_datasets(site)
    assert site.json("show", first.name)["growth"] is None
    assert site.json("show", first.id[:8])["name"] == first.name
    assert site.json("show", second.id)["name"] == second.name


def test_of_datasets_with_the_same_content_the_newest_is_meant(site: Site) -> None:
    site.form(rows_of(10), FIRST_DAY)
    again = site.form(rows_of(10), SECOND_DAY)
    assert site.json("show", again.id[:8])["name"] == again.name


@pytest.mark.parametrize("wanted", ["azaion-2020-01-01", "zzzz", ""])
def test_an_unknown_dataset_is_an_error_that_says_where_to_look(site: Site, wanted: str) -> None:
    two_datasets(site)
    result = site.run("show", wanted)
    assert (result.exit_code, result.stdout, "azaion-daemon dataset list" in result.stderr) == (78, "", True)


def test_without_any_dataset_the_error_says_how_to_see_what_one_would_hold(site: Site) -> None:
    result = site.run("show")
    assert (result.exit_code, "--dry-run" in result.stderr) == (78, True)
    assert (site.json("list"), site.run("list").stdout) == ([], "There is no dataset yet.\n")


def test_a_dataset_of_an_earlier_version_or_a_damaged_manifest_is_an_error_and_no_traceback(site: Site) -> None:
    first, second = two_datasets(site)
    (first.path / "manifest.jsonl").write_text('{"name": \n')
    assert site.run("show", second.name).exit_code == 78
    document = json.loads((first.path / "dataset.json").read_text())
    (first.path / "dataset.json").write_text(json.dumps({key: document[key] for key in ("id", "name", "position", "created", "images")}))
    assert "earlier version" in site.run("show", first.name).stderr


def test_the_list_says_what_refers_to_each_and_when_it_goes(site: Site) -> None:
    first, second = two_datasets(site)
    ledger = Ledger(site.layout.ledger)
    ledger.put_current_model(Model("abc123", None, first.id, {}, "", current=True, created=0.0))
    ledger.close()
    newest, oldest = site.json("list")
    assert (newest["name"], oldest["name"]) == (second.name, first.name)
    assert (newest["referred_by"], newest["goes"]) == ([], False)
    assert newest["goes_when"] == "10 newer ones are there and one is from after 2026-05-02"
    assert (oldest["referred_by"], oldest["goes_when"]) == (["model abc123 is the current one"], "nothing refers to it")
    assert sum(newest["images"].values()) == 13
    assert newest["bytes_of_its_own"] > 0
    lines = site.run("list").stdout.splitlines()
    assert (lines[0].split()[0], lines[1].split()[0], "model abc123 is the current one" in lines[2]) == ("dataset", second.name, True)


def test_the_list_names_what_cannot_be_read_beside_the_data(site: Site) -> None:
    first, _ = two_datasets(site)
    (first.path / "dataset.json").write_text("{")
    result = site.run("list", "--json")
    assert (len(json.loads(result.stdout)), first.name in result.stderr) == (1, True)


def test_a_dry_run_counts_what_a_dataset_would_hold_and_changes_nothing(site: Site) -> None:
    first = site.form(rows_of(10), FIRST_DAY)
    more = [*rows_of(15)[1:], row(Home.VALIDATED, name="x", image=None), row(Home.VALIDATED, name="y", label="77 0.5 0.5 0.1 0.1\n")]
    site.put(more, position=30)
    before = {
        path: path.read_bytes() for path in site.layout.root.rglob("*") if path.is_file() and path.suffix not in {".db-shm", ".db-wal"}
    }
    document = site.json("build", "--dry-run")
    assert (document["position"], sum(document["images"].values())) == (30, 15)
    assert document["excluded"] == {"image_missing": 1, "unknown_class": 1}
    assert document["unknown_classes"] == {"77": 1}
    assert document["growth"] == {"since": first.name, "new": 5, "changed": 0, "gone": 0}
    assert (document["new_media"], document["problems"]) == (5, [])
    assert "unknown_classes" in [remark["code"] for remark in document["remarks"]]
    assert {path: path.read_bytes() for path in before} == before
    assert list(site.layout.datasets.iterdir()) == [first.path]


def test_a_dry_run_works_beside_a_daemon_that_writes_and_shows_one_moment(site: Site) -> None:
    site.put(rows_of(10))
    writing = sqlite3.connect(site.layout.ledger, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    writing.execute("UPDATE annotations SET home='deleted'")
    with exclusive_lock(site.layout.lock, busy=""):
        assert sum(site.json("build", "--dry-run")["images"].values()) == 10
    writing.execute("COMMIT")
    writing.close()
    assert site.run("build", "--dry-run").exit_code == 1


def test_a_dry_run_names_every_problem_and_ends_with_1(site: Site) -> None:
    site.put(rows_of(3, media="one.mp4"))
    result = site.run("build", "--dry-run")
    assert (result.exit_code, "It could not be trained on:" in result.stdout) == (1, True)
    document = json.loads(site.run("build", "--dry-run", "--json").stdout)
    assert {problem["code"] for problem in document["problems"]} == {"empty_side"}
    assert all(problem["what"] and problem["remedy"] for problem in document["problems"])


def test_a_dry_run_says_how_many_images_a_dataset_would_wait_for(site: Site) -> None:
    site.put(rows_of(10, image=UNKNOWN_DIGEST))
    assert site.json("build", "--dry-run")["undigested"] == 10
    assert "wait for the daemon to read 10 images" in site.run("build", "--dry-run").stdout


def test_a_dataset_is_formed_by_hand_while_no_daemon_runs_and_is_the_one_that_was_foretold(site: Site) -> None:
    site.put(rows_of(20))
    foretold = site.json("build", "--dry-run")
    document = site.json("build")
    assert {key: document[key] for key in ("images", "objects", "classes", "media", "position")} == {
        key: foretold[key] for key in ("images", "objects", "classes", "media", "position")
    }
    path = Path(document["path"])
    assert len(list(path.glob("*/images/*.jpg"))) == len(list(path.glob("*/labels/*.txt"))) == 20
    again = site.json("build")
    assert (again["id"], again["name"]) == (document["id"], f"{document['name']}-2")  # the sides were recorded


def test_unknown_digests_are_read_before_a_dataset_is_formed_by_hand(site: Site) -> None:
    site.put(rows_of(10, image=UNKNOWN_DIGEST))
    manifest = (Path(site.json("build")["path"]) / "manifest.jsonl").read_text()
    assert UNKNOWN_DIGEST not in manifest


def test_what_cannot_be_trained_on_is_not_formed_by_hand_either(site: Site) -> None:
    site.put(rows_of(3, media="one.mp4"))
    result = site.run("build")
    assert (result.exit_code, result.stdout, "empty_side" in result.stderr) == (78, "", True)
    assert list(site.layout.datasets.iterdir()) == []


def test_beside_a_daemon_no_dataset_is_formed_by_hand_and_the_error_says_what_to_do(site: Site) -> None:
    site.put(rows_of(10))
    with exclusive_lock(site.layout.lock, busy=""):
        result = site.run("build")
    assert (result.exit_code, "--dry-run" in result.stderr) == (78, True)
    assert list(site.layout.datasets.iterdir()) == []


@pytest.mark.parametrize("arguments", [["list"], ["show"], ["build"], ["build", "--dry-run"]])
def test_a_root_that_is_not_mounted_is_named(site: Site, arguments: list[str]) -> None:
    site.layout.root.rename(site.layout.root.with_name("elsewhere"))
    result = site.run(*arguments)
    assert (result.exit_code, "mounted" in result.stderr) == (78, True)


def test_a_ledger_that_is_read_only_cannot_be_written(layout: Layout) -> None:
    ledger = Ledger(layout.ledger, read_only=True)
    try:
        with pytest.raises(StorageError):
            ledger.add_sides({"a": "train"})
    finally:
        ledger.close()
    writable = Ledger(layout.ledger)
    assert writable.sides() == {}
    writable.close()


def test_a_ledger_of_an_earlier_version_is_not_read(layout: Layout) -> None:
    with sqlite3.connect(layout.ledger) as db:
        db.execute("PRAGMA user_version=1")
    with pytest.raises(RootError, match="earlier version"):
        Ledger(layout.ledger, read_only=True)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


def test_a_full_disk_ends_a_command_that_does_not_go_on_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        with storage("linking a"):
            raise OSError(errno.ENOSPC, "No space left on device")

    site.put(rows_of(10))
    monkeypatch.setattr("azaion_daemon.conducting.forming.DatasetFormer.form", fail)
    result = site.run("build")
    assert result.exit_code == os.EX_IOERR
    assert "No space left on device. Free some space; nothing is lost. No dataset was formed: run this again then." in result.stderr
    assert "by itself" not in result.stderr
