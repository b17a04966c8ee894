"""Models and the real daemon: an operator promotes and rejects, beside it and while it is down; the gate follows a reload."""

import hashlib
import json
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Job, Model
from azaion_daemon.training.evaluation import Metrics
from azaion_daemon.training.jobs import JobDirectory, JobResult, ModelFile
from azaion_daemon.training.outcomes import Outcome
from tests.harness import Site

NOW = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
METRICS = Metrics(images=9, instances=9, map50=0.5, map50_95=0.4, classes=())


def put_model(directory: Path, content: str, names: tuple[str, str]) -> JobResult:
    """The files of a model and its result."""
    directory.mkdir(parents=True)
    files: dict[str, Any] = {}
    for kind, name in zip(("pt", "onnx"), names, strict=True):
        (directory / name).write_text(f"{kind} of {content}")
        digest = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        files[kind] = ModelFile(path=name, sha256=digest, size_bytes=9)
    result = JobResult(outcome=Outcome.DONE, metrics=METRICS, dataset_id="d", finished=datetime.now(UTC), **files)
    (directory / "result.json").write_bytes(result.render())
    return result


def sha256(content: str) -> str:
    return hashlib.sha256(f"onnx of {content}".encode()).hexdigest()


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    """A root with an older and a current model, and two jobs whose models are held."""
    made = Site(tmp_path, broker, stream)
    made.prepare()
    layout = Layout(made.root)
    ledger = Ledger(layout.ledger)
    for which in ("old", "new"):
        kept = layout.models / f"azaion-{which}"
        put_model(kept, which, ("azaion.pt", "azaion.onnx"))
        path = str(kept / "azaion.onnx")
        ledger.put_current_model(Model(sha256(which), None, "d", METRICS.model_dump(), path, current=True, created=NOW))
    layout.onnx.write_text("onnx of new")
    for day in (1, 2):
        id_ = f"2026030{day}T000000Z"
        result = put_model(JobDirectory(layout.jobs / id_).path, id_, ("model.pt", "model.onnx")).model_dump(mode="json")
        verdict = {"decision": "held", "reason": "too few images", "by": "gate", "time": NOW, "checks": []}
        named: dict[str, Any] = {"dataset": f"azaion-2026-03-0{day}", "why": "too few images"}
        ledger.put_job(Job(id_, "held", "", NOW, NOW, judged=True, result=result, verdict=verdict, **named))
    ledger.close()
    return made


def current(site: Site) -> str:
    (first, *_) = json.loads(site.operator.command("model", "list", "--json"))
    assert first["state"] == "current"
    return str(first["sha256"])


def test_operators_decide_beside_a_running_daemon(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("daemon.ready")
        said = site.operator.try_command("model", "promote", sha256("old")[:8], "--reason", "the new one misses boats").stderr
        assert said == f"Model {sha256('old')[:12]} is the current one and is released.\n"
        assert (current(site), (site.root / "models" / "azaion.onnx").read_text()) == (sha256("old"), "onnx of old")
        daemon.wait_for_event("release.waiting", serial=1)  # nobody is at the API's address
        daemon.wait_for_event("model.promoted", why="the new one misses boats")
        assert "is rejected" in site.operator.try_command("model", "reject", "20260301", "--reason", "blurred").stderr
        assert "is accepted" in site.operator.try_command("model", "promote", "20260302", "--reason", "good enough").stderr
        daemon.wait_for_event("job.state", job="20260302T000000Z", state="releasing")
        assert current(site) == sha256("20260302T000000Z")
        daemon.wait_for_event("release.waiting", serial=2)
        twice = site.operator.try_command("model", "promote", "20260302", "--reason", "again")
        assert (twice.returncode, "is the current one already" in twice.stderr) == (78, True)
    text = site.operator.command("model", "show", "20260301")
    assert "rejected" in text.splitlines()[0]
    assert text.index("Rejected by the operator") < text.index("blurred") < text.index("Held by the gate")


def test_what_operators_decide_while_no_daemon_runs_is_done_once_by_its_next_start(site: Site) -> None:
    asked = site.operator.try_command("model", "promote", sha256("old")[:8], "--reason", "better")
    assert (asked.returncode, "becomes the current one at its next start" in asked.stderr) == (0, True)
    (request,) = (site.root / "state" / "requests").glob("*.json")
    left = request.read_text()
    for _ in range(2):
        with site.daemon() as daemon:
            daemon.wait_for_event("request.answered", kind="promote_model", error=None)
            assert current(site) == sha256("old")
        request.write_text(left)  # as if the daemon had been killed before the request was gone
    (old,) = (one for one in json.loads(site.operator.command("model", "list", "--json")) if one["state"] == "current")
    assert old["serial"] == 1


def test_what_operators_decide_while_no_daemon_runs_comes_after_what_was_accepted_before(site: Site) -> None:
    ledger = Ledger(Layout(site.root).ledger)
    ledger.put_job(replace(ledger.jobs()[0], state="accepted"))  # as by a daemon that was killed right after
    ledger.close()
    site.operator.try_command("model", "promote", sha256("old")[:8], "--reason", "the new one misses boats")
    with site.daemon() as daemon:
        daemon.wait_for_event("job.state", job="20260301T000000Z", state="releasing")
        daemon.wait_for_event("request.answered", kind="promote_model", error=None)
        assert (current(site), (site.root / "models" / "azaion.onnx").read_text()) == (sha256("old"), "onnx of old")
        daemon.wait_for_event("release.waiting", serial=2)


def test_the_gate_follows_a_reload(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")
        site.overrides["gate"] = {"min_images": 7}
        site.configure()
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.wait_for_event("config.reloaded")["applied"] == ["gate.min_images"]
