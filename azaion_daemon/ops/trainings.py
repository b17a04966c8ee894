"""Trainings for operators: which there are and which are asked for, asking for one, cancelling one. Works while no daemon runs, too.

The documents are for programs too: their keys stay.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from azaion_daemon.errors import OperatorError, TrainingError
from azaion_daemon.ops.reading import reading, unreadable
from azaion_daemon.ops.requests import Request, ask, checked_reason, peek
from azaion_daemon.store.due import TrainingRequest
from azaion_daemon.store.durable import lock_holder
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Job
from azaion_daemon.store.root import identify_root
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.rulings import find_to_cancel
from azaion_daemon.training.states import JobState

_WAIT_S = 60.0
_CANCEL_WAIT_S = 120.0  # a worker that hangs in its driver takes a while to die
_SHOWN = 20
_SAID = {"train_now": "train", "train_cancel": "cancel"}
_DAEMON, _START = "the daemon", "the daemon's next start"


def train_now(layout: Layout, reason: str, *, epochs: int | None = None, trial: bool = False) -> dict[str, Any]:
    """Ask for a training; when it begins (`now`, `later`, or `at_start` of the next daemon), and what it follows.

    Raises:
        OperatorError: The request cannot be left, or is not answered, or the reason is too long.
    """
    if trial and epochs is not None:
        raise OperatorError("a trial is one epoch; leave --epochs away")
    wishes = {"epochs": epochs, "trial": trial}
    answer = ask(layout, "train_now", {"reason": checked_reason(reason), "time": time.time(), **wishes}, wait_s=_WAIT_S)
    if answer is None:
        return {"begins": "at_start", "under_way": []}
    if not answer["ok"]:
        raise OperatorError(answer["error"])
    return {"begins": "now" if answer["room"] else "later", "under_way": answer["under_way"]}


def said_of_asking(document: dict[str, Any]) -> str:
    """What becomes of a training that was asked for, as a sentence."""
    match document["begins"]:
        case "at_start":
            return "No daemon is running; the training begins at its next start."
        case "later":
            return f"A training is asked for; it follows what is under way: {', '.join(document['under_way'])}."
        case _:
            return "A training is asked for and begins now; see: azaion-daemon status"


def cancel(layout: Layout, wanted: str | None, reason: str) -> str:
    """Cancel a job, by default the only one under way; what became of it, as a sentence.

    Raises:
        OperatorError: There is no such job, its training has ended, or no answer came.
    """
    reason = checked_reason(reason)
    with reading(layout) as ledger:
        jobs = ledger.jobs()
    job = find_to_cancel(jobs, None if wanted is None else find(jobs, wanted).id)
    if job.state == JobState.CANCELLED:
        raise OperatorError(f"job {job.id} is cancelled already")
    # By its id in any case: when the daemon comes to it, another one may be the only one.
    answer = ask(layout, "train_cancel", {"job": job.id, "reason": reason}, wait_s=_CANCEL_WAIT_S)
    if answer is None:
        return f"No daemon is running; job {job.id} is cancelled at its next start. A worker that is under way goes on until then."
    if not answer["ok"]:
        raise OperatorError(answer["error"])
    return str(answer["said"])


def find(jobs: Sequence[Job], wanted: str) -> Job:
    """The job with that id, or whose id alone begins so.

    Raises:
        OperatorError: There is none, or several.
    """
    found = [job for job in jobs if job.id == wanted] or [job for job in jobs if wanted and job.id.startswith(wanted)]
    if len(found) != 1:
        several = f"{wanted} stands for several jobs: {', '.join(job.id for job in found)}"
        raise OperatorError(f"{several if found else f'there is no job {wanted}'}. See: azaion-daemon train list --all")
    return found[0]


def listed(layout: Layout, *, every: bool = False) -> dict[str, Any]:
    """The jobs, the newest first, and the requests that no job has taken up; not `every` one, but the last.

    Raises:
        RootError: The root or its ledger cannot be read.
    """
    identify_root(layout)
    try:
        with reading(layout) as ledger:
            jobs, asked, known = ledger.jobs()[::-1], ledger.due.waiting(), ledger.due.known_requests()
        left = [request for request in peek(layout) if request.id not in known]
        at_start = _DAEMON if lock_holder(layout.lock) is not None else _START
        follows = _START if at_start == _START else "the jobs under way"
        shown = jobs if every else jobs[:_SHOWN]
        return {
            "requests": [
                *(_asked(request, follows) for request in asked),
                *(_left(request, at_start) for request in left if request.kind in _SAID),
            ],
            "jobs": [_described(layout, job) for job in shown],
            "more": len(jobs) - len(shown),
        }
    except OSError as error:
        raise unreadable(error) from error


def _asked(request: TrainingRequest, waits_for: str) -> dict[str, Any]:
    return {
        "kind": "train", "reason": request.reason, "time": _iso(request.time), "trial": request.trial, "epochs": request.epochs,
        "job": None, "waits_for": waits_for,
    }  # fmt: skip


def _left(request: Request, waits_for: str) -> dict[str, Any]:
    """Of a request that no daemon has seen."""
    arguments = request.arguments
    asked = arguments.get("time")
    return {
        "kind": _SAID[request.kind], "reason": arguments.get("reason"), "time": _iso(asked) if isinstance(asked, int | float) else None,
        "trial": bool(arguments.get("trial")), "epochs": arguments.get("epochs"), "job": arguments.get("job"),
        "waits_for": waits_for,
    }  # fmt: skip


def _described(layout: Layout, job: Job) -> dict[str, Any]:
    verdict = job.verdict or {}
    return {
        **{name: getattr(job, name) for name in ("id", "state", "why", "reason", "dataset", "trial", "asked", "epochs")},
        "attempts": _attempts(layout, job),
        "created": _iso(job.created),
        "changed": _iso(job.changed),
        "ended": None if job.ended is None else _iso(job.ended),
        "verdict": {name: verdict.get(name) for name in ("decision", "reason", "by")} if verdict else None,
    }


def _attempts(layout: Layout, job: Job) -> int | None:
    """How often a worker was started, as far as that has ended; None when nothing of it is left."""
    directory = JobDirectory(layout.jobs / job.id)
    try:
        return len(directory.read_attempts()) if directory.path.is_dir() else None
    except (OSError, TrainingError):
        return None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
