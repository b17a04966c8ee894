"""The status for people, as rows: what it says, whatever shows it.

The document may be the last words of an earlier version or those of a later one: what is missing is left out, what is unknown ignored.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any

from azaion_daemon.ops.job_view import gpu_row, held_row, job_row, under_way_rows
from azaion_daemon.ops.loosely import mapping
from azaion_daemon.ops.rows import Mood, Row
from azaion_daemon.ops.status import SILENT_S
from azaion_daemon.ops.wording import bar, duration, moment, since, size

_LABEL = 13
_BAR = 24
_RELEASES = 3
_HELD = 2
"""So many models that wait for an operator go before all other trainings that have ended."""
_SILENT_S = 5.0
_SHORT, _LONG = 12, 32
_ASKED = {
    "train_now": "a training",
    "train_cancel": "to cancel job",
    "promote": "to accept the model of job",
    "reject": "to reject the model of job",
    "promote_model": "to make current model",
    "rollback": "to go back to release",
    "replay": "to replay message",
    "index_check": "to compare ledger and files",
}
_BUSY = frozenset({"requested", "forming", "queued", "running"})


class Part(StrEnum):
    """What rows are about, in the order in which a person wants to know."""

    DAEMON = "daemon"
    ATTENTION = "attention"
    CONFIG = "config"
    INGEST = "ingest"
    TRAINING = "training"
    HISTORY = "history"
    MODEL = "model"
    MACHINE = "machine"


def parts_of(document: Mapping[str, Any], now: datetime, *, width: int = _BAR) -> dict[Part, list[Row]]:
    """Everything that the status says. `now` is in the reader's time zone; bars take `width` characters."""
    parts = {Part.DAEMON: [_daemon(document, now)], Part.ATTENTION: list(_attention(document))}
    if not document.get("version"):  # nothing was ever said, or it cannot be read
        return parts
    training = mapping(document, "training")
    jobs = [job for job in training.get("jobs") or [] if isinstance(job, Mapping)]
    under_way = [job for job in jobs if job.get("progress") or job.get("waits_for") or job.get("state") in _BUSY]
    held = [job for job in jobs if job.get("state") == "held"][-_HELD:]
    return {
        **parts,
        Part.CONFIG: list(_config(document, now)),
        Part.INGEST: list(_ingest(document)),
        Part.TRAINING: [
            *_due(document, training, now),
            *(row for job in under_way for row in under_way_rows(job, now, width=width)),
            *_asked(document, training, now),
        ],
        Part.HISTORY: [
            *(held_row(job, now) for job in reversed(held)),
            *(job_row(job, now) for job in reversed(jobs) if job not in under_way and job not in held),
        ],
        Part.MODEL: list(_model(document, now)),
        Part.MACHINE: [*(gpu_row(gpu) for gpu in document.get("gpus") or []), *_machine(document, width)],
    }


def render_status(document: Mapping[str, Any], now: datetime, *, history: int = 3) -> str:
    """The status as plain lines, with so many jobs that have ended."""
    parts = parts_of(document, now)
    rows = [row for part, found in parts.items() for row in (found[:history] if part is Part.HISTORY else found)]
    return "\n".join(f"{row.label:<{_LABEL}}{row.text}".rstrip() for row in rows)


def _daemon(document: Mapping[str, Any], now: datetime) -> Row:
    state, process = str(document.get("state", "unknown")), mapping(document, "process")
    version, pid = document.get("version", "unknown"), process.get("pid") or document.get("pid")
    seen = f" {since(str(document['written']), now)}" if document.get("written") else ""
    mood = {"running": Mood.GOOD, "stopped": Mood.BAD}.get(state, Mood.WARN)
    match state:
        case "unknown":
            text = str(process.get("problem") or "nothing is known of it")
        case "stopped":
            end = "killed or crashed" if process.get("ended") == "crashed" else "stopped"
            text = f"{end}{seen}; its last words follow (version {version})"
        case "starting" if not document.get("uptime_s") or pid != document.get("pid"):
            text = f"process {pid} has the root and has said nothing yet: the daemon starts, or another command is at work"
        case _:
            text = f"{state}, version {version}, pid {pid}, up {duration(document.get('uptime_s') or 0)}"
            if (silent := process.get("silent_s")) is not None and silent > _SILENT_S:
                text, mood = f"{text}; what follows is {duration(silent)} old", Mood.BAD if silent > SILENT_S else Mood.WARN
    return Row("daemon", text, mood)


def _attention(document: Mapping[str, Any]) -> Iterator[Row]:
    found = document.get("attention")
    if found is None:
        return
    moods = {"broken": Mood.BAD, "warning": Mood.WARN}
    for one in found:
        mood = moods.get(str(one.get("level")), Mood.PLAIN)
        yield Row(str(one.get("level")), str(one.get("what")), mood)
        yield Row("", f"-> {one.get('do')}", Mood.DIM)
    if not found:
        yield Row("attention", "nothing needs you", Mood.GOOD)


def _config(document: Mapping[str, Any], now: datetime) -> Iterator[Row]:
    config = mapping(document, "config")
    if not config.get("path"):
        return
    loaded = f", loaded {_at(config['loaded_at'], now)}" if config.get("loaded_at") else ""
    yield Row("config", f"{config['path']}{loaded}")
    last = mapping(config, "last_reload")
    if last and not last.get("ok"):
        yield Row("reload", f"failed {_at(last.get('at'), now)}; the configuration of before is in force", Mood.BAD)
    elif last:
        kinds = (("applied", "applied"), ("next_job", "from the next training on"), ("restart_required", "waiting for a restart"))
        said = [f"{words}: {', '.join(map(str, last[key]))}" for key, words in kinds if last.get(key)]
        text = f"done {_at(last.get('at'), now)}; {'; '.join(said) or 'nothing had changed'}"
        yield Row("reload", text, Mood.WARN if last.get("restart_required") else Mood.PLAIN)


def _at(seconds: Any, now: datetime) -> str:
    try:
        return since(datetime.fromtimestamp(seconds, now.tzinfo).isoformat(), now)
    except (TypeError, ValueError, OverflowError, OSError):
        return "at an unknown time"


def _ingest(document: Mapping[str, Any]) -> Iterator[Row]:
    stream = mapping(document, "stream")
    connected = bool(stream.get("connected")) and document.get("state") != "stopped"
    connection = "connected" if connected else "not connected"
    if not connected and document.get("state") != "stopped":
        connection = f"not connected: {stream.get('why') or 'trying'}"
    position = "nothing consumed yet" if stream.get("position") is None else f"position {stream['position']:,}"
    text = f"{connection}; {position}"
    if document.get("state") != "stopped":
        text += f"{_behind(stream)}{_pace(stream)}, {stream.get('reconnects', 0)} reconnects"
    yield Row("stream", text, Mood.PLAIN if connected else Mood.WARN)
    yield Row(
        "annotations", ", ".join(f"{count:,} {kind}" for kind, count in mapping(document, "annotations").items() if isinstance(count, int))
    )
    if stream.get("paused"):
        yield Row("paused", str(stream["paused"]), Mood.BAD)


def _due(document: Mapping[str, Any], training: Mapping[str, Any], now: datetime) -> Iterator[Row]:
    words = [str(training.get("why", "unknown"))]
    if training.get("next_schedule"):
        with suppress(ValueError):
            at = datetime.fromisoformat(str(training["next_schedule"])).astimezone(now.tzinfo)
            words.append(f"by the schedule next {moment(at, now)}")
    yield Row("training", "; ".join(words), Mood.DIM if document.get("state") == "stopped" else Mood.PLAIN)
    if resizing := training.get("resizing"):
        forming = [str(job.get("id")) for job in training.get("jobs") or [] if job.get("state") == "forming"]
        what = f"for the dataset of job {forming[0]}" if forming else "for a dataset"
        yield Row("resizing", f"{resizing.get('done')} of {resizing.get('of')} images {what}")


def _asked(document: Mapping[str, Any], training: Mapping[str, Any], now: datetime) -> Iterator[Row]:
    """What operators have asked for and nobody has done yet."""
    for one in training.get("requests") or []:
        epochs = f" of {one['epochs']} epochs" if one.get("epochs") else ""
        what = "a trial" if one.get("trial") else f"a training{epochs}"
        yield Row("asked for", f"{what}, {_at(one.get('time'), now)} ({one.get('reason')}): it waits for its turn", Mood.BUSY)
    waits = "it is at work on it" if mapping(document, "process").get("running") else "it waits for the daemon's next start"
    for one in document.get("requests") or []:
        about = f" {_name(str(one['about']))}" if one.get("about") is not None else ""
        reason = f" ({one['reason']})" if one.get("reason") else ""
        yield Row("asked for", f"{_ASKED.get(str(one.get('kind')), one.get('kind'))}{about}{reason}: {waits}", Mood.BUSY)


def _name(about: str) -> str:
    """Digests are known by their beginning."""
    return about if len(about) <= _LONG else about[:_SHORT]


def _model(document: Mapping[str, Any], now: datetime) -> Iterator[Row]:
    current = mapping(document, "models").get("current")
    if not current:
        yield Row("model", "none yet", Mood.DIM)
    else:
        scores = (("mAP50", current.get("map50")), ("mAP50-95", current.get("map50_95")))
        known = [f"{name} {value:.3f}" for name, value in scores if value is not None]
        made = [f"made {_at(current['created'], now)}"] if current.get("created") else []
        yield Row("model", ", ".join([str(current.get("sha256"))[:12], *(known or ["mAP50 unknown"]), *made]))
    published = mapping(document, "models").get("published") or {}
    if published:
        of = (
            "the current model"
            if current and published.get("sha256") == current.get("sha256")
            else f"model {str(published.get('sha256'))[:12]}"
        )
        yield Row("published", f"{of}, release {published.get('serial')}, {_at(published.get('at'), now)}")
    for one in (document.get("releases") or [])[-_RELEASES:]:
        if one.get("serial") == published.get("serial"):
            continue
        state = str(one.get("state"))
        mood = {"published": Mood.GOOD, "superseded": Mood.DIM}.get(state, Mood.WARN)
        words = [f"{state}{': ' + str(one['why']) if one.get('why') else ''}"]
        if one.get("under_way"):
            words.append("being published")
        elif one.get("next_try") is not None:
            words.append(f"tried {one.get('attempts')} times, next at {datetime.fromtimestamp(one['next_try'], now.tzinfo):%H:%M:%S}")
        yield Row(f"release {one.get('serial')}", "; ".join(words), mood)


def _machine(document: Mapping[str, Any], width: int) -> Iterator[Row]:
    if problem := document.get("gpus_problem"):
        yield Row("GPUs", str(problem), Mood.BAD)
    disk = mapping(document, "disk")
    total, free = disk.get("total_bytes"), disk.get("free_bytes")
    if total and free is not None:
        share = disk["used_percent"] / 100 if disk.get("used_percent") is not None else 1 - free / total
        mood = {"high": Mood.WARN, "critical": Mood.BAD}.get(str(disk.get("pressure")), Mood.PLAIN)
        yield Row("disk", f"{bar(share, width // 2)} {share:4.0%}  {size(free)} of {size(total)} free", mood)


def _pace(stream: Mapping[str, Any]) -> str:
    messages_per_s: float = stream.get("messages_per_s") or 0.0
    return f", {messages_per_s:.1f} messages/s ({(stream.get('bytes_per_s') or 0) / 1e6:.1f} MB/s)" if messages_per_s else ""


def _behind(stream: Mapping[str, Any]) -> str:
    behind_s, backlog = stream.get("behind_s"), stream.get("backlog_messages")
    if behind_s is None:
        return ""
    return f", {behind_s:.0f} s behind" + (f" ({backlog} messages)" if backlog else "")
