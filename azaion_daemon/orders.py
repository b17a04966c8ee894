"""What operators ask of trainings, carried out; and what the status says of them."""

import time
from collections.abc import Sequence
from typing import Any

from azaion_daemon.conducting.conductor import Conductor, UnderWay
from azaion_daemon.conducting.promoting import Promoter
from azaion_daemon.conducting.triggering import Trigger
from azaion_daemon.ingest.space import Space
from azaion_daemon.ops.job_status import job_document, under_way_document
from azaion_daemon.ops.requests import Request, wishes_of
from azaion_daemon.releasing import RollBack
from azaion_daemon.store.due import TrainingRequest
from azaion_daemon.store.records import Job
from azaion_daemon.training.gate import Decision
from azaion_daemon.training.states import UNFINISHED, JobState

TRAININGS = frozenset({"train_now", "train_cancel", "promote", "reject"})
"""The kinds of requests that concern trainings."""
MODELS = frozenset({"promote_model", "rollback"})
"""Those that concern which model is the current one."""
SHOWN_JOBS = 10
SHOWN_STATES = UNFINISHED | {JobState.HELD}
"""Jobs in these are shown, however old."""


async def carry_out(request: Request, trigger: Trigger, conductor: Conductor, space: Space) -> dict[str, Any]:
    """Carry out one of those requests; done again it is the same as once. Returns the answer.

    Raises:
        OperatorError: It cannot be done.
    """
    match request:
        case Request(kind="train_now", arguments={"reason": str(reason), "time": int() | float() as asked}):
            wanted = TrainingRequest(request.id, min(asked, time.time()), reason, *wishes_of(request))
            await space.repeat(lambda: trigger.ask(wanted))
            return {"ok": True, "under_way": [one.job.id for one in conductor.under_way], "room": conductor.has_room}
        case Request(kind="train_cancel", arguments={"job": str() | None as job, "reason": str(reason)}):
            return {"ok": True, "said": await conductor.cancel(job, reason)}
        case Request(kind="promote", arguments={"job": str(job), "reason": str(reason)}):
            return {"ok": True, "said": await conductor.overrule(job, Decision.ACCEPTED, reason)}
        case Request(kind="reject", arguments={"job": str(job), "reason": str(reason)}):
            return {"ok": True, "said": await conductor.overrule(job, Decision.REJECTED, reason)}
        case _:
            return {"ok": False, "error": f"this daemon does not understand the request {request.kind} {sorted(request.arguments)}"}


async def change_model(request: Request, conductor: Conductor, promoter: Promoter, roll_back: RollBack) -> dict[str, Any]:
    """Carry out one that concerns which model is the current one. Returns the answer.

    Asked while no daemon ran, it comes after what was accepted before, which would take its place otherwise.

    Raises:
        OperatorError: It cannot be done.
    """
    await conductor.begun()
    match request:
        case Request(kind="promote_model", arguments={"sha256": str(sha256), "reason": str(reason)}):
            return {"ok": True, "said": await promoter.promote(sha256, reason)}
        case Request(kind="rollback", arguments={"serial": int(serial), "reason": str(reason)}):
            return {"ok": True, "release": await roll_back(serial, reason)}
        case _:
            return {"ok": False, "error": f"this daemon does not understand the request {request.kind} {sorted(request.arguments)}"}


def jobs_document(jobs: Sequence[Job], under_way: Sequence[UnderWay]) -> list[dict[str, Any]]:
    """The last jobs, the newest last; how far those are that are under way, and what they wait for.

    Older ones too that still are, or that wait for an operator.
    """
    found = {one.job.id: one for one in under_way}
    documents = []
    older = [job for job in jobs[:-SHOWN_JOBS] if job.id in found or job.state == JobState.HELD]
    for job in [*older, *jobs[-SHOWN_JOBS:]]:
        one = found.get(job.id)
        documents.append(job_document(job) if one is None else job_document(job) | under_way_document(one.progress, one.waits_for))
    return documents
