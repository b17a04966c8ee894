"""When a training job is due: a pure decision on persisted facts, so it is the same after any restart."""

from dataclasses import dataclass

from azaion_daemon.settings import TriggerSettings


@dataclass(frozen=True, slots=True)
class TriggerFacts:
    """What the ledger says."""

    changed: int
    """Annotations that are new, changed or gone among the validated since the snapshot of the last judged job."""
    total: int
    """Validated annotations."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to train now, and the sentence that says why."""

    due: bool
    why: str


def decide(facts: TriggerFacts, settings: TriggerSettings) -> Decision:
    """Level-triggered: what is due stays due until a job has taken it up."""
    if facts.total < settings.min_total:
        return Decision(due=False, why=f"wait: {facts.total} of {settings.min_total} validated annotations that are needed at least")
    count = f"{facts.changed} annotations are new, changed or gone since the last training, {settings.new_annotations} are needed"
    if facts.changed < settings.new_annotations:
        return Decision(due=False, why=f"wait: {count}")
    return Decision(due=True, why=f"train: {count}; {facts.total} are validated")
