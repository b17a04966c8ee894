"""The text form of a label."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.store.labels import Detection, format_label, label_problem, parse_label

KNOWN = frozenset({0, 1, 2})
SHARE = st.floats(0, 1)


@given(st.lists(st.builds(Detection, st.integers(0, 79), SHARE, SHARE, SHARE, SHARE)))
def test_what_is_written_reads_back_the_same(detections: list[Detection]) -> None:
    assert parse_label(format_label(detections)) == detections


def test_one_line_a_detection_and_nothing_for_none() -> None:
    assert format_label([Detection(1, 0.5, 0.25, 0.1, 1.0)]) == "1 0.5 0.25 0.1 1.0\n"
    assert format_label([]) == ""
    assert parse_label("") == []


@pytest.mark.parametrize("text", ["1 0.5 0.5 0.1 0.1", "1 0.5 0.5 0.1 0.1\n\n", "  1\t0.5 0.5 0.1 0.1 \r\n"])
def test_reading_is_tolerant_of_blanks_and_line_ends(text: str) -> None:
    assert parse_label(text) == [Detection(1, 0.5, 0.5, 0.1, 0.1)]


@pytest.mark.parametrize("line", ["1 0.5 0.5 0.1", "1 0.5 0.5 0.1 0.1 0.9", "1.5 0.5 0.5 0.1 0.1", "a b c d e", "1 0.5 0.5 0.1 x"])
def test_a_line_that_is_no_detection_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is not five numbers"):
        parse_label(f"1 0.5 0.5 0.1 0.1\n{line}\n")
    assert label_problem(line, KNOWN) == "line 1 is not five numbers"


@pytest.mark.parametrize("text", ["", "0 0 0 1 1\n", "2 1.0 0.0 0.5 0.5\n1 0.5 0.5 0.1 0.1\n"])
def test_a_label_within_its_bounds_has_no_problem(text: str) -> None:
    assert label_problem(text, KNOWN) is None


@pytest.mark.parametrize("position", range(1, 5))
@pytest.mark.parametrize(
    ("value", "word"), [("nan", "finite"), ("inf", "finite"), ("-inf", "finite"), ("1.0000001", "outside"), ("-0.1", "outside")]
)
def test_a_number_out_of_bounds_is_a_problem_at_every_place(position: int, value: str, word: str) -> None:
    fields = ["1", "0.5", "0.5", "0.5", "0.5"]
    fields[position] = value
    problem = label_problem("1 0.5 0.5 0.1 0.1\n" + " ".join(fields), KNOWN)
    assert problem is not None
    assert problem.startswith("detection 2 ")
    assert word in problem


@pytest.mark.parametrize("class_id", [3, -1, 80, 10**30])
def test_an_unknown_class_is_a_problem(class_id: int) -> None:
    assert label_problem(f"{class_id} 0.5 0.5 0.1 0.1\n", KNOWN) == f"detection 1 has the unknown class {class_id}"
