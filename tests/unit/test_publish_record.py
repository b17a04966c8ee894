"""What is kept of a release while it is under way."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from azaion_daemon.publish.record import Published, RecordError, ReleaseRecord, ReleaseRecords


def test_a_record_is_read_as_it_was_kept(tmp_path: Path) -> None:
    done = Published(1, "m", "p", "c", 1, 1, "downloaded", datetime(2026, 4, 1, tzinfo=UTC), "identical")
    record = ReleaseRecord(1, "m", "p", 1, b"small", published=done, manifest="signed", swapped="etag")
    records = ReleaseRecords(tmp_path)
    records.save(record)
    assert records.load(1) == record
    assert records.all() == [record]
    assert records.load(2) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "{}", '{"small": "x"}', '{"small": "", "published": {"serial": 1}}', "\\xff"])
def test_what_is_no_record_is_named_with_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "7.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RecordError, match=r"7\.json is no record of a release .*move it away"):
        ReleaseRecords(tmp_path).load(7)
    assert ReleaseRecords(tmp_path).serials() == [7]
