"""Trainings as operators see and ask for them while no daemon runs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.errors import OperatorError
from azaion_daemon.ops.job_log import in_training, job_to_read
from azaion_daemon.ops.requests import Request, wishes_of
from azaion_daemon.ops.training_tables import render_list
from azaion_daemon.ops.trainings import cancel, find, listed, said_of_asking, train_now
from azaion_daemon.store.due import TrainingRequest
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Job
from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.outcomes import Outcome
from tests.unit.builders import make_root
from tests.unit.test_training_jobs import NOW, spec


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


def job(id_: str, state: str, created: float = 0.0, **others: Any) -> Job:
    return Job(id_, state, f"reason of {id_}", created, created, **others)


def put(layout: Layout, *jobs: Job, requests: tuple[TrainingRequest, ...] = ()) -> None:
    ledger = Ledger(layout.ledger)
    for one in jobs:
        ledger.put_job(one)
    for request in requests:
        ledger.due.ask(request)
    ledger.close()


def test_jobs_are_listed_the_newest_first_with_what_became_of_them(layout: Layout) -> None:
    verdict = {"decision": "held", "reason": "too few", "by": "gate", "time": 1.0, "checks": []}
    put(
        layout,
        job("20260101T000000Z", "failed", 1.0, why="out_of_memory: never\nfits", ended=60.0),
        job("20260102T000000Z", "held", 2.0, why="too few", verdict=verdict, judged=True, dataset="azaion-2026-01-02"),
        job("20260103T000000Z", "running", 3.0, trial=True, asked=True),
    )
    directory = JobDirectory(layout.jobs / "20260101T000000Z")
    directory.create(spec())
    for number in (1, 2):
        attempt = Attempt(
            number=number, outcome=Outcome.OUT_OF_MEMORY, reason="r", phase=None, epoch=0, batch_size=8, gpus=(), ended=NOW
        )  # fmt: skip
        directory.append_attempt(attempt)
    document = listed(layout)
    newest, held, failed = document["jobs"]
    assert (newest["id"], newest["trial"], newest["state"], newest["ended"]) == ("20260103T000000Z", True, "running", None)
    assert held["verdict"] == {"decision": "held", "reason": "too few", "by": "gate"}
    assert (failed["attempts"], failed["ended"], held["attempts"]) == (2, "1970-01-01T00:01:00+00:00", None)
    assert json.loads(json.dumps(document)) == document
    text = render_list(document)
    assert "20260103T000000Z  running (trial)" in text
    assert "out_of_memory: never fits" in text
    assert "reason of 20260102T000000Z" in text


def test_not_every_job_is_shown_unless_that_is_asked_for(layout: Layout) -> None:
    put(layout, *(job(f"J{number:02}", "released", float(number)) for number in range(25)))
    assert len(listed(layout)["jobs"]) == 20
    assert render_list(listed(layout)).endswith("5 older ones are shown by --all.")
    assert len(listed(layout, every=True)["jobs"]) == 25


def test_what_is_asked_for_is_listed_wherever_it_waits(layout: Layout) -> None:
    assert "There is no job yet." in render_list(listed(layout))
    put(layout, job("J", "running"), requests=(TrainingRequest("r", 1.0, "first", epochs=300),))
    train_now(layout, "second  one", trial=True)
    cancel(layout, None, "wrong")
    (layout.requests / "damaged.json").write_text("{")
    first, second, third = listed(layout)["requests"]
    assert (first["kind"], first["epochs"], first["waits_for"]) == ("train", 300, "the daemon's next start")
    assert (second["kind"], second["trial"], second["reason"]) == ("train", True, "second one")
    assert (third["kind"], third["job"]) == ("cancel", "J")
    text = render_list(listed(layout))
    assert "A training of 300 epochs is asked for since 1970-01-01 00:00Z (first) and waits for the daemon's next start." in text
    assert "Job J is to be cancelled (wrong)" in text
    assert (layout.requests / "damaged.json").exists()


def test_asking_while_no_daemon_runs_leaves_a_request_for_its_start(layout: Layout) -> None:
    document = train_now(layout, "new camera", epochs=7)
    assert (document, said_of_asking(document)) == (
        {"begins": "at_start", "under_way": []},
        "No daemon is running; the training begins at its next start.",
    )
    (file,) = layout.requests.iterdir()
    request = Request(**json.loads(file.read_text()))
    assert (request.kind, wishes_of(request)) == ("train_now", (False, 7))
    with pytest.raises(OperatorError, match="a trial is one epoch"):
        train_now(layout, "r", epochs=2, trial=True)
    with pytest.raises(OperatorError, match="between 1 and 500 characters; this one has 501"):
        train_now(layout, "x" * 501)


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"epochs": "7"}, {"trial": "yes"}])
def test_wishes_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(OperatorError, match="cannot be asked for"):
        wishes_of(Request("r", "train_now", arguments))


def test_cancelling_names_the_job_for_good(layout: Layout) -> None:
    with pytest.raises(OperatorError, match="no job is under way"):
        cancel(layout, None, "r")
    put(layout, job("20260101T000000Z", "released"), job("20260102T000000Z", "running"), job("20260102T000000Z-2", "held"))
    said = cancel(layout, None, "r")
    assert said.startswith("No daemon is running; job 20260102T000000Z is cancelled at its next start.")
    (file,) = layout.requests.iterdir()
    assert json.loads(file.read_text())["arguments"] == {"job": "20260102T000000Z", "reason": "r"}
    for wanted, why in (
        ("20260101", "has ended: it is released"),
        ("20260102", "stands for several jobs: 20260102T000000Z, 20260102T000000Z-2"),
        ("20260102T000000Z-2", "azaion-daemon model reject"),
        ("2027", "there is no job 2027"),
        ("", "there is no job"),
    ):
        with pytest.raises(OperatorError, match=why):
            cancel(layout, wanted, "r")
    put(layout, job("20260103T000000Z", "queued"))
    with pytest.raises(OperatorError, match="say which: 20260102T000000Z, 20260103T000000Z"):
        cancel(layout, None, "r")
    put(layout, job("20260103T000000Z", "cancelled"))
    with pytest.raises(OperatorError, match="is cancelled already"):
        cancel(layout, "20260103", "r")


def test_an_id_itself_goes_before_those_that_begin_with_it() -> None:
    jobs = [job("J", "released"), job("J-2", "released")]
    assert find(jobs, "J").id == "J"
    assert find(jobs, "J-").id == "J-2"


def test_the_log_that_is_read_is_that_of_the_job_under_way_else_of_the_newest(layout: Layout) -> None:
    with pytest.raises(OperatorError, match="there is no job yet"):
        job_to_read(layout, None)
    put(layout, job("A", "running", 1.0), job("B", "failed", 2.0))
    assert (job_to_read(layout, None).id, job_to_read(layout, "B").id) == ("A", "B")
    assert (in_training(layout, "A"), in_training(layout, "B"), in_training(layout, "C")) == (True, False, False)
    put(layout, job("A", "held", 1.0))
    assert job_to_read(layout, None).id == "B"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_another_user_is_told_so(layout: Layout) -> None:
    layout.requests.chmod(0o000)
    try:
        with pytest.raises(OperatorError, match="Run this as the user of the daemon"):
            train_now(layout, "r")
    finally:
        layout.requests.chmod(0o755)
