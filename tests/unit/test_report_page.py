"""What a report says when something is missing, and that its charts draw what there is."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from azaion_daemon.training.evaluation import Comparison, Evaluated, Evaluation
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.worker.reporting.charts import Chart, Line, line_chart, number, ticks
from azaion_daemon.training.worker.reporting.confusion import frequent, matrix_chart
from azaion_daemon.training.worker.reporting.facts import gather, library_epochs
from azaion_daemon.training.worker.reporting.page import render, training_charts
from azaion_daemon.training.worker.reporting.samples import SHOWN, Box, Samples, choose, match, reduced, take
from tests.reports import SCRIPT, curves, epochs, facts, hostile, metrics, sample, spec

NONE = Samples()
NAN, INF = math.nan, math.inf


def parsed(svg: str) -> ET.Element:
    """As XML, which is stricter than a browser."""
    return ET.fromstring(svg[: svg.index("</svg>") + 6])


@pytest.mark.parametrize("points", [(), [(1, None)], [(1, NAN), (2, INF)]])
def test_a_chart_without_a_number_says_so(points: list[tuple[float, float | None]]) -> None:
    assert "no number" in line_chart(Chart("loss", "epoch", [Line("training", points, "s0")]), "a")


@pytest.mark.parametrize("y", [0.0, 1.0, -3.0, 1e-12, 1e300])
def test_a_single_point_is_a_dot(y: float) -> None:
    svg = line_chart(Chart("loss", "epoch", [Line("training", [(1, y)], "s0")], whole_x=True), "a")
    assert svg.count("<circle") == 1
    assert "nan" not in svg
    parsed(svg)


def test_what_is_no_number_interrupts_a_curve() -> None:
    points = [(float(x), None if x == 20 else NAN if x == 30 else float(x)) for x in range(1, 41)]
    svg = line_chart(Chart("loss", "epoch", [Line("training", points, "s0")]), "a")
    curve = next(path for path in parsed(svg).iter("path") if path.get("class") == "line s0")
    assert str(curve.get("d")).count("M") == 3
    assert "nan" not in str(curve.get("d"))


def test_a_chart_describes_itself_in_words() -> None:
    svg = line_chart(Chart("mAP", "epoch", [Line("mAP50", [(1, 0.1), (2, 0.9), (3, 0.7)], "s0")]), "a")
    assert "mAP50: 0.1 at 1, 0.7 at 3, highest 0.9 at 2; epoch." in svg
    assert parsed(svg).get("role") == "img"


def test_names_in_charts_are_text() -> None:
    chart = line_chart(Chart(SCRIPT, SCRIPT, [Line(SCRIPT, [(1, 1)], "s0")], SCRIPT, marks=[(1, SCRIPT)]), "a")
    matrix = matrix_chart((SCRIPT, SCRIPT + "W" * 90, "background"), ((3, 1, 0), (0, 2, 1), (4, 0, 0)), "b")
    for svg in (chart, matrix):
        assert "<script" not in svg
        parsed(svg)


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 10, True, [2, 4, 6, 8, 10]),
        (1, 3, True, [1, 2, 3]),
        (0, 1e-5, False, [0, 2e-6, 4e-6, 6e-6, 8e-6, 1e-5]),
        (5, 5, False, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float], *, whole: bool) -> None:
    assert ticks(low, high, whole=whole) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (0.25, "0.25"), (0.0005, "0.0005"), (2e-6, "2e-6"), (1500, "1,500"), (25_000, "25,000"), (3.2e7, "3.2e7")]
)
def test_numbers_at_an_axis_are_short(value: float, said: str) -> None:
    assert number(value) == said


def test_each_new_start_is_marked() -> None:
    charts = list(training_charts(epochs(6, attempts=3)))
    assert [chart.title for chart in charts] == ["mAP on the validation images", "Box loss", "Class loss", "Learning rate"]
    assert charts[0].marks == [(2.5, "start 2"), (4.5, "start 3")]
    assert list(training_charts(())) == []
    assert len(list(training_charts(epochs(1)))) == 4


def test_confusions_are_named() -> None:
    found = frequent(("car", "truck", "background"), ((8, 5, 3), (2, 5, 0), (0, 1, 0)))
    assert [(one.true, one.predicted, one.objects) for one in found] == [
        ("truck", "car", 5), ("nothing", "car", 3), ("car", "truck", 2), ("truck", "overlooked", 1),
    ]  # fmt: skip
    assert found[0].share == pytest.approx(5 / 11)


def test_a_first_model_has_nothing_to_compare_with() -> None:
    page = render(facts(), NONE)
    assert "There was no current model to compare it with." in page
    assert "Not judged yet" in page
    assert "difference" not in page
    assert "It went through at the first start." in page
    assert "1 h 02 min" in page
    assert "2 d 7 h" in page


def test_a_drop_beyond_the_threshold_is_marked() -> None:
    names = ("car", "truck")
    comparison = Comparison(rival=None, images=(), own=(), digest="", own_digest="", cache=Path("/x"), max_class_drop=0.25)
    evaluation = Evaluation(
        rival="e" * 64, images=20, digest="", candidate=metrics(names, 0.3), current=metrics(names, 0.5), left_out={"seen before": 7}
    )
    page = render(facts(names, evaluation=evaluation), NONE)
    assert page.count("▼ </span>\N{MINUS SIGN}0.200") == 2
    assert "current model 0.500" in page
    assert "7 seen before" in page
    assert "▼ </span>" not in render(facts(names, evaluation=evaluation, comparison=comparison), NONE)


@pytest.mark.parametrize(
    ("problem", "said"), [("it is <no> ONNX", "could not be evaluated: it is &lt;no&gt; ONNX"), ("", "no test image is left that neither")]
)
def test_it_says_why_there_is_no_comparison(problem: str, said: str) -> None:
    evaluation = Evaluation(rival="e" * 64, images=0, digest="", candidate=metrics(()), problem=problem)
    assert said in render(facts(evaluation=evaluation), NONE)


def test_whatever_is_missing_is_said() -> None:
    page = render(
        facts(dataset=None, curves=None, epochs=(), metrics=metrics(())), Samples(problem="No image could be looked at: it failed")
    )
    for sentence in (
        "no dataset.json that could be read", "The evaluation left no curves.", "No epoch was recorded.", "No test image has an object.",
        "No image could be looked at: it failed",
    ):  # fmt: skip
        assert sentence in page


def test_a_trial_says_that_it_is_one() -> None:
    assert "It is never judged nor released" not in render(facts(), NONE)
    assert "never judged nor released" in render(facts(spec=spec(trial=True)), NONE)


def test_a_page_of_eighty_hostile_classes_stays_small_and_holds_no_script() -> None:
    page = render(*hostile())
    assert len(page.encode()) < 2_000_000
    assert "<script" not in page
    assert "onerror=alert(1)>" not in page


def test_predictions_are_matched_by_class_and_overlap_the_surest_first() -> None:
    truth = [Box("car", (0, 0, 0.4, 0.4)), Box("truck", (0.5, 0.5, 0.9, 0.9))]
    predicted = [
        Box("car", (0, 0, 0.4, 0.35), 0.6),
        Box("car", (0, 0, 0.4, 0.4), 0.9),
        Box("car", (0.5, 0.5, 0.9, 0.9), 0.8),
        Box("truck", (0.5, 0.5, 0.6, 0.6), 0.7),
    ]
    seen, found = match(truth, predicted)
    assert [box.matched for box in seen] == [True, False]
    assert [box.matched for box in found] == [False, True, False, False]
    assert match((), ()) == ((), ())


def test_half_of_the_samples_are_the_most_instructive_ones() -> None:
    names = ("car", "truck")
    good = [sample(names, f"good-{index}", boxes=1) for index in range(20)]
    bad = [sample(names, f"bad-{index}", boxes=2 * index) for index in range(1, 9)]
    shown = choose([*good, *bad])
    assert len(shown) == SHOWN
    assert [one.name for one in shown[:6]] == [f"bad-{index}" for index in (8, 7, 6, 5, 4, 3)]
    assert [one.name for one in shown[6:]] == [f"good-{index}" for index in range(6)]
    assert choose(good[:3]) == tuple(good[:3])
    assert choose(()) == ()


def test_samples_are_the_same_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    images = [tmp_path / "images" / f"{number}.jpg" for number in range(20)]
    for path in images:
        Image.new("RGB", (40, 20)).save(path)
    (tmp_path / "labels" / "3.txt").write_text("1 0.5 0.5 0.5 0.5\n")

    def shown(ordered: list[Path]) -> Samples:
        return take(
            ordered,
            ("car", "truck"),
            lambda paths: ((path, Image.open(path), []) for path in paths if path.name != "5.jpg"),
            confidence=0.5,
            watch=lambda _done, _of: None,
        )

    assert shown(images) == shown(images[::-1])
    assert (shown(images).looked_at, shown(images).of) == (19, 20)
    assert [(box.name, box.corners) for box in shown(images).shown[0].missed] == [("truck", (0.25, 0.25, 0.75, 0.75))]


def test_pictures_are_reduced_to_a_bounded_size() -> None:
    jpeg, width, height = reduced(Image.effect_noise((2000, 1000), 90))
    assert (width, height) == (480, 240)
    assert len(jpeg) <= 100_000
    assert reduced(Image.new("L", (30, 20)))[1:] == (30, 20)


def test_the_librarys_own_table_stands_in_for_missing_records(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text(
        "epoch,time,train/box_loss,metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss,lr/pg0\n1,2.5,3,0.1,0.05,nan,0.01\n2,4,2,0.3,0.2,1.5,0.02\n3,"
    )
    first, second, torn = library_epochs(table)
    assert (first.losses, first.val_losses, first.seconds, first.learning_rate) == ({"box_loss": 3.0}, {"box_loss": None}, 2.5, 0.01)
    assert (second.map50, second.map50_95, second.seconds) == (0.3, 0.2, 1.5)
    assert torn.map50 is None
    assert list(library_epochs(tmp_path / "absent.csv")) == []


def test_damaged_files_are_left_out_and_named(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path / "job")
    given = spec(data_yaml=tmp_path / "dataset" / "data.yaml")
    job.create(given)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "dataset.json").write_text("{")
    (job.path / "curves.json").write_text(json.dumps({"pr": None}))
    (job.path / "comparison.json").write_bytes(b"\xff")
    whole = epochs(2)
    (job.path / "epochs.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in whole) + '{"epoch": 3, "att')
    found = gather(job, given, Evaluated(metrics=metrics(("car",))), versions={}, hardware="CPU")
    assert (found.dataset, found.curves, found.comparison) == (None, None, None)
    assert found.epochs == whole
    assert len(found.problems) == 4
    page = render(found, NONE)
    for name in ("dataset.json", "curves.json", "comparison.json", "epochs.jsonl"):
        assert name in page


def test_curves_of_a_single_class_need_no_mean() -> None:
    page = render(facts(("car",), curves=curves(("car",))), NONE)
    assert "mean of all classes" not in page
    assert "best at 0.50" in page
