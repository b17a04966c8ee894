"""Where a job stands, and where it can go from there."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobState(StrEnum):
    """Where a job stands in the ledger."""

    REQUESTED = "requested"
    FORMING = "forming"
    QUEUED = "queued"
    RUNNING = "running"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    HELD = "held"
    TRIED = "tried"
    RELEASING = "releasing"
    RELEASED = "released"
    FAILED = "failed"
    CANCELLED = "cancelled"


IN_TRAINING = frozenset({JobState.REQUESTED, JobState.FORMING, JobState.QUEUED, JobState.RUNNING})
"""Of these a job can be cancelled; with any other its training has ended."""
UNFINISHED = IN_TRAINING | {JobState.ACCEPTED}
"""Of these a job goes on by itself."""
_ENDS = frozenset({JobState.FAILED, JobState.CANCELLED})
_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.REQUESTED: _ENDS | {JobState.FORMING},
        JobState.FORMING: _ENDS | {JobState.QUEUED},
        JobState.QUEUED: _ENDS | {JobState.RUNNING},
        # Back to the queue when it is to be tried again.
        JobState.RUNNING: _ENDS | {JobState.ACCEPTED, JobState.REJECTED, JobState.HELD, JobState.QUEUED, JobState.TRIED},
        # Between these three an operator may overrule the gate.
        JobState.ACCEPTED: _ENDS | {JobState.RELEASING, JobState.REJECTED},
        JobState.REJECTED: _ENDS | {JobState.ACCEPTED},
        JobState.HELD: _ENDS | {JobState.ACCEPTED, JobState.REJECTED},
        JobState.RELEASING: _ENDS | {JobState.RELEASED},
        JobState.RELEASED: frozenset(),
        JobState.TRIED: frozenset(),
        JobState.FAILED: frozenset(),
        JobState.CANCELLED: frozenset(),
    },
)


def advance(state: JobState, to: JobState) -> JobState:
    """The next state, if the table allows it.

    Raises:
        ValueError: It does not: a fault of the caller.
    """
    if to not in _TRANSITIONS[state]:
        raise ValueError(f"a job cannot go from {state} to {to}")
    return to
