"""The page: facts and samples become HTML. One file, no script, nothing from the network; whatever comes from outside is escaped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from azaion_daemon.sections import GateSettings
from azaion_daemon.training.evaluation import ClassMetrics, Curves
from azaion_daemon.training.history import EpochRecord
from azaion_daemon.training.jobs import JobSpec
from azaion_daemon.training.report_verdict import pending
from azaion_daemon.training.worker.reporting.charts import Chart, Line, finite, line_chart, styles
from azaion_daemon.training.worker.reporting.confusion import frequent, matrix_chart
from azaion_daemon.training.worker.reporting.facts import SIDES, DatasetDocument, Facts, best_confidence, mean_curve
from azaion_daemon.training.worker.reporting.samples import Samples

_TOLD_APART = 5
"""With more classes than this their curves are grey, and only the mean has a colour."""
_MANY = 16
"""With more classes than this their tables and charts have the whole width."""
_NAMED = 30
"""How many classes without an object are named."""
_LOSSES = {"cls_loss": "Class loss", "dfl_loss": "Distribution focal loss"}
_WORDS = {"prepare": "Check the data", "train": "Train", "export": "Export to ONNX", "evaluate": "Evaluate"}
_TUNED = ("model", "started_from", "epochs", "batch_size", "imgsz", "export_imgsz", "export_batch", "save_period", "workers", "nice")
_NONE = "\N{EN DASH}"
_NO_DIFFERENCE = 0.0005
"""What is less than this is zero with three decimals."""
_MINUTE_S = 60


def render(facts: Facts, samples: Samples) -> str:
    """The whole page."""
    template = _environment().get_template("page.html.j2")
    return template.render(
        facts=facts,
        spec=facts.spec,
        samples=samples,
        verdict=_verdict(facts.spec),
        headline=_headline(facts),
        compared=_compared(facts),
        dataset=None if facts.dataset is None else _dataset(facts.dataset),
        training=_figures(training_charts(facts.epochs), "training"),
        epochs=facts.epochs,
        curves=[] if facts.curves is None else _figures(_curves(facts.curves), "curves"),
        confusion=_confusion(facts),
        classes=_classes(facts),
        settings=[(name, getattr(facts.spec, name)) for name in _TUNED],
        phases=[(_WORDS.get(phase, phase), seconds) for phase, seconds in facts.seconds.items()],
    )


def training_charts(epochs: Sequence[EpochRecord]) -> Iterator[Chart]:
    """Losses with those of the validation, mAPs and the learning rate, by epoch."""
    if not epochs:
        return
    marks = [(after.epoch - 0.5, f"start {after.attempt}") for before, after in pairwise(epochs) if after.attempt != before.attempt]
    ends = epochs[0].epoch, epochs[-1].epoch
    spread = ends if ends[0] < ends[1] else (ends[0] - 1, ends[1] + 1)
    losses = list(dict.fromkeys(name for epoch in epochs for name in (*epoch.losses, *epoch.val_losses)))

    def chart(title: str, *lines: Line, y_range: tuple[float, float] | None = None) -> Chart:
        return Chart(title, "epoch", lines, x_range=spread, y_range=y_range, marks=marks, whole_x=True)

    yield chart(
        "mAP on the validation images",
        Line("mAP50", [(epoch.epoch, epoch.map50) for epoch in epochs], "s0"),
        Line("mAP50-95", [(epoch.epoch, epoch.map50_95) for epoch in epochs], "s1"),
        y_range=(0, 1),
    )
    for name in losses:
        yield chart(
            _LOSSES.get(name, f"{name.removesuffix('_loss').capitalize()} loss"),
            Line("training", [(epoch.epoch, epoch.losses.get(name)) for epoch in epochs], "s0"),
            Line("validation", [(epoch.epoch, epoch.val_losses.get(name)) for epoch in epochs], "s1"),
        )
    yield chart("Learning rate", Line("learning rate", [(epoch.epoch, epoch.learning_rate) for epoch in epochs], "s0"))


@dataclass(frozen=True)
class _Tile:
    """A headline figure; `before` is the current model's."""

    name: str
    value: float
    before: float | None

    @property
    def difference(self) -> float | None:
        return None if self.before is None else self.value - self.before


def _verdict(spec: JobSpec) -> Markup:
    return Markup(pending(trial=spec.trial))  # noqa: S704 - it escapes what it is made of


def _headline(facts: Facts) -> list[_Tile]:
    evaluation = facts.evaluation
    current = None if evaluation is None else evaluation.current
    metrics = facts.metrics if evaluation is None or current is None else evaluation.candidate
    return [
        _Tile("mAP50-95", metrics.map50_95, None if current is None else current.map50_95),
        _Tile("mAP50", metrics.map50, None if current is None else current.map50),
    ]


def _compared(facts: Facts) -> dict[str, Any]:
    evaluation = facts.evaluation
    compared = evaluation is not None and evaluation.current is not None
    on = evaluation.candidate if evaluation is not None and compared else facts.metrics
    return {
        "with": evaluation.rival if evaluation is not None else None,
        "is": compared,
        "images": on.images,
        "objects": on.instances,
        "own": facts.metrics if compared and facts.metrics != on else None,
        "problem": "" if evaluation is None else evaluation.problem,
        "left_out": {} if evaluation is None else evaluation.left_out,
    }


def _dataset(document: DatasetDocument) -> dict[str, Any]:
    present = sorted((one for one in document.classes if one.total), key=lambda one: -one.total)
    absent = [one.name for one in document.classes if not one.total]
    return {
        "document": document,
        "sides": SIDES,
        "classes": present,
        "most": max((one.total for one in present), default=1),
        "many": len(present) > _MANY,
        "absent": absent[:_NAMED],
        "absent_more": max(0, len(absent) - _NAMED),
        "excluded": [(reason.replace("_", " "), number) for reason, number in document.excluded.items()],
    }


def _figures(charts: Iterable[Chart], id_: str) -> list[tuple[str, Markup]]:
    return [(chart.title, line_chart(chart, f"{id_}-{number}")) for number, chart in enumerate(charts)]


def _curves(curves: Curves) -> Iterator[Chart]:
    pr, f1 = curves.pr, curves.f1
    if pr.precision:
        yield Chart("Precision and recall", "recall", _class_lines(pr.recall, pr.precision), "precision", (0, 1), (0, 1))
    if f1.f1:
        best = best_confidence(f1)
        marks = [] if best is None else [(best, f"best at {best:.2f}")]
        yield Chart("F1 by confidence", "confidence", _class_lines(f1.confidence, f1.f1), "F1", (0, 1), (0, 1), marks)


def _class_lines(at: Sequence[float], curves: Mapping[str, Sequence[float]]) -> list[Line]:
    classes = {name: list(zip(at, values, strict=False)) for name, values in curves.items()}
    if len(classes) == 1:
        return [Line(name, points, "s0") for name, points in classes.items()]
    average = Line("mean of all classes", mean_curve(at, curves), "bold")
    if len(classes) > _TOLD_APART:
        others = [Line(name, points, "faint", listed=False) for name, points in classes.items()]
        return [average, *others, Line(f"each of {len(classes)} classes", (), "faint")]
    return [average, *(Line(name, points, style) for (name, points), style in zip(classes.items(), styles(), strict=False))]


def _confusion(facts: Facts) -> dict[str, Any] | None:
    confusion = None if facts.curves is None else facts.curves.confusion
    if confusion is None or not any(any(row) for row in confusion.matrix):
        return None
    return {
        "chart": matrix_chart(confusion.labels, confusion.matrix, "confusion"),
        "frequent": frequent(confusion.labels, confusion.matrix),
        "many": len(confusion.labels) > _MANY,
    }


def _classes(facts: Facts) -> dict[str, Any]:
    evaluation = facts.evaluation
    current = None if evaluation is None else evaluation.current
    candidate = facts.metrics if evaluation is None or current is None else evaluation.candidate
    before = {} if current is None else {one.name: one for one in current.classes}
    given = None if facts.comparison is None else facts.comparison.max_class_drop
    max_drop = GateSettings().max_class_drop if given is None else given
    rows = [_row(one, before.get(one.name), max_drop) for one in candidate.classes if one.instances]
    return {
        "rows": sorted(rows, key=lambda row: -row["instances"]),
        "absent": sum(not one.instances for one in candidate.classes),
        "compared": current is not None,
        "max_drop": max_drop,
        "dropped": sum(row["dropped"] for row in rows),
    }


def _row(one: ClassMetrics, before: ClassMetrics | None, max_drop: float) -> dict[str, Any]:
    then = None if before is None else before.map50_95
    difference = None if then is None or one.map50_95 is None else one.map50_95 - then
    return {
        "name": one.name,
        "instances": one.instances,
        "images": one.images,
        "map50": one.map50,
        "map50_95": one.map50_95,
        "before": then,
        "difference": difference,
        "dropped": difference is not None and difference < -max_drop,
    }


def _share(value: float | None) -> str:
    """An mAP."""
    return _NONE if value is None or not finite(value) else f"{value:.3f}"


def _signed(value: float | None) -> str:
    """A difference of mAPs."""
    if value is None or not finite(value):
        return _NONE
    return "±0.000" if abs(value) < _NO_DIFFERENCE else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _duration(seconds: float) -> str:
    """A time in its two largest units."""
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("azaion_daemon.training.worker.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "signed": _signed, "count": _count, "duration": _duration}
    return environment
