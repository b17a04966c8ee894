"""The status for people, as rows: what it says, whatever shows it.

The document may be the last words of an earlier version or those of a later one: what is missing is left out, what is unknown ignored.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from azaion_daemon.ops.job_view import gpu_row, held_row, job_row, under_way_rows
from azaion_daemon.ops.rows import Mood, Row
from azaion_daemon.ops.wording import duration, since, size

_LABEL = 13
_BAR = 24
_RELEASES = 3
_HELD = 2
"""So many models that wait for an operator go before all other trainings that have ended."""
_LITTLE_DISK = 0.05
_BUSY = frozenset({"requested", "forming", "queued", "running"})


class Part(StrEnum):
    """What rows are about, in the order in which a person wants to know."""

    DAEMON = "daemon"
    INGEST = "ingest"
    TRAINING = "training"
    HISTORY = "history"
    MODEL = "model"
    MACHINE = "machine"


def parts_of(document: Mapping[str, Any] | None, now: datetime, *, bar: int = _BAR) -> dict[Part, list[Row]]:
    """Everything that the status says. `now` is in the reader's time zone; bars take `bar` characters."""
    if document is None:
        return {Part.DAEMON: [Row("daemon", "The daemon has never run on this root.", Mood.WARN)]}
    training = _mapping(document, "training")
    jobs = [job for job in training.get("jobs") or [] if isinstance(job, Mapping)]
    under_way = [job for job in jobs if job.get("progress") or job.get("waits_for") or job.get("state") in _BUSY]
    held = [job for job in jobs if job.get("state") == "held"][-_HELD:]
    return {
        Part.DAEMON: list(_daemon(document, now)),
        Part.INGEST: list(_ingest(document)),
        Part.TRAINING: [*_due(training), *(row for job in under_way for row in under_way_rows(job, now, width=bar))],
        Part.HISTORY: [
            *(held_row(job, now) for job in reversed(held)),
            *(job_row(job, now) for job in reversed(jobs) if job not in under_way and job not in held),
        ],
        Part.MODEL: list(_model(document)),
        Part.MACHINE: [*(gpu_row(gpu) for gpu in document.get("gpus") or []), *_machine(document)],
    }


def render_status(document: Mapping[str, Any] | None, now: datetime, *, history: int = 3) -> str:
    """The status as plain lines, with so many jobs that have ended."""
    parts = parts_of(document, now)
    rows = [row for part, found in parts.items() for row in (found[:history] if part is Part.HISTORY else found)]
    return "\n".join(f"{row.label:<{_LABEL}}{row.text}".rstrip() for row in rows)


def _daemon(document: Mapping[str, Any], now: datetime) -> Iterator[Row]:
    state = str(document.get("state", "unknown"))
    text = f"{state}, version {document.get('version', 'unknown')}, pid {document.get('pid')}, up {duration(document.get('uptime_s') or 0)}"
    if state == "stopped":
        written = f", {since(str(document['written']), now)}" if document.get("written") else ""
        text = f"stopped; what follows are its last words{written} (version {document.get('version', 'unknown')})"
    yield Row("daemon", text, {"running": Mood.GOOD, "stopped": Mood.BAD}.get(state, Mood.WARN))


def _ingest(document: Mapping[str, Any]) -> Iterator[Row]:
    stream = _mapping(document, "stream")
    connected = bool(stream.get("connected")) and document.get("state") != "stopped"
    connection = "connected" if connected else "not connected"
    if not connected and document.get("state") != "stopped":
        connection = f"not connected: {stream.get('why') or 'trying'}"
    position = "nothing consumed yet" if stream.get("position") is None else f"position {stream['position']:,}"
    text = f"{connection}; {position}{_behind(stream)}{_pace(stream)}, {stream.get('reconnects', 0)} reconnects"
    yield Row("stream", text, Mood.PLAIN if connected else Mood.WARN)
    yield Row(
        "annotations", ", ".join(f"{count:,} {kind}" for kind, count in _mapping(document, "annotations").items() if isinstance(count, int))
    )
    if stream.get("paused"):
        yield Row("paused", str(stream["paused"]), Mood.BAD)


def _due(training: Mapping[str, Any]) -> Iterator[Row]:
    yield Row("training", str(training.get("why", "unknown")))
    if resizing := training.get("resizing"):
        forming = [str(job.get("id")) for job in training.get("jobs") or [] if job.get("state") == "forming"]
        what = f"for the dataset of job {forming[0]}" if forming else "for a dataset"
        yield Row("resizing", f"{resizing.get('done')} of {resizing.get('of')} images {what}")


def _model(document: Mapping[str, Any]) -> Iterator[Row]:
    current = _mapping(document, "models").get("current")
    if not current:
        yield Row("model", "none yet", Mood.DIM)
    else:
        scores = (("mAP50", current.get("map50")), ("mAP50-95", current.get("map50_95")))
        known = [f"{name} {value:.3f}" for name, value in scores if value is not None]
        yield Row("model", ", ".join([str(current.get("sha256"))[:12], *(known or ["mAP50 unknown"])]))
    for one in (document.get("releases") or [])[-_RELEASES:]:
        state = str(one.get("state"))
        mood = {"published": Mood.GOOD, "superseded": Mood.DIM}.get(state, Mood.WARN)
        words = [f"{state}{': ' + str(one['why']) if one.get('why') else ''}"]
        if one.get("under_way"):
            words.append("being published")
        elif one.get("next_try") is not None:
            words.append(f"tried {one.get('attempts')} times, next at {datetime.fromtimestamp(one['next_try'], UTC):%H:%M:%S} UTC")
        yield Row(f"release {one.get('serial')}", "; ".join(words), mood)


def _machine(document: Mapping[str, Any]) -> Iterator[Row]:
    if problem := document.get("gpus_problem"):
        yield Row("GPUs", str(problem), Mood.BAD)
    disk = _mapping(document, "disk")
    total, free = disk.get("total_bytes"), disk.get("free_bytes")
    if total and free is not None:
        mood = Mood.WARN if free < _LITTLE_DISK * total else Mood.PLAIN
        yield Row("disk", f"{size(free)} of {size(total)} free", mood)


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, Mapping) else {}


def _pace(stream: Mapping[str, Any]) -> str:
    messages_per_s: float = stream.get("messages_per_s") or 0.0
    return f", {messages_per_s:.1f} messages/s ({(stream.get('bytes_per_s') or 0) / 1e6:.1f} MB/s)" if messages_per_s else ""


def _behind(stream: Mapping[str, Any]) -> str:
    behind_s, backlog = stream.get("behind_s"), stream.get("backlog_messages")
    if behind_s is None:
        return ""
    return f", {behind_s:.0f} s behind" + (f" ({backlog} messages)" if backlog else "")
