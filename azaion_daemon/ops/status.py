"""`state/status.json`: what the daemon knows of itself, replaced every second for commands to read."""

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azaion_daemon.errors import AzaionError
from azaion_daemon.ops.job_status import progress_document
from azaion_daemon.store.durable import is_locked, lock_holder, replace_atomically
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.states import JobState


def write_status(layout: Layout, document: dict[str, Any]) -> None:
    """Replace the status; it says when."""
    document = {**document, "written": datetime.now(UTC).isoformat(timespec="seconds")}
    replace_atomically(layout.status, json.dumps(document, ensure_ascii=False, default=str).encode())


def read_status(layout: Layout) -> dict[str, Any] | None:
    """The daemon's last words, with `state` set to `stopped` when its process is gone. None without any.

    Trainings outlive it: how far they are comes from their own directories then.
    """
    try:
        document: dict[str, Any] = json.loads(layout.status.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if document["pid"] != lock_holder(layout.lock):
        document["state"] = "stopped"
        for job in document.get("training", {}).get("jobs", []):
            if job.get("state") == JobState.RUNNING:
                job.update(_without_daemon(JobDirectory(layout.jobs / job["id"])))
    return document


def _without_daemon(job: JobDirectory) -> dict[str, Any]:
    if not is_locked(job.lock):
        return {"progress": None, "waits_for": "the daemon: its worker has ended"}
    with suppress(AzaionError, OSError):
        if (progress := job.read_progress()) is not None:
            return {"progress": progress_document(progress)}
    return {}


def disk(root: Path) -> dict[str, int]:
    """Size and free space of the root's filesystem, in bytes."""
    numbers = os.statvfs(root)
    return {"total_bytes": numbers.f_blocks * numbers.f_frsize, "free_bytes": numbers.f_bavail * numbers.f_frsize}
