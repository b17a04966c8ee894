"""Where consumption goes on, and what a message that is not there means."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rstream import OffsetType

from azaion_daemon.sections import StreamSettings
from azaion_daemon.store.records import Position
from azaion_daemon.stream.resume import (
    After,
    At,
    Begin,
    Found,
    Mismatch,
    Resume,
    Start,
    StreamEnds,
    Unverified,
    base_of,
    contradiction,
    first_start,
    judge,
    start_after_mismatch,
    subscribed_offset,
)

KNOWN = Position(10, b"digest", 100)
IMPORTED = Position(10, b"")


def settings(**changes: Any) -> StreamSettings:
    return StreamSettings.model_validate({"host": "h", "port": 1, "user": "u", "password": "p", "name": "s", **changes})


@pytest.mark.parametrize(
    ("position", "start_from", "start"),
    [
        (KNOWN, "beginning", At(KNOWN)),
        (IMPORTED, "end", Unverified(IMPORTED)),
        (None, "beginning", Begin(OffsetType.FIRST)),
        (None, "end", Begin(OffsetType.NEXT)),
        (None, 7, Begin(OffsetType.OFFSET, 7)),
        (None, datetime(2026, 3, 1, tzinfo=UTC), Begin(OffsetType.TIMESTAMP, 1772323200000)),
    ],
)
def test_the_ledgers_position_goes_before_start_from(position: Position | None, start_from: object, start: Start) -> None:
    assert first_start(Resume(position, None), settings(start_from=start_from)) == start


@pytest.mark.parametrize(
    ("start", "asked"),
    [
        (At(KNOWN), (OffsetType.OFFSET, 10)),
        (Unverified(IMPORTED), (OffsetType.OFFSET, 11)),
        (After(10, 100), (OffsetType.OFFSET, 11)),
        (Begin(OffsetType.FIRST), (OffsetType.FIRST, None)),
    ],
)
def test_a_message_that_can_be_compared_is_asked_for_again(start: Start, asked: tuple[OffsetType, int | None]) -> None:
    assert subscribed_offset(start) == asked


@pytest.mark.parametrize(("last_position", "first_offset", "base"), [(None, 5, 0), (99, 0, 100), (99, 40, 60), (99, 500, 0), (99, 100, 0)])
def test_positions_go_on_growing_over_streams(last_position: int | None, first_offset: int, base: int) -> None:
    assert base_of(last_position, first_offset) == base
    assert base + first_offset > (last_position if last_position is not None else -1)


ANOTHER, LATER, NOTHING = Found(10, "another message there"), Found(25, "offset 25 instead"), Found(None, "nothing at it")


@pytest.mark.parametrize(
    ("found", "ends", "kind"),
    [
        (ANOTHER, StreamEnds(0, 50), "anew"),  # grown past the position
        (ANOTHER, None, "anew"),
        (LATER, StreamEnds(25, 50), "truncated"),
        (LATER, StreamEnds(5, 50), "anew"),  # it has older messages, so retention has not removed ours
        (LATER, None, None),  # it was deleted meanwhile
        (NOTHING, StreamEnds(0, 9), "anew"),
        (NOTHING, StreamEnds(0, 50), None),  # stuck
        (NOTHING, None, None),  # empty
    ],
)
def test_what_is_found_instead_tells_a_new_stream_from_a_truncated_one(found: Found, ends: StreamEnds | None, kind: str | None) -> None:
    mismatch = judge(KNOWN, found, ends)
    assert (None if mismatch is None else mismatch.kind) == kind


@pytest.mark.parametrize(
    ("ends", "kind", "missing"),
    [
        (StreamEnds(0, 10), None, 0),
        (StreamEnds(11, 30), None, 0),
        (StreamEnds(12, 30), "truncated", 1),
        (StreamEnds(0, 9), "anew", 0),
    ],
)
def test_an_imported_position_is_only_contradicted_by_the_ends(ends: StreamEnds, kind: str | None, missing: int) -> None:
    mismatch = contradiction(IMPORTED, ends)
    assert (None, 0) if mismatch is None else (mismatch.kind, mismatch.missing) == (kind, missing)


def test_after_retention_the_stream_is_the_same_and_after_deletion_another() -> None:
    assert start_after_mismatch(Mismatch("truncated", "", 14), KNOWN) == After(10, 100)
    assert start_after_mismatch(Mismatch("anew", ""), KNOWN) == Begin(OffsetType.FIRST)


@pytest.mark.parametrize(("last", "base"), [(None, 3), (13, 3), (8, 3), (101, 91)])
def test_positions_grow_when_a_stream_is_gone_back_to(last: int | None, base: int) -> None:
    resumed = Resume(Position(10, b"d", 3), last).beyond_other_streams()
    assert resumed.position == Position(10, b"d", base)
