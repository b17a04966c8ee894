"""Whether a trained model becomes the current one: a pure decision on what both reach on the same images.

What holds first decides, in this order:

1. the mAP50-95 on its own test images is below `min_map50_95`: rejected. No comparison makes such a model useful, so nobody is asked;
2. there is no current model: accepted, since nothing can get worse;
3. the current model could not be evaluated: held, with the problem;
4. there are fewer than `min_images` images that neither model was trained on, or no object in them of a class that the current model
   knows: held. The figures are there, but say little or nothing;
5. the mAP50-95 drops by more than `max_drop`, or that of a class with at least `min_class_instances` instances in those images by more
   than `max_class_drop`: rejected, and the worst of them is named;
6. otherwise accepted.

Classes are compared by name. One that the candidate finds nothing of, though the current model does, has dropped to nothing. What the
current model does not know (a class that is new) cannot drop, and does not count in the overall comparison either: else a model that knows
one class more could be worse in all others. A class without instances has no figure.

Equal is not a drop, whatever the noise of floating point: the same model once more is accepted. What is no number counts as nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from azaion_daemon.sections import GateSettings
from azaion_daemon.training.evaluation import ClassMetrics, Evaluation, Metrics

_NOISE = 1e-9
"""What two sums of the same floats may differ by."""


class Decision(StrEnum):
    """What becomes of a model."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    HELD = "held"
    """It cannot be compared well enough: an operator decides."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `value` must not be below `limit`."""

    name: str
    value: float
    limit: float
    ok: bool
    counts: bool = False
    """Whether these are counts; else they are mAPs, or differences of mAPs."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, in one sentence, and what it follows from."""

    decision: Decision
    reason: str
    checks: tuple[Check, ...] = ()


class _Pair(NamedTuple):
    """One class, as both models find it; mAP50-95, where there is one."""

    name: str
    instances: int
    candidate: float
    current: float


def judge(metrics: Metrics, evaluation: Evaluation | None, settings: GateSettings) -> Verdict:
    """Decide about a model: `metrics` on its own test images, and the comparison with the current model, where there is one."""
    own = _number(metrics.map50_95)
    least = _check("mAP50-95", own, settings.min_map50_95)
    if not least.ok:
        reached = f"its mAP50-95 of {own:.3f} on {metrics.images} test images is below gate.min_map50_95 ({settings.min_map50_95:g})"
        return Verdict(Decision.REJECTED, reached, (least,))
    if evaluation is None or evaluation.rival is None:
        reached = f"it is the first model, and its mAP50-95 of {own:.3f} on {metrics.images} test images is not below gate.min_map50_95"
        return Verdict(Decision.ACCEPTED, reached, (least,))
    enough = _check("images to compare on", evaluation.images, settings.min_images, counts=True)
    if evaluation.problem:
        return Verdict(Decision.HELD, f"the current model could not be evaluated: {evaluation.problem}", (least, enough))
    if not enough.ok or evaluation.current is None:
        return Verdict(Decision.HELD, _too_few(evaluation, settings), (least, enough))
    if evaluation.candidate.classes and not _pairs(evaluation.candidate, evaluation.current):
        nothing = f"in the {evaluation.images} images that neither model was trained on there is no object of a class that both know"
        return Verdict(Decision.HELD, nothing, (least, enough))
    return _compare(evaluation.candidate, evaluation.current, evaluation.images, settings, (least, enough))


def _compare(candidate: Metrics, current: Metrics, images: int, settings: GateSettings, before: tuple[Check, ...]) -> Verdict:
    pairs = _pairs(candidate, current)
    mine, theirs = _overall(candidate, current, pairs)
    overall = _check("mAP50-95 against the current model", mine - theirs, 0.0 - settings.max_drop)
    counted = [pair for pair in pairs if pair.instances >= settings.min_class_instances]
    classes = [_check(f"mAP50-95 of {pair.name}", pair.candidate - pair.current, 0.0 - settings.max_class_drop) for pair in counted]
    worst = min(zip(counted, classes, strict=True), key=lambda one: one[1].value, default=None)
    checks = (*before, overall, *classes)
    faults = []
    if not overall.ok:
        faults.append(f"its mAP50-95 is {mine:.3f}, that of the current model {theirs:.3f} (gate.max_drop is {settings.max_drop:g})")
    if worst is not None and not worst[1].ok:
        pair, others = worst[0], sum(not check.ok for check in classes) - 1
        more = f", and {others} more {'class drops' if others == 1 else 'classes drop'} too far" if others else ""
        faults.append(
            f"{pair.name} drops from {pair.current:.3f} to {pair.candidate:.3f} in {pair.instances} instances "
            f"(gate.max_class_drop is {settings.max_class_drop:g}){more}"
        )
    elif faults and worst is not None and worst[1].value < 0:
        pair = worst[0]
        faults.append(f"the worst class is {pair.name}, {pair.candidate:.3f} after {pair.current:.3f} in {pair.instances} instances")
    if not all(check.ok for check in (overall, *classes)):
        return Verdict(Decision.REJECTED, f"on {images} images that neither was trained on, {'; '.join(faults)}", checks)
    least_good = "" if worst is None else f"; {worst[0].name} fares worst with {worst[0].candidate:.3f} after {worst[0].current:.3f}"
    reached = f"its mAP50-95 is {mine:.3f}, that of the current model {theirs:.3f}, on {images} images that neither was trained on"
    return Verdict(Decision.ACCEPTED, reached + least_good, checks)


def _pairs(candidate: Metrics, current: Metrics) -> list[_Pair]:
    """The classes that the current model has a figure for, with the candidate's: nothing where it has none."""
    mine = {one.name: one for one in candidate.classes}
    nothing = ClassMetrics(name="", images=0, instances=0)
    return [
        _Pair(theirs.name, max(theirs.instances, own.instances), _number(own.map50_95), _number(theirs.map50_95))
        for theirs in current.classes
        if theirs.map50_95 is not None and theirs.instances > 0
        for own in [mine.get(theirs.name, nothing)]
    ]


def _overall(candidate: Metrics, current: Metrics, pairs: Sequence[_Pair]) -> tuple[float, float]:
    """The mAP50-95 of both over the classes that both can be compared in, which mostly are all."""
    known = {pair.name for pair in pairs}
    if not pairs or all(one.name in known for one in candidate.classes if one.map50_95 is not None):
        return _number(candidate.map50_95), _number(current.map50_95)
    return sum(pair.candidate for pair in pairs) / len(pairs), sum(pair.current for pair in pairs) / len(pairs)


def _too_few(evaluation: Evaluation, settings: GateSettings) -> str:
    count = f"{evaluation.images} {'image is' if evaluation.images == 1 else 'images are'}"
    text = f"only {count} left that neither model was trained on, and gate.min_images is {settings.min_images}"
    if evaluation.left_out:
        text += f" ({', '.join(f'{number} {why}' for why, number in evaluation.left_out.items())})"
    if evaluation.current is None:
        return text
    mine, theirs = _overall(evaluation.candidate, evaluation.current, _pairs(evaluation.candidate, evaluation.current))
    return f"{text}; on those its mAP50-95 is {mine:.3f}, that of the current model {theirs:.3f}"


def _check(name: str, value: float, limit: float, *, counts: bool = False) -> Check:
    return Check(name, value, limit, ok=value >= limit - _NOISE, counts=counts)


def _number(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0
