"""Which multipart uploads are taken for dead."""

from pathlib import Path

import pytest

from azaion_daemon.publish.record import Published, ReleaseRecord
from azaion_daemon.publish.restoring import superfluous
from azaion_daemon.publish.uploads import DEAD_AFTER_S, Upload, UploadJournal, dead, told_time

OLD, YOUNG = DEAD_AFTER_S + 1, 60.0


@pytest.mark.parametrize(
    ("key", "age_s", "expected"),
    [
        ("azaion.onnx.big", OLD, True),
        ("azaion-12.onnx.big", OLD, True),
        ("azaion.onnx.big", YOUNG, False),  # another site may be at work
        ("azaion-12.onnx.small", OLD, False),
        ("azaion-12.onnx.big.bak", OLD, False),
        ("azaion-x.onnx.big", OLD, False),
        ("azaion-12xonnx.big", OLD, False),
        ("my-azaion.onnx.big", OLD, False),
    ],
)
def test_only_old_uploads_of_our_names_are_dead(key: str, age_s: float, expected: bool) -> None:  # noqa: FBT001
    upload = Upload("models", key, "1")
    assert dead([(upload, age_s)], "azaion.onnx") == ([upload] if expected else [])


def test_the_journal_is_there_while_something_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "uploads.json"
    one, two = Upload("models", "a", "1"), Upload("models", "a", "2")
    UploadJournal(path).add(one)
    UploadJournal(path).add(two)
    assert UploadJournal(path).load() == [one, two]
    UploadJournal(path).remove(one)
    UploadJournal(path).remove(one)
    assert UploadJournal(path).load() == [two]
    UploadJournal(path).remove(two)
    assert not path.exists()


def test_a_journal_of_nonsense_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "uploads.json").write_text('[{"a": 1}]')
    assert UploadJournal(tmp_path / "uploads.json").load() == []


def test_the_stores_clock_counts() -> None:
    assert told_time("Wed, 21 Oct 2026 07:28:00 GMT").isoformat() == "2026-10-21T07:28:00+00:00"
    assert told_time(None).tzinfo is not None


def record(serial: int, *, published: bool = True, removed: bool = False) -> ReleaseRecord:
    done = Published(serial, "m", "p", "c", 1, 1, "listed", told_time(None)) if published else None
    return ReleaseRecord(serial, "m", "p", 1, b"", "c", done, removed=removed)


def test_only_versions_that_nothing_names_are_superfluous() -> None:
    records = [
        record(1, removed=True), record(2), record(3, published=False), record(4), record(5), record(6), record(7, published=False),
    ]  # fmt: skip
    assert [one.serial for one in superfluous(records, 2)] == [2, 3, 4]
    assert [one.serial for one in superfluous(records, 3)] == [2, 3]
    assert superfluous(records[:1], 2) == superfluous([], 2) == []
