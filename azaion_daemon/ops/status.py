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

_HIGH, _CRITICAL = 0.80, 0.95


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


def disk(root: Path) -> dict[str, Any]:
    """Size and free space of the root's filesystem in bytes, its inodes, and how it presses: `high` from 80 % on, `critical` from 95 %.

    An inode is what each file takes; filesystems without a fixed number of them say 0.
    """
    numbers = os.statvfs(root)
    # As `df` does: what only root may use counts as neither used nor free.
    used = numbers.f_blocks - numbers.f_bfree
    shares = [used / max(1, used + numbers.f_bavail)]
    if numbers.f_files:
        files = numbers.f_files - numbers.f_ffree
        shares.append(files / max(1, files + numbers.f_favail))
    share = max(shares)
    return {
        "total_bytes": numbers.f_blocks * numbers.f_frsize,
        "free_bytes": numbers.f_bavail * numbers.f_frsize,
        "inodes_total": numbers.f_files,
        "inodes_free": numbers.f_favail,
        "used_percent": round(100 * share, 1),
        "pressure": "critical" if share >= _CRITICAL else "high" if share >= _HIGH else None,
    }
