"""The status in one sentence, for `systemctl status`."""

from collections.abc import Iterator, Mapping
from typing import Any

from azaion_daemon.ops.wording import duration
from azaion_daemon.training.states import UNFINISHED, JobState

_RUNNING = "running"


def status_line(document: Mapping[str, Any]) -> str:
    """What matters most comes first: what is wrong, then how far everything is."""
    return "; ".join(_clauses(document))


def _clauses(document: Mapping[str, Any]) -> Iterator[str]:
    stream = document["stream"]
    if document["state"] != _RUNNING:
        yield str(document["state"]).capitalize()
    elif stream["paused"] is not None:
        yield f"Paused: {stream['paused']}"
    elif stream["connected"]:
        yield "Running"
    else:
        yield "Not connected yet" if stream["why"] is None else f"Not connected: {stream['why']}, trying again"
    for one in document["health"]["ailing"]:
        yield f"{one['part']} has not got on for {duration(one['for_s'])} ({one['what']})"
    if (document["config"]["last_reload"] or {"ok": True})["ok"] is False:
        yield "the last reload failed"
    if stream["position"] is not None:
        yield f"position {stream['position']:,}"
    for job in document["training"]["jobs"]:
        if job["state"] in UNFINISHED:
            yield _job(job)


def _job(job: Mapping[str, Any]) -> str:
    progress = job.get("progress")
    if progress is None:
        waits = job.get("waits_for")
        return f"job {job['id']} is {job['state']}" + (f" ({waits})" if waits else "")
    name = job.get("dataset") or f"job {job['id']}"
    if job["state"] == JobState.RUNNING and progress["phase"] == "train":
        return f"training {name} epoch {progress['epoch']} of {progress['epochs']}"
    return f"training {name}: {progress['phase']}"
