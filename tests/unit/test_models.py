"""Models for operators: which there are and why, and what is asked of the daemon about them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from azaion_daemon.cli import main
from azaion_daemon.errors import OperatorError
from azaion_daemon.ops.models import Catalogue, promote, reject
from azaion_daemon.ops.requests import pending
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Job, Model
from tests.unit.builders import make_root, settings_on

NOW = 1_780_000_000.0
DAY = 86400.0


def figures(map50_95: float | None) -> dict[str, Any]:
    car = {"name": "car", "images": 40, "instances": 90, "map50": map50_95, "map50_95": map50_95}
    none = {"name": "boat", "images": 0, "instances": 0, "map50": None, "map50_95": None}
    return {"images": 60, "instances": 90, "map50": 0.7, "map50_95": map50_95, "classes": [car, none]}


def result(number: int, rival: str | None = None) -> dict[str, Any]:
    evaluation = {
        "rival": rival, "images": 50, "digest": "d", "candidate": figures(0.4), "current": figures(0.5), "problem": "",
        "left_out": {"may have been seen by the current model": 10},
    }  # fmt: skip
    file = {"path": "model.onnx", "sha256": f"{number}" * 64, "size_bytes": 1}
    return {
        "outcome": "done", "onnx": file, "metrics": figures(0.45), "evaluation": evaluation if rival else None,
        "dataset_id": f"id{number}", "settings": {"epochs": 3, "imgsz": 64}, "versions": {"torch": "2.14"}, "seconds": {"train": 90.4},
        "attempts": 2,
    }  # fmt: skip


def verdict(decision: str, reason: str, by: str = "gate", before: dict[str, Any] | None = None) -> dict[str, Any]:
    checks = [{"name": "mAP50-95 against the current model", "value": -0.1, "limit": -0.0, "ok": False}]
    return {"decision": decision, "reason": reason, "by": by, "time": NOW, "checks": checks if by == "gate" else [], "before": before}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Three models of which the first is gone, and three jobs that came to nothing else."""
    made = make_root(tmp_path / "azaion")
    ledger = Ledger(made.ledger, clock=lambda: NOW)
    for number in range(3):
        since = NOW - (10 - number) * DAY
        path = made.models / f"azaion-2026-01-0{number + 1}"
        if number:
            path.mkdir()
            (path / "azaion.onnx").write_bytes(b"onnx")
        ledger.put_job(
            Job(
                f"2026010{number + 1}T000000Z",
                "released",
                "",
                since,
                since,
                dataset=path.name,
                result=result(number),
                verdict=verdict("accepted", "good"),
            )
        )
        kept = str(path / "azaion.onnx")
        made_of: dict[str, Any] = {"job": f"2026010{number + 1}T000000Z", "dataset_id": f"id{number}", "metrics": figures(0.45)}
        ledger.put_model(
            Model(f"{number}" * 64, path=kept, current=number == 2, created=since, current_since=since, **made_of),
        )
    serial = ledger.add_release("2" * 64).serial
    ledger.update_release(serial, "published")
    for day, state, trial in ((4, "rejected", False), (5, "held", False), (6, "rejected", True), (7, "failed", False)):
        ledger.put_job(
            Job(f"2026010{day}T000000Z", state, "", NOW, NOW, dataset="azaion-2026-01-04", result=result(day, "2" * 64), ended=NOW + day,
                verdict=verdict(state, f"it is {state}\x1b[31m"), trial=trial),
        )  # fmt: skip
    report = made.jobs / "20260105T000000Z" / "report.html"
    report.parent.mkdir()
    report.write_text("<html>")
    ledger.close()
    return made


@pytest.fixture
def config(layout: Layout, tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    document = settings_on(layout).model_dump(mode="json")
    for section in ("api", "stream"):
        document[section]["password"] = "p"
    file.write_text(yaml.safe_dump(document))
    return file


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["model", *arguments, "--config", str(config)], catch_exceptions=False)


def test_the_current_model_comes_first_and_what_was_not_kept_last(config: Path) -> None:
    shown = run(config, "list", "--json")
    documents = json.loads(shown.stdout)
    assert [(one["id"][:8], one["state"]) for one in documents] == [
        ("22222222", "current"), ("11111111", "predecessor"), ("00000000", "gone"), ("20260105", "held"), ("20260104", "rejected"),
    ]  # fmt: skip
    first, *_, held, rejected = documents
    assert (first["dataset"], first["serial"], first["release"], first["map50_95"]) == ("azaion-2026-01-03", 1, "published", 0.45)
    assert (held["sha256"], held["by"], held["why"]) == ("5" * 64, "gate", "it is held\x1b[31m")
    assert (held["report"] is not None, rejected["report"]) == (True, None)
    table = run(config, "list").stdout.splitlines()
    assert len(table) == 1 + 5 + 2
    assert "it is held\\x1b[31m" in "".join(table)  # a terminal is told nothing


def test_a_model_is_shown_beside_the_one_that_it_was_compared_with(config: Path) -> None:
    text = run(config, "show", "20260105").stdout
    assert "Held by the gate, 2026-05-28" in text
    assert "Compared with 222222222222 on 50 images that neither was trained on (10 may have been seen by the current model)" in text
    (car,) = [line.split() for line in text.splitlines() if line.startswith("car")]
    assert car == ["car", "90", "40", "0.400", "0.500", "-0.100"]
    assert not [line for line in text.splitlines() if line.startswith("boat")]
    assert [line.split() for line in text.splitlines() if "against the current" in line] == [
        ["mAP50-95", "against", "the", "current", "model", "-0.100", "-0.000", "below"]
    ]
    document = json.loads(run(config, "show", "20260105", "--json").stdout)
    assert (document["compared_on"]["rival"], document["settings"]["epochs"], document["attempts"]) == ("2" * 64, 3, 2)


def test_the_current_model_is_shown_by_default_with_the_history_of_its_verdict(config: Path, layout: Layout) -> None:
    ledger = Ledger(layout.ledger)
    (job,) = [job for job in ledger.jobs() if job.id == "20260103T000000Z"]
    overruled = verdict("accepted", "the test side was mislabelled", "operator", verdict("rejected", "worse"))
    ledger.put_job(Job(job.id, job.state, "", NOW, NOW, result=job.result, verdict=overruled, dataset=job.dataset))
    ledger.close()
    text = run(config, "show").stdout
    assert text.startswith(f"{'2' * 64}, current")
    assert text.index("Accepted by the operator") < text.index("the test side was mislabelled") < text.index("Rejected by the gate")
    assert "versions      torch 2.14" in text


@pytest.mark.parametrize("wanted", ["1111", "1" * 64, "20260102", "20260102T000000Z"])
def test_a_model_is_named_by_its_digest_or_its_job(layout: Layout, wanted: str) -> None:
    assert Catalogue(layout).find(wanted).id == "1" * 64


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [("2222 ", "no model"), ("111", "too short"), ("202601", "stands for several models"), ("20260107", "nor a job that was judged")],
)
def test_a_name_that_is_not_clear_is_refused(layout: Layout, wanted: str, sentence: str) -> None:
    with pytest.raises(OperatorError, match=sentence):
        Catalogue(layout).find(wanted)


def test_a_root_without_a_model_says_so(tmp_path: Path) -> None:
    catalogue = Catalogue(make_root(tmp_path / "azaion"))
    assert catalogue.listed() == []
    with pytest.raises(OperatorError, match="no current model yet"):
        catalogue.find(None)


def test_while_no_daemon_runs_what_is_asked_waits_for_its_start(layout: Layout) -> None:
    assert (
        promote(layout, "1111", " it was  better ") == "No daemon is running; model 111111111111 becomes the current one at its next start."
    )
    assert "the model of job 20260104T000000Z becomes the current one" in promote(layout, "20260104", "why")
    assert "job 20260105T000000Z is rejected" in reject(layout, "20260105", "why")
    assert [(one.kind, one.arguments) for one in pending(layout)] == [
        ("promote_model", {"sha256": "1" * 64, "reason": "it was better"}),
        ("promote", {"job": "20260104T000000Z", "reason": "why"}),
        ("reject", {"job": "20260105T000000Z", "reason": "why"}),
    ]


def test_what_cannot_be_done_is_refused_at_once(layout: Layout, config: Path) -> None:
    for wanted, sentence in (("2222", "is the current one already"), ("0000", "models_keep_days let it go")):
        with pytest.raises(OperatorError, match=sentence):
            promote(layout, wanted, "why")
    for wanted, state in (("1111", "predecessor"), ("20260104", "rejected")):
        with pytest.raises(OperatorError, match=f"is {state}: only a model that is held can be rejected"):
            reject(layout, wanted, "why")
    assert run(config, "promote", "1111", "--reason", " ").exit_code == 78
    assert run(config, "promote", "1111").exit_code == 2
    assert pending(layout) == []


def test_after_a_rebuild_the_record_beside_a_model_says_what_it_reaches(layout: Layout) -> None:
    ledger = Ledger(layout.ledger)
    ledger._db.execute("DELETE FROM jobs")
    ledger.close()
    document = {**result(2), "finished": "2026-01-03T00:00:00Z"}
    (layout.models / "azaion-2026-01-03" / "result.json").write_text(json.dumps(document))
    catalogue = Catalogue(layout)
    shown = catalogue.shown(catalogue.find(None))
    assert (shown["versions"], shown["verdict"], shown["dataset_id"]) == ({"torch": "2.14"}, None, "id2")
