"""classes.json, and the 80 slots that a model is trained on."""

import json
from pathlib import Path

import pytest

from azaion_daemon.dataset.classes import Classes, classes_digest_input, load_classes
from azaion_daemon.errors import ConfigError


def load(tmp_path: Path, document: object) -> Classes:
    path = tmp_path / "classes.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return load_classes(path)


def entry(id_: object, name: object) -> dict[str, object]:
    return {"Id": id_, "Name": name, "ShortName": "x", "Color": "#ff0000", "MaxSizeM": 7}


@pytest.mark.parametrize("count", [1, 17, 19, 20])
def test_every_class_stands_in_three_modes(tmp_path: Path, count: int) -> None:
    classes = load(tmp_path, [entry(number, f"Class {number}") for number in range(count)])
    assert len(classes.names) == 80
    assert (classes.names[0], classes.names[20], classes.names[40]) == ("Class 0", "Class 0(Wint)", "Class 0(Night)")
    assert classes.known == {offset + number for offset in (0, 20, 40) for number in range(count)}


def test_a_slot_that_no_class_stands_for_is_numbered(tmp_path: Path) -> None:
    classes = load(tmp_path, [entry(3, "Tank")])
    assert (classes.names[2], classes.names[3], classes.names[79]) == ("Class-2", "Tank", "Class-79")


def test_the_order_of_entries_does_not_matter(tmp_path: Path) -> None:
    assert load(tmp_path, [entry(1, "b"), entry(0, "a")]) == load(tmp_path, [entry(0, "a"), entry(1, "b")])


def test_names_are_unicode_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + json.dumps([entry(0, "Танк")])).names[0] == "Танк"


@pytest.mark.parametrize(
    "document",
    [
        "", "{", "{}", "[1]", [], [entry(20, "x")], [entry(-1, "x")], [entry("one", "x")], [entry(0, "")], [entry(0, None)], [{"Id": 0}],
        [{"Name": "x"}], [entry(0, "a"), entry(0, "b")],
    ],
)  # fmt: skip
def test_what_is_no_class_list_is_an_error_with_its_path(tmp_path: Path, document: object) -> None:
    with pytest.raises(ConfigError, match=r"classes\.json"):
        load(tmp_path, document)


def test_a_missing_list_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Put the platform's class list there"):
        load_classes(tmp_path / "classes.json")
    (tmp_path / "classes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_classes(tmp_path / "classes.json")


def test_the_digest_input_tells_classes_apart(tmp_path: Path) -> None:
    one, other = load(tmp_path, [entry(0, "a")]), load(tmp_path, [entry(0, "b")])
    assert classes_digest_input(one) != classes_digest_input(other)
