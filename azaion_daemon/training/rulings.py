"""What an operator may decide about a job, and what is recorded of a decision: pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from azaion_daemon.errors import OperatorError
from azaion_daemon.store.records import Job
from azaion_daemon.training.gate import Decision, Verdict
from azaion_daemon.training.states import IN_TRAINING, JobState


def verdict_document(verdict: Verdict, *, by: str, time: float) -> dict[str, Any]:
    """What is recorded of a verdict; `time` is in seconds since the epoch."""
    return {
        "decision": verdict.decision,
        "reason": verdict.reason,
        "by": by,
        "time": time,
        "checks": [asdict(check) for check in verdict.checks],
    }


def find_to_cancel(jobs: Sequence[Job], job_id: str | None) -> Job:
    """The job that is meant, which may be cancelled already; without an id the only one under way.

    Raises:
        OperatorError: There is none, its training has ended, or there are several.
    """
    if job_id is None:
        under_way = [job for job in jobs if job.state in IN_TRAINING]
        if len(under_way) != 1:
            which = f"several jobs are under way; say which: {', '.join(job.id for job in under_way)}"
            raise OperatorError(which if under_way else "no job is under way. See: azaion-daemon train list")
        return under_way[0]
    job = next((job for job in jobs if job.id == job_id), None)
    if job is None:
        raise OperatorError(f"there is no job {job_id}. See: azaion-daemon train list --all")
    if job.state == JobState.HELD:
        raise OperatorError(f"job {job.id} is held: its training has ended. Reject its model with: azaion-daemon model reject {job.id}")
    if job.state not in {*IN_TRAINING, JobState.CANCELLED}:
        raise OperatorError(f"the training of job {job.id} has ended: it is {job.state}")
    return job


def check_overruling(job: Job, decision: Decision) -> None:
    """Whether an operator may decide so about a job.

    Raises:
        OperatorError: No, and why.
    """
    match decision, job.state:
        case (Decision.ACCEPTED, JobState.HELD | JobState.REJECTED) | (Decision.REJECTED, JobState.HELD):
            return
        case Decision.ACCEPTED, _:
            may = "only a model that is held or rejected can be promoted"
        case _:
            may = "only a model that is held can be rejected"
    raise OperatorError(f"job {job.id} is {job.state}: {may}")
