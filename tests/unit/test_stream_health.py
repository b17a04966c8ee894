"""How far the consumer is behind, and what the status says of it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from azaion_daemon.ops.status_view import render_status
from azaion_daemon.stream.health import StreamHealth

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("known", "behind_s", "backlog"),
    [
        ({}, None, None),
        ({"offset": 5, "written_at": 100.0, "taken_at": 100.5}, 0.5, None),  # nobody asked, since nobody needs to
        ({"offset": 5, "written_at": 100.0, "taken_at": 99.0}, 0.0, None),  # the broker's clock is ahead
        ({"offset": 5, "written_at": 100.0, "taken_at": 900.0, "newest_offset": 25, "newest_asked_at": 901.0}, 800.0, 20),
        ({"offset": 25, "written_at": 100.0, "taken_at": 900.0, "newest_offset": 25, "newest_asked_at": 901.0}, 0.0, 0),
        ({"offset": 25, "written_at": 100.0, "taken_at": 950.0, "newest_offset": 25, "newest_asked_at": 901.0}, 850.0, None),
        ({"offset": 30, "written_at": 100.0, "taken_at": 950.0, "newest_offset": 25, "newest_asked_at": 901.0}, 850.0, None),
    ],
)
def test_it_is_behind_until_the_stream_is_known_to_have_no_more(known: dict[str, Any], behind_s: float | None, backlog: int | None) -> None:
    health = StreamHealth(connected=True, **known)
    assert (health.behind_s, health.backlog_messages) == (behind_s, backlog)


def test_without_a_connection_nothing_is_known() -> None:
    health = StreamHealth(offset=5, written_at=100.0, taken_at=900.0, newest_offset=25, newest_asked_at=901.0)
    assert (health.behind_s, health.backlog_messages) == (None, None)


def status_document(**stream: Any) -> dict[str, Any]:
    return {
        "state": "running",
        "version": "0",
        "pid": 1,
        "uptime_s": 1.0,
        "stream": {"connected": True, "why": None, "position": 7, "reconnects": 2, "attempts": 0, "paused": None, **stream},
        "annotations": {"seed": 1},
        "training": {"why": "wait", "jobs": []},
        "models": {"current": None},
        "releases": [],
    }


def rendered(**stream: Any) -> str:
    return render_status(status_document(**stream), NOW).splitlines()[1]


@pytest.mark.parametrize(
    ("behind_s", "backlog", "said"),
    [(None, None, "position 7, 2 reconnects"), (0.2, None, "position 7, 0 s behind, 2"), (812.4, 5000, "812 s behind (5000 messages), 2")],
)
def test_people_are_told_how_far_behind_it_is(behind_s: float | None, backlog: int | None, said: str) -> None:
    assert said in rendered(behind_s=behind_s, backlog_messages=backlog)


def test_people_are_told_how_fast_it_is() -> None:
    assert "position 7, 12.3 messages/s (4.6 MB/s), 2 reconnects" in rendered(messages_per_s=12.34, bytes_per_s=4_560_000)
    assert "position 7, 2 reconnects" in rendered(messages_per_s=0.0, bytes_per_s=0)


def test_how_far_resizing_is_stands_in_the_status() -> None:
    document = status_document()
    document["training"] |= {"jobs": [{"id": "J", "state": "forming"}], "resizing": {"done": 7, "of": 90}}
    assert "resizing     7 of 90 images for the dataset of job J" in render_status(document, NOW).splitlines()
