"""A dataset on disk: complete under its name or not there, and never changed afterwards."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from azaion_daemon.dataset.classes import Classes, load_classes
from azaion_daemon.dataset.documents import data_yaml
from azaion_daemon.dataset.linking import ImageSource
from azaion_daemon.dataset.plan import plan_dataset
from azaion_daemon.dataset.snapshot import Snapshot, form_snapshot, remove_debris
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import DatasetError, StorageError
from azaion_daemon.ingest.tree import Tree
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Annotation
from tests.unit.builders import BOX, SMALL, make_root, picture, put_files, row, staged

CLASSES = Classes(tuple(f"c{number}" for number in range(80)), frozenset(range(5)))
NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)


def rows_of(count: int) -> list[Annotation]:
    return [row(Home.VALIDATED, name=f"n{number:02}") for number in range(count)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = make_root(tmp_path / "azaion")
    put_files(made, *rows_of(10))
    return made


def form(
    layout: Layout,
    rows: list[Annotation] | None = None,
    *,
    recorded: dict[str, Side] | None = None,
    image_of: Callable[[Annotation], ImageSource] | None = None,
) -> Snapshot:
    known: dict[str, Side] = {} if recorded is None else recorded

    def record(new: Mapping[str, Side]) -> None:
        known.update(new)

    plan = plan_dataset(rows_of(10) if rows is None else rows, known, CLASSES, SMALL, key="k")
    return form_snapshot(plan, layout, CLASSES, SMALL, position=5, now=NOW, record_sides=record, image_of=image_of)


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_dataset_has_the_form_that_ultralytics_reads(layout: Layout) -> None:
    made = form(layout)
    assert made.path == layout.datasets / "azaion-2026-04-01"
    assert made.counts.images == {Side.TRAIN: 7, Side.VALID: 2, Side.TEST: 1}
    for side in Side:
        images = {path.stem for path in (made.path / side / "images").iterdir()}
        assert images == {path.stem for path in (made.path / side / "labels").iterdir()}
        assert len(images) == made.counts.images[side]
    data = yaml.safe_load(made.data_yaml.read_text())
    assert Path(data["path"]) == made.path
    assert [data[key] for key in ("train", "val", "test")] == ["train/images", "valid/images", "test/images"]
    assert len(data["names"]) == 80


def test_its_files_are_hard_links(layout: Layout) -> None:
    made = form(layout)
    for image in made.path.rglob("*.jpg"):
        assert image.samefile(layout.images(Home.VALIDATED) / image.name)


def test_later_edits_and_deletes_do_not_reach_into_it(layout: Layout) -> None:
    made = form(layout)
    before = {path: path.read_bytes() for path in made.path.rglob("*") if path.is_file()}
    tree = Tree(layout)
    for number, one in enumerate(rows_of(10)):
        (layout.incoming / f"{number}.image").write_bytes(picture(1))
        changes = [
            {"label": "3 0.5 0.5 0.1 0.1\n"},
            {"home": Home.DELETED},
            {"image": staged(1).sha256, "staged": f"{number}.image"},
        ]
        tree.place(one._replace(**changes[number % 3]))  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in made.path.rglob("*") if path.is_file()} == before


def test_the_manifest_lists_every_image_with_its_split_and_digests(layout: Layout) -> None:
    made = form(layout)
    entries = [json.loads(line) for line in (made.path / "manifest.jsonl").read_text().splitlines()]
    assert [entry["name"] for entry in entries] == [one.name for one in rows_of(10)]
    assert {entry["image"] for entry in entries} == {staged(0).sha256}
    for entry in entries:
        assert (made.path / entry["split"] / "images" / f"{entry['name']}.{entry['extension']}").exists()


def test_the_rest_is_in_the_description(layout: Layout) -> None:
    made = form(layout)
    document = json.loads((made.path / "dataset.json").read_text())
    assert (document["id"], document["name"], document["position"]) == (made.id, made.name, 5)
    assert document["images"] == {"train": 7, "valid": 2, "test": 1}
    assert document["settings"]["split"] == {"train": 70, "valid": 20, "test": 10}


def test_the_same_content_has_the_same_id(layout: Layout) -> None:
    sides: dict[str, Side] = {}
    first, second = form(layout, recorded=sides), form(layout, recorded=sides)
    assert (first.name, second.name) == ("azaion-2026-04-01", "azaion-2026-04-01-2")
    assert first.id == second.id
    other = [rows_of(10)[0]._replace(label=BOX * 2), *rows_of(10)[1:]]
    assert form(layout, other, recorded=sides).id != first.id


def test_an_image_may_come_from_elsewhere_and_the_dataset_says_so(layout: Layout) -> None:
    cached = layout.state / "cached.png"
    cached.write_bytes(picture(3))
    sides: dict[str, Side] = {}

    def image_of(one: Annotation) -> ImageSource:
        own = ImageSource(layout.image(Home.VALIDATED, one.name, one.extension))
        return ImageSource(cached, "1280/90") if one.name == "n03" else own

    linked, resized, again = form(layout, recorded=sides), *(form(layout, recorded=sides, image_of=image_of) for _ in range(2))
    entries = [json.loads(line) for line in (resized.path / "manifest.jsonl").read_text().splitlines()]
    (entry,) = [entry for entry in entries if "resized" in entry]
    assert (entry["name"], entry["extension"], entry["resized"], entry["image"]) == ("n03", "png", "1280/90", staged(0).sha256)
    assert (resized.path / entry["split"] / "images" / "n03.png").samefile(cached)
    assert (linked.id != resized.id, resized.id == again.id) == (True, True)


def test_what_is_left_out_is_listed_with_its_reason(layout: Layout) -> None:
    made = form(layout, [*rows_of(10), row(Home.VALIDATED, name="x", image=None), row(Home.VALIDATED, name="y", label="99 0 0 0 0\n")])
    lines = [json.loads(line) for line in (made.path / "excluded.jsonl").read_text().splitlines()]
    assert lines == [
        {"name": "x", "reason": "image_missing", "detail": "its image is missing"},
        {"name": "y", "reason": "unknown_class", "detail": "detection 1 has the unknown class 99"},
    ]
    assert made.counts.excluded == {"image_missing": 1, "unknown_class": 1}


@pytest.mark.parametrize(("suffix", "word"), [("jpg", "image"), ("txt", "label")])
def test_what_the_tree_lacks_is_left_out_whole(layout: Layout, suffix: str, word: str) -> None:
    next((layout.root / "data").rglob(f"n03.{suffix}")).unlink()
    made = form(layout)
    assert made.counts.excluded == {"not_in_tree": 1}
    assert f"the tree lacks its {word}" in (made.path / "excluded.jsonl").read_text()
    assert not any("n03" in name for name in files(made.path))
    assert sum(made.counts.images.values()) == 9


def test_a_tree_that_lacks_every_image_of_a_side_cannot_be_trained_on(layout: Layout) -> None:
    sides: dict[str, Side] = {}
    made = form(layout, recorded=sides)
    for image in (made.path / "valid" / "images").iterdir():
        (layout.images(Home.VALIDATED) / image.name).unlink()
    with pytest.raises(DatasetError, match="valid"):
        form(layout, recorded=sides)
    assert [path.name for path in layout.datasets.iterdir()] == [made.name]


def test_a_dataset_that_cannot_train_leaves_nothing_and_records_no_side(layout: Layout) -> None:
    recorded: dict[str, Side] = {}
    with pytest.raises(DatasetError) as caught:
        form(layout, rows_of(1), recorded=recorded)
    assert "no image for valid" in str(caught.value)
    assert "no image for test" in str(caught.value)
    assert (list(layout.datasets.iterdir()), recorded) == ([], {})


def test_sides_are_recorded_before_the_dataset_has_its_name(layout: Layout) -> None:
    seen: list[list[str]] = []
    plan = plan_dataset(rows_of(10), {}, CLASSES, SMALL, key="k")
    form_snapshot(
        plan,
        layout,
        CLASSES,
        SMALL,
        position=None,
        now=NOW,
        record_sides=lambda new: seen.append([*(path.name for path in layout.datasets.iterdir()), str(len(new))]),
    )
    assert seen == [[".forming-azaion-2026-04-01", "10"]]


def test_a_failure_while_it_is_formed_leaves_nothing(layout: Layout) -> None:
    def fail(_: Mapping[str, Side]) -> None:
        raise StorageError("recording the split: disk I/O error")

    plan = plan_dataset(rows_of(10), {}, CLASSES, SMALL, key="k")
    with pytest.raises(StorageError):
        form_snapshot(plan, layout, CLASSES, SMALL, position=5, now=NOW, record_sides=fail)
    assert list(layout.datasets.iterdir()) == []


def test_what_a_crash_left_is_removed_and_what_is_complete_stays(layout: Layout) -> None:
    made = form(layout)
    (layout.datasets / ".forming-azaion-2026-04-02" / "train").mkdir(parents=True)
    assert remove_debris(layout) == ["azaion-2026-04-02"]
    assert [path.name for path in layout.datasets.iterdir()] == [made.name]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.EPERM])
def test_files_are_copied_where_links_cannot_be(layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Real ones are in the tests of faults; no filesystem here says EOPNOTSUPP."""

    def link(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number), source, None, target)

    monkeypatch.setattr(os, "link", link)
    made = form(layout)
    assert {image.read_bytes() for image in made.path.rglob("*.jpg")} == {picture(0)}
    assert sum(made.counts.images.values()) == 10


def test_any_other_failure_is_not_papered_over_with_a_copy(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: str, target: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), source, None, target)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StorageError, match="Check the disk"):
        form(layout)
    assert list(layout.datasets.iterdir()) == []


def test_what_a_failed_one_could_not_remove_is_no_obstacle(layout: Layout) -> None:
    rest = layout.datasets / ".forming-azaion-2026-04-01" / "train" / "images"
    rest.mkdir(parents=True)
    (rest / "stranger.jpg").touch()
    made = form(layout)
    assert "train/images/stranger.jpg" not in files(made.path)
    assert [path.name for path in layout.datasets.iterdir()] == [made.name]


def test_a_dataset_can_be_given_up_in_the_middle(layout: Layout) -> None:
    class GivenUpError(Exception):
        pass

    calls: list[None] = []

    def proceed() -> None:
        calls.append(None)
        if len(calls) == 6:
            raise GivenUpError

    plan = plan_dataset(rows_of(10), {}, CLASSES, SMALL, key="k")
    with pytest.raises(GivenUpError):
        form_snapshot(plan, layout, CLASSES, SMALL, position=5, now=NOW, record_sides=lambda _: None, proceed=proceed)
    assert list(layout.datasets.iterdir()) == []


def test_what_it_says_of_itself_is_not_written_to_and_the_trainers_cache_has_room(layout: Layout) -> None:
    made = form(layout)
    for name in ("manifest.jsonl", "excluded.jsonl", "data.yaml", "dataset.json"):
        assert (made.path / name).stat().st_mode & 0o777 == 0o440
    for side in Side:
        assert (made.path / side).stat().st_mode & 0o200
        (made.path / side / "labels.cache").touch()


def test_remarks_are_with_the_dataset(layout: Layout) -> None:
    made = form(layout)
    assert [remark.code for remark in made.remarks] == ["class_without_instance"]
    (remark,) = json.loads((made.path / "dataset.json").read_text())["remarks"]
    assert set(remark) == {"code", "what", "remedy"}


_ID_ELSEWHERE = """
import random, sys
from pathlib import Path
from tests.unit import test_snapshot as here
layout = here.make_root(Path(sys.argv[1]))
rows = here.rows_of(40)
random.shuffle(rows)
here.put_files(layout, *rows)
print(here.form(layout, rows).id)
"""


def test_the_same_rows_give_the_same_id_on_any_machine(tmp_path: Path) -> None:
    """In another order, below another root, with other hashes of Python."""
    ids = set()
    for seed in ("1", "2", "3"):
        command = [sys.executable, "-c", _ID_ELSEWHERE, str(tmp_path / seed)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed})
        ids.add(done.stdout.strip())
    assert len(ids) == 1
    assert len(ids.pop()) == 64


@pytest.mark.parametrize("count", range(21))
def test_every_number_of_classes_fills_80_slots_and_the_path_is_absolute(tmp_path: Path, count: int) -> None:
    none = Classes(tuple(f"Class-{slot}" for slot in range(80)), frozenset())
    listed = tmp_path / "classes.json"
    listed.write_text(json.dumps([{"Id": number, "Name": f"Näme: {number}"} for number in range(count)]))
    classes = load_classes(listed) if count else none
    data = yaml.safe_load(data_yaml(Path("datasets") / "azaion-2026-04-01", classes))
    assert list(data["names"]) == list(range(80))
    assert tuple(data["names"].values()) == classes.names
    assert sum(not name.startswith("Class-") for name in data["names"].values()) == 3 * count
    assert Path(data["path"]) == Path.cwd() / "datasets" / "azaion-2026-04-01"
