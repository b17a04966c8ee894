"""`state/status.json`: what the daemon knows of itself, replaced every second for commands to read.

What is read is told from what is so: a daemon that was killed has not said that it stopped, and one that hangs says nothing any more.
"""

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azaion_daemon.errors import AzaionError
from azaion_daemon.ops.job_status import progress_document
from azaion_daemon.ops.requests import peek
from azaion_daemon.store.durable import is_locked, lock_holder, replace_atomically
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.states import JobState

SILENT_S = 30.0
"""A daemon that has not written its status for so long hangs, or cannot write."""
_HIGH, _CRITICAL = 0.80, 0.95
_UNKNOWN = "unknown"


def write_status(layout: Layout, document: dict[str, Any]) -> None:
    """Replace the status; it says when, also on the clock that nobody sets."""
    written = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "written_monotonic": time.monotonic()}
    replace_atomically(layout.status, json.dumps({**document, **written}, ensure_ascii=False, default=str).encode())


def read_status(layout: Layout) -> dict[str, Any]:
    """The daemon's last words, and in `process` beside what it takes of the machine what can be seen of it from outside.

    `state` is what is so: `running`, `starting` and `stopping` only while a process holds the root, else `stopped`; `unknown` where that
    cannot be found out, and where no daemon has ever run. Trainings outlive the daemon: how far they are comes from their own directories
    then, and what operators have asked for meanwhile from `state/requests`.
    """
    document, problem = _last_words(layout)
    said = document.get("state")
    holder: int | None = None
    locked = False
    try:
        holder, locked = lock_holder(layout.lock), is_locked(layout.lock)
    except OSError as error:
        problem = problem or _unreadable(error)
        document["state"] = _UNKNOWN
    written, at = document.get("written"), document.get("written_monotonic")
    ours = locked and holder is not None and document.get("pid") == holder
    known = document.get("process")
    process: dict[str, Any] = {
        **(known if isinstance(known, dict) and (ours or not locked) else {}),
        "running": locked,
        "pid": holder,
        "last_seen": written,
        "silent_s": round(time.monotonic() - at, 1) if ours and isinstance(at, int | float) else None,
        "ended": None,
        "problem": problem,
    }
    if locked and not ours:  # it has said nothing yet: a daemon that starts, or another command that holds the root
        document["state"] = "starting"
    elif not locked and document.get("state", _UNKNOWN) != _UNKNOWN:
        process["ended"] = "in order" if said == "stopped" else "crashed"
        document["state"] = "stopped"
        _ask_the_trainings(layout, document)
    document.setdefault("state", _UNKNOWN)
    waiting: list[dict[str, Any]] = []
    with suppress(OSError):
        waiting = [_request(one.kind, one.arguments) for one in peek(layout)]
    return {**document, "process": process, "requests": waiting}


def _last_words(layout: Layout) -> tuple[dict[str, Any], str | None]:
    """What the daemon has written; and why there is nothing, in a sentence."""
    try:
        found = json.loads(layout.status.read_bytes())
    except FileNotFoundError:
        if layout.root_id.exists():
            return {}, "The daemon has never run on this root."
        return {}, f"{layout.root} is not a root of this daemon, or its disk is not mounted. A new one is made by: azaion-daemon init"
    except OSError as error:
        return {}, _unreadable(error)
    except ValueError:
        return {}, f"{layout.status} is damaged. A running daemon writes it again within a second; look at the disk if it does not."
    if not isinstance(found, dict):
        return {}, f"{layout.status} is not a status of this program."
    return found, None


def _unreadable(error: OSError) -> str:
    return f"{error.filename} cannot be read: {error.strerror}. Run this as the user of the daemon, or as root."


def _request(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    about = arguments.get("job") or arguments.get("sha256") or arguments.get("serial") or arguments.get("position")
    return {"kind": kind, "about": about, "reason": arguments.get("reason")}


def _ask_the_trainings(layout: Layout, document: dict[str, Any]) -> None:
    training = document.get("training")
    for job in (training.get("jobs") or []) if isinstance(training, dict) else []:
        if isinstance(job, dict) and job.get("state") == JobState.RUNNING:
            job.update(_without_daemon(JobDirectory(layout.jobs / str(job.get("id")))))


def _without_daemon(job: JobDirectory) -> dict[str, Any]:
    with suppress(AzaionError, OSError):
        if not is_locked(job.lock):
            return {"progress": None, "waits_for": "the daemon: its worker has ended"}
        if (progress := job.read_progress()) is not None:
            return {"progress": progress_document(progress), "goes_on": True}
        return {"goes_on": True}
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
