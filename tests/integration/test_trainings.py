"""Trainings through the command line and the real daemon process: asked for, listed, followed, cancelled, tried, promoted.

A stand-in for the worker speaks its protocol with real locks, processes and signals; it ends when it is told to.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from azaion_daemon.ops.requests import ask
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.scenario import scenario
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.jobs import JobDirectory
from tests.harness import Site, ingested
from tests.integration.scraping import scraped_until, serve_metrics

# What it reaches is said by the file `map` in the root; a file `go` there has all workers end.
STAND_IN = """
import hashlib, os, sys, time
from datetime import UTC, datetime
from pathlib import Path
from azaion_daemon.errors import RootError
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.training.evaluation import Evaluation, Metrics
from azaion_daemon.training.jobs import JobDirectory, JobResult, ModelFile, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.processes import EXIT_TAKEN, TOKEN_VARIABLE, own_identity

job = JobDirectory(Path(sys.argv[1]))
root = job.path.parents[2]
try:
    lock = exclusive_lock(job.lock, busy="taken")
    lock.__enter__()
except RootError:
    sys.exit(EXIT_TAKEN)
if job.read_result() is not None:
    sys.exit(0)
spec, earlier = job.read_spec(), job.read_identity()
attempt = earlier.attempt + 1 if earlier else 1
job.write_identity(own_identity(os.environ[TOKEN_VARIABLE], attempt))
print(f"start {attempt}, {spec.epochs} epochs", flush=True)
for step in range(100_000):
    now = datetime.now(UTC)
    times = {"started": now, "phase_started": now, "updated": now}
    job.write_progress(Progress(phase=Phase.TRAIN, epoch=1, epochs=spec.epochs, attempt=attempt, **times))
    if (root / "go").exists():
        break
    time.sleep(0.05)
print("\\033[31mthe end", flush=True)
files = {}
for kind, path in (("pt", job.pt), ("onnx", job.onnx)):
    path.write_bytes(kind.encode() * 20_000)
    files[kind] = ModelFile(path=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size_bytes=path.stat().st_size)
reached = float((root / "map").read_text())
metrics = Metrics(images=100, instances=100, map50=reached, map50_95=reached, classes=())
asked = job.read_comparison()
evaluation = None
if asked is not None and asked.rival is not None:
    evaluation = Evaluation(rival=asked.rival.sha256, images=100, digest=asked.digest, candidate=metrics, current=metrics)
job.write_result(
    JobResult(
        outcome=Outcome.DONE, metrics=metrics, evaluation=evaluation, attempts=attempt, dataset_id=spec.dataset_id,
        finished=datetime.now(UTC), **files,
    )
)
"""
LAUNCHER = """
import sys
from azaion_daemon.training.pool import WorkerPool

real = WorkerPool.__init__
WorkerPool.__init__ = lambda self, *_, **others: real(self, (sys.executable, "-P", {stand_in!r}), **others)

from azaion_daemon.cli import main

main()
"""


class Trainings:
    """A site with annotations, whose daemon trains with the stand-in."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site = site
        self.layout = Layout(site.root)
        stand_in, self._launcher = directory / "stand_in.py", directory / "launcher.py"
        stand_in.write_text(STAND_IN)
        self._launcher.write_text(LAUNCHER.format(stand_in=str(stand_in)))
        self.reach(0.5)

    def reach(self, map50_95: float) -> None:
        (self.site.root / "map").write_text(str(map50_95))

    def let_end(self, *, end: bool = True) -> None:
        go = self.site.root / "go"
        go.touch() if end else go.unlink()

    def daemon(self) -> RunningDaemon:
        return self.site.operator.daemon([sys.executable, str(self._launcher)])

    def annotate(self, daemon: RunningDaemon) -> None:
        shift = scenario(60, seed=21)
        self.site.publish(shift.messages)
        daemon.wait_for_status(lambda status: ingested(shift).items() <= status["annotations"].items(), "everything is ingested")

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.site.operator.try_command("train", *arguments)

    def jobs(self) -> list[dict[str, Any]]:
        return list(json.loads(self.command("list", "--json").stdout)["jobs"])

    def workers(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any("stand_in.py" in part for part in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def wait_for_state(self, daemon: RunningDaemon, *states: str) -> list[dict[str, Any]]:
        """The jobs in the status once they are in these states, the oldest first."""

        def reached(status: dict[str, Any]) -> bool:
            return [job["state"] for job in status["training"]["jobs"]] == [*states]

        return list(daemon.wait_for_status(reached, f"jobs that are {', '.join(states)}")["training"]["jobs"])


@pytest.fixture
def trainings(tmp_path: Path, broker: Broker, stream: str) -> Iterator[Trainings]:
    site = Site(tmp_path, broker, stream)
    site.overrides["training"] |= {"max_parallel_jobs": 2}
    site.overrides["gate"] = {"min_map50_95": 0.1}
    serve_metrics(site)
    site.prepare()
    made = Trainings(site, tmp_path)
    yield made
    site.operator.end_workers()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(["sleep", "1"], timeout=0.1, check=False)
    assert condition()


def test_asked_for_while_no_daemon_runs_followed_over_a_restart_and_seen_to_its_end(trainings: Trainings) -> None:
    with trainings.daemon() as daemon:
        trainings.annotate(daemon)
    asked = trainings.command("now", "--reason", "new camera", "--epochs", "7", "--json")
    assert json.loads(asked.stdout) == {"begins": "at_start", "under_way": []}
    assert "A training of 7 epochs is asked for" in trainings.command("list").stdout
    with trainings.daemon() as daemon:
        daemon.wait_for_event("worker.phase")
    (job,) = trainings.jobs()
    assert (job["state"], job["asked"], job["epochs"]) == ("running", True, 7)
    follower = subprocess.Popen(
        [sys.executable, "-m", "azaion_daemon.cli", "train", "logs", "-f"],
        cwd=trainings.site.operator.directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    assert follower.stdout.readline() == "start 1, 7 epochs\n"
    with trainings.daemon() as daemon:
        daemon.wait_for_event("worker.adopted", job=job["id"])
        metrics = scraped_until(trainings.site, lambda found: ("azaion_training_epochs", (job["id"],)) in found)
        assert (metrics["azaion_training_epochs", (job["id"],)], metrics["azaion_jobs", ("running",)]) == (7, 1)
        assert metrics["azaion_training_last_progress_timestamp_seconds", (job["id"],)] <= metrics["azaion_status_timestamp_seconds", ()]
        trainings.let_end()
        trainings.wait_for_state(daemon, "releasing")
        metrics = scraped_until(trainings.site, lambda found: found["azaion_jobs_ended_total", ("accepted",)] == 1)
        assert (metrics["azaion_releases_waiting", ()], metrics["azaion_model_map50_95_ratio", ()]) == (1, 0.5)
        said, _ = follower.communicate(timeout=30)
        assert (said, follower.returncode) == ("the end\n", 0)
        (job,) = trainings.jobs()
        assert (job["attempts"], job["verdict"]["decision"], job["ended"] is not None) == (1, "accepted", True)
        assert trainings.command("logs", job["id"][:10], "--lines", "1").stdout == "the end\n"


def test_one_of_two_beside_each_other_is_cancelled_and_the_other_goes_on(trainings: Trainings) -> None:
    with trainings.daemon() as daemon:
        trainings.annotate(daemon)
        assert "begins now" in trainings.command("now", "--reason", "one").stderr
        trainings.wait_for_state(daemon, "running")
        assert "begins now" in trainings.command("now", "--reason", "two").stderr
        first, second = trainings.wait_for_state(daemon, "running", "running")
        assert "it follows what is under way" in trainings.command("now", "--reason", "three").stderr
        ambiguous = trainings.command("cancel")
        assert (ambiguous.returncode, "say which" in ambiguous.stderr) == (78, True)
        until(lambda: len(trainings.workers()) == 2)
        done = trainings.command("cancel", first["id"], "--reason", "wrong settings")
        assert (done.returncode, done.stderr) == (0, f"Job {first['id']} is cancelled.\n")
        # What was asked for third has waited for the room that there is now.
        until(lambda: len(trainings.jobs()) == 3)
        newest, _, cancelled = trainings.jobs()
        assert (cancelled["state"], cancelled["why"]) == ("cancelled", "wrong settings")
        assert "three" in newest["reason"]
        again = trainings.command("cancel", first["id"])
        assert (again.returncode, "is cancelled already" in again.stderr) == (78, True)
        trainings.let_end()
        daemon.wait_for_event("job.judged", job=second["id"])


def test_a_cancelling_that_a_kill_cut_short_is_done_by_the_next_start(trainings: Trainings) -> None:
    with trainings.daemon() as daemon:
        trainings.annotate(daemon)
        trainings.command("now")
        (job,) = trainings.wait_for_state(daemon, "running")
        until(lambda: len(trainings.workers()) == 1)
        daemon.kill()
        daemon.process.returncode = 0  # as intended
    done = trainings.command("cancel", "--reason", "enough")
    assert f"job {job['id']} is cancelled at its next start" in done.stderr
    (request,) = trainings.layout.requests.glob("*.json")
    left = request.read_text()
    with trainings.daemon() as daemon:
        daemon.wait_for_event("request.answered", kind="train_cancel", error=None)
        trainings.wait_for_state(daemon, "cancelled")
        assert trainings.workers() == []
    request.write_text(left)  # as if it had been killed before the request was gone
    # And as if a worker had outlived the kill that came after the ledger knew.
    directory = JobDirectory(trainings.layout.jobs / job["id"])
    stray = subprocess.Popen(
        [sys.executable, "-P", str(trainings.site.operator.directory / "stand_in.py"), str(directory.path)],
        env={"AZAION_JOB": str(directory.path), "AZAION_WORKER": "t"},
    )
    until(lambda: (identity := directory.read_identity()) is not None and identity.pid == stray.pid)
    with trainings.daemon() as daemon:
        daemon.wait_for_event("request.answered", kind="train_cancel", error=None)
        daemon.wait_for_event("worker.stray", job=job["id"])
        assert stray.wait(30) != 0
        assert [one["state"] for one in trainings.jobs()] == ["cancelled"]


def test_a_trial_tries_everything_and_leaves_nothing_behind(trainings: Trainings) -> None:
    trainings.let_end()
    with trainings.daemon() as daemon:
        trainings.annotate(daemon)
        trainings.command("now", "--trial", "--reason", "before the weekend")
        (job,) = trainings.wait_for_state(daemon, "tried")
        assert "encrypted and decrypted in" in job["why"]
        assert "with the model key" in job["why"]
        assert (job["trial"], job["dataset"]) == (True, None)
    assert list(trainings.layout.datasets.iterdir()) == []
    assert JobDirectory(trainings.layout.jobs / job["id"]).worked_with() == []
    assert not trainings.layout.onnx.exists()


def test_a_model_that_the_gate_rejected_is_promoted_by_a_request(trainings: Trainings) -> None:
    trainings.reach(0.05)
    trainings.let_end()
    with trainings.daemon() as daemon:
        trainings.annotate(daemon)
        trainings.command("now")
        (job,) = trainings.wait_for_state(daemon, "rejected")
        refused = ask(trainings.layout, "reject", {"job": job["id"], "reason": "r"}, wait_s=30)
        assert refused == {"ok": False, "error": f"job {job['id']} is rejected: only a model that is held can be rejected"}
        done = ask(trainings.layout, "promote", {"job": job["id"], "reason": "good enough here"}, wait_s=30)
        assert done is not None
        assert done["ok"]
        trainings.wait_for_state(daemon, "releasing")
        assert trainings.layout.onnx.read_bytes() == b"onnx" * 20_000
