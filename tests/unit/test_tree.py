"""A row into the tree: order, idempotence, and files that are never changed in place."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.ingest import tree as tree_module
from azaion_daemon.ingest.tree import Tree
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Annotation
from tests.unit.builders import BOX, make_root, picture, put_files, row, staged, tree_of
from tests.unit.test_rules_model import Crash, crash_after_lines

NEW = "2 0.1 0.1 0.1 0.1\n"
SEED, VALIDATED, DELETED = Home.SEED, Home.VALIDATED, Home.DELETED
DIRECTORY = {SEED: "data-seed", VALIDATED: "data", DELETED: "data_deleted"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


@pytest.fixture
def tree(layout: Layout) -> Tree:
    return Tree(layout)


def files(home: Home, label: str = BOX, image: int | None = 0, extension: str = "jpg") -> dict[str, bytes]:
    found = {f"{DIRECTORY[home]}/labels/a.txt": label.encode()}
    if image is not None:
        found[f"{DIRECTORY[home]}/images/a.{extension}"] = picture(image)
    return found


def stage(layout: Layout, number: int, file: str | None = None) -> str:
    name = file or f"{number}.image"
    (layout.incoming / name).write_bytes(picture(number))
    return name


def with_staged(layout: Layout, before: Annotation, number: int) -> Annotation:
    return before._replace(image=staged(number).sha256, staged=stage(layout, number))


def steps_of(layout: Layout, work: Callable[[], object]) -> list[set[str]]:
    """The files of the tree before every line of tree.py that `work` runs, each state once."""
    states = [set(tree_of(layout))]

    def trace(*_: object) -> Any:
        if (now := set(tree_of(layout))) != states[-1]:
            states.append(now)
        return trace

    sys.settrace(lambda frame, *_: trace if frame.f_code.co_filename == tree_module.__file__ else None)
    try:
        work()
    finally:
        sys.settrace(None)
    return [*states, set(tree_of(layout))]


@pytest.mark.parametrize("home", list(Home))
def test_a_new_annotation_is_put_from_its_staged_file(layout: Layout, tree: Tree, home: Home) -> None:
    assert tree.place(with_staged(layout, row(home), 1))
    assert tree_of(layout) == files(home, image=1)
    assert list(layout.incoming.iterdir()) == []


@pytest.mark.parametrize("before", list(Home))
@pytest.mark.parametrize("after", list(Home))
def test_an_annotation_moves_whole_between_homes(layout: Layout, tree: Tree, before: Home, after: Home) -> None:
    put_files(layout, row(before))
    assert tree.place(row(after, label=NEW))
    assert tree_of(layout) == files(after, NEW)


@pytest.mark.parametrize(("before", "after"), [(SEED, VALIDATED), (VALIDATED, DELETED), (DELETED, SEED), (SEED, DELETED)])
def test_no_home_ever_has_an_image_without_its_label(layout: Layout, tree: Tree, before: Home, after: Home) -> None:
    put_files(layout, row(before))
    for state in steps_of(layout, lambda: tree.place(row(after))):
        for home in Home:
            if f"{DIRECTORY[home]}/images/a.jpg" in state:
                assert f"{DIRECTORY[home]}/labels/a.txt" in state, "a trainer would take the image for background"


def test_a_new_image_never_comes_before_its_label(layout: Layout, tree: Tree) -> None:
    placed = with_staged(layout, row(VALIDATED), 1)
    order = steps_of(layout, lambda: tree.place(placed))
    assert [len(state) for state in order if state] == sorted(len(state) for state in order if state)
    assert next(state for state in order if state) == {"data/labels/a.txt"}


@pytest.mark.parametrize("home", list(Home))
def test_the_old_image_of_another_extension_vanishes(layout: Layout, tree: Tree, home: Home) -> None:
    put_files(layout, row(SEED))
    placed = with_staged(layout, row(home, extension="png", stale_extensions="jpg/"), 1)
    assert tree.place(placed)
    assert tree_of(layout) == files(home, image=1, extension="png")


def test_a_pending_revision_is_a_label_alone_in_the_seed_directory(layout: Layout, tree: Tree) -> None:
    put_files(layout, row(VALIDATED))
    tree.place(row(VALIDATED, pending=NEW))
    assert tree_of(layout) == {**files(VALIDATED), **files(SEED, NEW, image=None)}


@pytest.mark.parametrize("pending", ["", BOX])
def test_an_empty_revision_or_one_like_the_label_is_a_file_too(layout: Layout, tree: Tree, pending: str) -> None:
    put_files(layout, row(SEED))
    tree.place(row(VALIDATED, pending=pending))
    assert tree_of(layout) == {**files(VALIDATED), **files(SEED, pending, image=None)}


@pytest.mark.parametrize("label", [BOX, NEW])
def test_a_pending_revision_goes_away(layout: Layout, tree: Tree, label: str) -> None:
    put_files(layout, row(VALIDATED, pending=NEW))
    tree.place(row(VALIDATED, label=label))
    assert tree_of(layout) == files(VALIDATED, label)


def test_a_deleted_annotation_keeps_its_pending_text_in_the_row_only(layout: Layout, tree: Tree) -> None:
    put_files(layout, row(VALIDATED, pending=NEW))
    tree.place(row(DELETED, pending=NEW))
    assert tree_of(layout) == files(DELETED)


@pytest.mark.parametrize("home", list(Home))
@pytest.mark.parametrize("pending", [None, NEW])
def test_placing_twice_is_the_same_as_once(layout: Layout, tree: Tree, home: Home, pending: str | None) -> None:
    put_files(layout, row(SEED))
    placed = with_staged(layout, row(home, label=NEW, pending=pending, extension="png", stale_extensions="jpg/"), 1)
    assert tree.place(placed)
    once = tree_of(layout)
    assert tree.place(placed)
    assert tree_of(layout) == once
    assert list(layout.incoming.iterdir()) == []


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # a crash closes nothing
@pytest.mark.parametrize(
    "after",
    [
        row(VALIDATED),
        row(VALIDATED, label=NEW, pending=BOX),
        row(DELETED, label=NEW),
        row(VALIDATED, label=NEW, image=staged(1).sha256, staged="1.image", extension="png", stale_extensions="jpg/"),
        row(SEED, image=staged(1).sha256, staged="1.image"),
    ],
    ids=["validated", "revised", "deleted", "new image", "same home"],
)
def test_a_crash_on_any_line_and_placing_again_is_the_same_as_once(tmp_path: Path, after: Annotation) -> None:
    expected: dict[str, bytes] | None = None
    for lines in [10_000, *range(400)]:
        layout = make_root_quickly(tmp_path / str(lines))
        put_files(layout, row(SEED))
        stage(layout, 1)
        crashed = True
        with suppress(Crash), crash_after_lines(lines, tree_module):
            Tree(layout).place(after)
            crashed = False
        assert Tree(layout).place(after)
        placed = tree_of(layout)
        expected = expected or placed
        assert placed == expected, f"after a crash on line {lines}"
        if not crashed and lines != 10_000:
            return
    pytest.fail("it never came to its end")


def make_root_quickly(root: Path) -> Layout:
    layout = Layout(root)
    for directory in layout.directories():
        directory.mkdir(parents=True)
    return layout


@pytest.mark.parametrize(
    "after",
    [
        row(VALIDATED, label=NEW),
        row(VALIDATED, image=staged(1).sha256, staged="1.image"),
        row(DELETED, label=NEW),
        row(VALIDATED, pending=NEW),
        row(SEED, label=NEW),
    ],
    ids=["label", "image", "deleted", "pending", "seed"],
)
def test_a_link_taken_before_keeps_the_old_bytes(layout: Layout, tree: Tree, tmp_path: Path, after: Annotation) -> None:
    put_files(layout, row(VALIDATED, pending="3 0.5 0.5 0.1 0.1\n"))
    stage(layout, 1)
    before = tree_of(layout)
    links = {path: tmp_path / f"link-{number}" for number, path in enumerate(before)}
    for path, link in links.items():
        os.link(layout.root / path, link)
    tree.place(after)
    assert {path: link.read_bytes() for path, link in links.items()} == before


def test_an_image_that_is_nowhere_is_reported_and_the_label_placed_all_the_same(layout: Layout, tree: Tree) -> None:
    assert tree.place(row(VALIDATED)) is False
    assert tree_of(layout) == files(VALIDATED, image=None)


def test_images_of_which_none_is_the_right_one_are_left_where_they_are(layout: Layout, tree: Tree) -> None:
    put_files(layout, row(SEED), images=[1])
    put_files(layout, row(DELETED), images=[2])
    assert tree.place(row(VALIDATED)) is False
    assert {path for path in tree_of(layout) if "images" in path} == {"data-seed/images/a.jpg", "data_deleted/images/a.jpg"}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_a_labels_place_is_named_and_holds_nobody_up(layout: Layout, tree: Tree, make: Callable[[Path], None]) -> None:
    make(layout.label(SEED, "a"))
    with pytest.raises(FileExistsError, match="stands where one belongs") as caught:
        tree.place(row(SEED, image=None))
    assert caught.value.filename == str(layout.label(SEED, "a"))


def test_only_the_names_of_lost_images_are_reported(layout: Layout, tree: Tree) -> None:
    put_files(layout, row(SEED, name="here"))
    rows = [row(VALIDATED, name="here"), row(VALIDATED, name="lost"), row(VALIDATED, name="none", image=None, image_missing=True)]
    assert [one.name for one in tree.place_all(rows)] == ["lost"]


def test_a_row_without_an_image_has_no_image_in_the_tree(layout: Layout, tree: Tree) -> None:
    put_files(layout, row(SEED, image=None))
    assert tree.place(row(VALIDATED, image=None, image_missing=True, extension=""))
    assert tree_of(layout) == files(VALIDATED, image=None)


def test_the_right_one_of_two_images_is_told_by_its_digest(layout: Layout, tree: Tree) -> None:
    put_files(layout, row(SEED), row(DELETED), images=(1, 0))
    assert tree.place(row(VALIDATED))
    assert tree_of(layout) == files(VALIDATED, image=0)


def test_names_near_the_limit_fit(layout: Layout, tree: Tree) -> None:
    name = "ä" * 100
    assert tree.place(with_staged(layout, row(VALIDATED, name=name), 1))
    assert layout.label(VALIDATED, name).exists()


@pytest.mark.parametrize("gone", ["seed", "incoming"])
def test_an_image_is_not_lost_because_the_directory_it_may_be_in_is_gone(layout: Layout, tree: Tree, gone: str) -> None:
    put_files(layout, row(SEED))
    directory = layout.images(SEED) if gone == "seed" else layout.incoming
    layout.image(SEED, "a", "jpg").unlink()
    aside = directory.rename(layout.root / "moved away")
    with pytest.raises(FileNotFoundError):
        tree.place(row(VALIDATED))
    aside.rename(directory)
    assert not tree.place(row(VALIDATED))
