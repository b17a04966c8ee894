"""The gate: what is accepted, rejected and held, at every edge."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.sections import GateSettings
from azaion_daemon.training.evaluation import ClassMetrics, Evaluation, Metrics
from azaion_daemon.training.gate import Decision, Verdict, judge

SETTINGS = GateSettings(min_images=10, min_map50_95=0.1, max_drop=0.0, max_class_drop=0.1, min_class_instances=20)
ORDER = [Decision.REJECTED, Decision.HELD, Decision.ACCEPTED]


def one(name: str, map50_95: float | None, instances: int = 100) -> ClassMetrics:
    return ClassMetrics(name=name, images=instances, instances=instances, map50=map50_95, map50_95=map50_95)


def metrics(map50_95: float | None = None, **classes: float | tuple[float | None, int] | None) -> Metrics:
    """By default the mAP is the mean of the classes'."""
    made = tuple(one(name, *(value if isinstance(value, tuple) else (value,))) for name, value in classes.items())
    there = [each.map50_95 for each in made if each.map50_95 is not None]
    overall = map50_95 if map50_95 is not None else sum(there) / len(there)
    return Metrics(images=60, instances=sum(each.instances for each in made), map50=overall, map50_95=overall, classes=made)


def against(candidate: Metrics, current: Metrics | None, **others: Any) -> Verdict:
    values: dict[str, Any] = {"rival": "r", "images": 60, "digest": "d", "problem": ""}
    settings = others.pop("settings", SETTINGS)
    own = others.pop("own", candidate)
    return judge(own, Evaluation(candidate=candidate, current=current, **(values | others)), settings)


@pytest.mark.parametrize(
    ("reached", "decision"), [(0.1, Decision.ACCEPTED), (0.0999, Decision.REJECTED), (float("nan"), Decision.REJECTED)]
)
def test_a_first_model_needs_the_least_only(reached: float, decision: Decision) -> None:
    for evaluation in (None, Evaluation(rival=None, images=60, digest="d", candidate=metrics(reached))):
        verdict = judge(metrics(reached), evaluation, SETTINGS)
        assert verdict.decision is decision
        assert [(check.name, check.limit) for check in verdict.checks] == [("mAP50-95", 0.1)]


def test_the_same_model_is_accepted_whatever_floats_do() -> None:
    current = metrics(car=0.1 + 0.2, truck=0.7)
    candidate = metrics(car=0.3, truck=0.7 - 1e-12)
    assert against(candidate, current).decision is Decision.ACCEPTED
    strict = GateSettings(max_drop=0, max_class_drop=0, min_map50_95=0)
    verdict = against(candidate, current, settings=strict)
    assert verdict.decision is Decision.ACCEPTED
    assert {str(check.limit) for check in verdict.checks[2:]} == {"0.0"}  # and not -0.0, as people would read it


@pytest.mark.parametrize(("drop", "decision"), [(0.02, Decision.ACCEPTED), (0.0201, Decision.REJECTED)])
def test_the_whole_may_drop_by_so_much(drop: float, decision: Decision) -> None:
    settings = SETTINGS.model_copy(update={"max_drop": 0.02})
    verdict = against(metrics(0.5 - drop), metrics(0.5), settings=settings)
    assert verdict.decision is decision
    (check,) = [check for check in verdict.checks if "against" in check.name]
    assert (round(check.value, 6), check.limit, check.ok) == (-drop, -0.02, decision is Decision.ACCEPTED)


@pytest.mark.parametrize(
    ("drop", "instances", "decision"),
    [
        (0.1, 20, Decision.ACCEPTED),
        (0.11, 20, Decision.REJECTED),
        (0.11, 19, Decision.ACCEPTED),  # so few say nothing
        (0.5, 19, Decision.ACCEPTED),
    ],
)
def test_a_class_with_enough_instances_may_drop_by_so_much(drop: float, instances: int, decision: Decision) -> None:
    current = metrics(0.5, car=0.5, truck=(0.6, instances))
    verdict = against(metrics(0.6, car=0.9, truck=(0.6 - drop, instances)), current)
    assert verdict.decision is decision
    counted = [check.name for check in verdict.checks if check.name == "mAP50-95 of truck"]
    assert len(counted) == (instances >= 20)


def test_the_reason_names_the_worst_class_with_its_numbers() -> None:
    current = metrics(car=0.8, truck=0.7, boat=(0.6, 44))
    verdict = against(metrics(0.9, car=0.65, truck=0.7, boat=(0.3, 44)), current)
    assert verdict.decision is Decision.REJECTED
    assert verdict.reason == (
        "on 60 images that neither was trained on, boat drops from 0.600 to 0.300 in 44 instances (gate.max_class_drop is 0.1), "
        "and 1 more class drops too far"
    )
    worse = against(metrics(car=0.75, truck=0.7), metrics(car=0.8, truck=0.7))
    assert "its mAP50-95 is 0.725, that of the current model 0.750 (gate.max_drop is 0)" in worse.reason
    assert "the worst class is car, 0.750 after 0.800 in 100 instances" in worse.reason


def test_a_class_that_vanished_has_dropped_to_nothing() -> None:
    current = metrics(car=0.2, truck=0.5)
    for candidate in (metrics(0.9, car=(None, 100), truck=0.9), metrics(0.9, truck=0.9)):
        verdict = against(candidate, current)
        assert (verdict.decision, "car drops from 0.200 to 0.000" in verdict.reason) == (Decision.REJECTED, True)


def test_a_new_class_neither_drops_nor_hides_what_drops() -> None:
    current = metrics(0.25, car=0.5, boat=(None, 100))
    assert against(metrics(car=0.5, boat=0.01), current).decision is Decision.ACCEPTED
    hidden = against(metrics(car=0.45, boat=0.9), current)  # 0.675 in all, against 0.25
    assert (hidden.decision, "0.450, that of the current model 0.500" in hidden.reason) == (Decision.REJECTED, True)


@pytest.mark.parametrize("current", [metrics(0.0, car=(None, 0), boat=(None, 0)), metrics(0.0, car=(None, 0), boat=(None, 100))])
def test_with_nothing_that_both_could_find_a_comparison_says_nothing(current: Metrics) -> None:
    """Sixty backgrounds, or sixty images of a class that is new."""
    boats = current.classes[1].instances
    verdict = against(metrics(0.0, car=(None, 0), boat=(0.7 if boats else None, boats)), current, own=metrics(0.5))
    assert verdict.decision is Decision.HELD
    assert verdict.reason == "in the 60 images that neither model was trained on there is no object of a class that both know"


def test_a_class_without_instances_has_no_figure() -> None:
    verdict = against(metrics(car=0.5, truck=(None, 0)), metrics(car=0.5, truck=(None, 0)))
    assert verdict.decision is Decision.ACCEPTED
    assert not [check for check in verdict.checks if "truck" in check.name]


@pytest.mark.parametrize(("images", "decision"), [(10, Decision.ACCEPTED), (9, Decision.HELD), (1, Decision.HELD), (0, Decision.HELD)])
def test_too_few_images_are_an_operators_matter(images: int, decision: Decision) -> None:
    verdict = against(
        metrics(0.6), metrics(0.5) if images else None, images=images, left_out={"may have been seen by the current model": 7}
    )
    assert verdict.decision is decision
    if images == 9:
        assert verdict.reason == (
            "only 9 images are left that neither model was trained on, and gate.min_images is 10 (7 may have been seen by the current "
            "model); on those its mAP50-95 is 0.600, that of the current model 0.500"
        )


def test_a_current_model_that_cannot_be_evaluated_is_an_operators_matter() -> None:
    verdict = against(metrics(0.6), None, problem="azaion.onnx is damaged")
    assert (verdict.decision, verdict.reason) == (Decision.HELD, "the current model could not be evaluated: azaion.onnx is damaged")


def test_a_useless_model_is_rejected_whatever_else_is_the_matter() -> None:
    useless = metrics(0.05)
    for verdict in (against(useless, None, problem="damaged"), against(useless, metrics(0.01), images=1), against(useless, metrics(0.01))):
        assert (verdict.decision, len(verdict.checks)) == (Decision.REJECTED, 1)
        assert "0.050 on 60 test images is below gate.min_map50_95 (0.1)" in verdict.reason


def test_the_least_is_asked_of_its_own_test_images() -> None:
    assert against(metrics(0.02), metrics(0.01), own=metrics(0.5)).decision is Decision.ACCEPTED
    assert against(metrics(0.5), metrics(0.01), own=metrics(0.02)).decision is Decision.REJECTED


shares = st.floats(0, 1)
counts = st.integers(0, 100)
settings = st.builds(
    GateSettings,
    min_images=st.integers(1, 60),
    max_images=st.just(5000),
    min_map50_95=shares,
    max_drop=shares,
    max_class_drop=shares,
    min_class_instances=st.integers(1, 100),
)


@st.composite
def evaluated(draw: st.DrawFn) -> tuple[list[int], list[float], list[float], list[float]]:
    """Instances by class, what the current model and a candidate reach, and by how much a better one is better."""
    number = draw(st.integers(1, 5))
    lists = [draw(st.lists(shares, min_size=number, max_size=number)) for _ in range(3)]
    return draw(st.lists(st.integers(1, 100), min_size=number, max_size=number)), *lists  # type: ignore[return-value]


def of(values: list[float], instances: list[int]) -> Metrics:
    classes: dict[str, Any] = {f"c{number}": one for number, one in enumerate(zip(values, instances, strict=True))}
    return metrics(**classes)


@given(evaluated(), settings, st.integers(0, 100))
def test_a_better_model_is_never_judged_worse(
    numbers: tuple[list[int], list[float], list[float], list[float]], rules: GateSettings, images: int
) -> None:
    instances, current, candidate, gains = numbers
    better = [min(1.0, value + gain) for value, gain in zip(candidate, gains, strict=True)]
    before, after = (
        against(of(values, instances), of(current, instances), settings=rules, images=images) for values in (candidate, better)
    )
    assert ORDER.index(after.decision) >= ORDER.index(before.decision)


@given(evaluated(), settings)
def test_what_is_accepted_passes_every_check_and_what_is_rejected_fails_one(
    numbers: tuple[list[int], list[float], list[float], list[float]], rules: GateSettings
) -> None:
    instances, current, candidate, _ = numbers
    verdict = against(of(candidate, instances), of(current, instances), settings=rules, images=100)
    assert (verdict.decision is Decision.ACCEPTED) == all(check.ok for check in verdict.checks)
    assert verdict.reason


@given(evaluated(), settings)
def test_the_current_model_once_more_is_accepted_unless_it_is_useless(
    numbers: tuple[list[int], list[float], list[float], list[float]], rules: GateSettings
) -> None:
    instances, current, _, _ = numbers
    same = of(current, instances)
    verdict = against(same, same, settings=rules, images=100)
    assert verdict.decision is (Decision.ACCEPTED if same.map50_95 >= rules.min_map50_95 - 1e-9 else Decision.REJECTED)
