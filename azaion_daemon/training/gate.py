"""Whether a trained model becomes the current one: a pure decision on what both reach on the same images."""

from dataclasses import dataclass
from enum import StrEnum

from azaion_daemon.settings import GateSettings
from azaion_daemon.training.evaluation import Evaluation, Metrics


class Decision(StrEnum):
    """What becomes of a model."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    HELD = "held"
    """It cannot be compared well enough: an operator decides."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `value` must not be below `limit`; mAPs and differences of mAPs, or counts."""

    name: str
    value: float
    limit: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, in one sentence, and what it follows from."""

    decision: Decision
    reason: str
    checks: tuple[Check, ...] = ()


def judge(metrics: Metrics, evaluation: Evaluation | None, settings: GateSettings) -> Verdict:
    """Decide about a model: `metrics` on its own test images, and the comparison with the current model, where there is one."""
    above = metrics.map50_95 >= settings.min_map50_95
    check = Check("mAP50-95", metrics.map50_95, settings.min_map50_95, above)
    if not above:
        return Verdict(Decision.REJECTED, f"its mAP50-95 of {metrics.map50_95:.3f} is below gate.min_map50_95", (check,))
    return Verdict(Decision.ACCEPTED, "it is the first model", (check,))
