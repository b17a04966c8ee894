"""Messages that could not be decoded or applied, kept whole."""

import hashlib
from pathlib import Path

import pytest

from azaion_daemon.store.quarantine import Quarantine


def put(quarantine: Quarantine, offset: int, data: bytes = b"data", reason: str = "because") -> None:
    quarantine.put(stream="s", offset=offset, data=data, reason=reason, now=5.0)


def test_a_message_is_kept_whole_with_its_reason(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    put(quarantine, 42, b"\0whole\xff", "причина")
    assert (tmp_path / "42.amqp").read_bytes() == b"\0whole\xff"
    (entry,) = quarantine.entries()
    assert (entry.stream, entry.offset, entry.time, entry.reason, entry.bytes) == ("s", 42, 5.0, "причина", 7)
    assert entry.sha256 == hashlib.sha256(b"\0whole\xff").hexdigest()


def test_entries_come_in_the_order_of_the_stream(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    for offset in (100, 9, 20):
        put(quarantine, offset)
    assert [entry.offset for entry in quarantine.entries()] == [9, 20, 100]


def test_one_that_is_let_go_while_they_are_listed_is_left_out(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    quarantine.put(stream="s", offset=1, data=b"x", reason="r", now=0.0)
    (tmp_path / "2.json").symlink_to("gone.json")  # there for the listing, not for the reading
    assert [entry.offset for entry in quarantine.entries()] == [1]


def test_the_same_message_again_changes_nothing(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    put(quarantine, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    put(quarantine, 1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert quarantine.count() == 1


def test_half_of_what_a_crash_left_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "7.amqp").write_bytes(b"data")
    (tmp_path / ".8.json.99.tmp").write_bytes(b"{")
    quarantine = Quarantine(tmp_path)
    assert (quarantine.count(), quarantine.entries()) == (0, [])


def test_half_of_what_a_crash_left_goes_and_what_is_whole_stays(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    put(quarantine, 1)
    put(quarantine, 2)
    (tmp_path / "2.json").unlink()
    quarantine.remove_halves()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.amqp", "1.json"]


def test_a_quarantine_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        put(Quarantine(tmp_path / "nowhere"), 1)
