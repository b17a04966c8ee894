"""offset.yaml of the service before: one integer, whose key nobody has written down."""

from pathlib import Path

import pytest

from azaion_daemon.errors import OperatorError
from azaion_daemon.index.offset import read_offset


@pytest.mark.parametrize(
    "text",
    [
        "17", "17\n", "'17'", "offset: 17", "Offset: 17", "OFFSET: '17'", "position: 17", "last_offset: 17", "last-offset: 17",
        "lastOffset: 17", "LastOffset: 17", "stream_offset: 17", "streamOffset: 17", "value: 17", "azaion-annotations: 17",
        "offset: 17\nupdated: 1700000000", "stream: {offset: 17, port: 5552}", "stream: {name: x, last: 17}", "offset: 17\nposition: 17",
        "{offset: 17, done: true, at: 2026-03-01T00:00:00Z}", "\ufeffoffset: 17", "offset: 17  # the next one",
    ],
)  # fmt: skip
def test_every_plausible_spelling_is_understood(tmp_path: Path, text: str) -> None:
    (tmp_path / "offset.yaml").write_text(text)
    assert read_offset(tmp_path / "offset.yaml") == 17


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no integer"),
        ("offset:", "holds no integer"),
        ("offset: true", "holds no integer"),
        ("offset: 1.5", "holds no integer"),
        ("offset: soon", "holds no integer"),
        ("- 17", "holds no integer"),
        ("a: {b: {offset: 17}}", "holds no integer"),
        ("a: 17\nb: 18", r"holds several integers \(17, 18\)"),
        ("offset: 17\nposition: 18", r"holds several integers \(17, 18\)"),
        ("offset: -1", "has the offset -1"),
        (f"offset: {2**63}", "which no stream has"),
        ("offset: [", "cannot be read"),
        ("!!python/object:os.system {}", "cannot be read"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "offset.yaml").write_text(text)
    with pytest.raises(OperatorError, match=why):
        read_offset(tmp_path / "offset.yaml")


def test_a_file_that_is_none_or_no_text_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"gone\.yaml cannot be read"):
        read_offset(tmp_path / "gone.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(OperatorError, match=r"bytes\.yaml cannot be read"):
        read_offset(tmp_path / "bytes.yaml")
