"""`state/status.json`: what the daemon knows of itself, replaced every second for commands to read."""

import json
import os
from pathlib import Path
from typing import Any

from azaion_daemon.store.durable import lock_holder, replace_atomically
from azaion_daemon.store.layout import Layout


def write_status(layout: Layout, document: dict[str, Any]) -> None:
    """Replace the status."""
    replace_atomically(layout.status, json.dumps(document, ensure_ascii=False, default=str).encode())


def read_status(layout: Layout) -> dict[str, Any] | None:
    """The daemon's last words, with `state` set to `stopped` when it cannot have been its last: its process is gone. None without any."""
    try:
        document: dict[str, Any] = json.loads(layout.status.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if document["pid"] != lock_holder(layout.lock):
        document["state"] = "stopped"
    return document


def disk(root: Path) -> dict[str, int]:
    """Size and free space of the root's filesystem, in bytes."""
    numbers = os.statvfs(root)
    return {"total_bytes": numbers.f_blocks * numbers.f_frsize, "free_bytes": numbers.f_bavail * numbers.f_frsize}


def render_status(document: dict[str, Any] | None) -> str:
    """The status for people."""
    if document is None:
        return "The daemon has never run on this root."
    stream, annotations, training = document["stream"], document["annotations"], document["training"]
    current = document["models"]["current"]
    connection = "connected" if stream["connected"] else f"not connected: {stream['why'] or 'trying'}"
    if document["state"] == "stopped":
        connection = "not connected"
    position = "nothing consumed yet" if stream["position"] is None else f"position {stream['position']}"
    lines = [
        f"daemon       {document['state']}, version {document['version']}, pid {document['pid']}, up {document['uptime_s']:.0f} s",
        f"stream       {connection}; {position}{_behind(stream)}{_pace(stream)}, {stream['reconnects']} reconnects",
        "annotations  " + ", ".join(f"{count} {kind}" for kind, count in annotations.items()),
        f"training     {training['why']}",
    ]
    if stream["paused"]:
        lines.append(f"paused       {stream['paused']}")
    if resizing := training.get("resizing"):  # the last words may be those of an earlier version
        lines.append(f"resizing     {resizing['done']} of {resizing['of']} images for a dataset")
    lines += [f"job          {job['id']}: {_far(job)}" for job in training.get("jobs", ()) if "progress" in job]
    lines.append(f"model        {_model(current) if current else 'none yet'}")
    lines += [f"release {one['serial']:<4} {one['state']}{': ' + one['why'] if one['why'] else ''}" for one in document["releases"]]
    return "\n".join(lines)


def _far(job: dict[str, Any]) -> str:
    """How far a job is that is under way."""
    progress = job["progress"]
    where = job["state"] if progress is None else f"{progress['phase']}, epoch {progress['epoch']} of {progress['epochs']}"
    return where + (f"; waits for {job['waits_for']}" if job["waits_for"] else "")


def _model(current: dict[str, Any]) -> str:
    map50 = current["map50"]
    return f"{current['sha256'][:12]}, mAP50 {'unknown' if map50 is None else f'{map50:.3f}'}"


def _pace(stream: dict[str, Any]) -> str:
    messages_per_s: float = stream.get("messages_per_s", 0.0)  # the last words may be those of an earlier version
    return f", {messages_per_s:.1f} messages/s ({stream['bytes_per_s'] / 1e6:.1f} MB/s)" if messages_per_s else ""


def _behind(stream: dict[str, Any]) -> str:
    behind_s, backlog = stream.get("behind_s"), stream.get("backlog_messages")
    if behind_s is None:
        return ""
    return f", {behind_s:.0f} s behind" + (f" ({backlog} messages)" if backlog else "")
