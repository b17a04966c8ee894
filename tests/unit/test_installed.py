"""What the scripts in deploy/ ask of a version."""

import json
import os
import sqlite3
import time
from pathlib import Path

import pytest

from azaion_daemon.errors import RootError
from azaion_daemon.ops.installed import copy_ledger, interpreters, is_running, main
from azaion_daemon.ops.status import write_status
from azaion_daemon.rendering import render_file
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Job
from azaion_daemon.store.root import init_root, lock_root
from azaion_daemon.training.states import JobState

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "root")
    init_root(made)
    return made


def put_job(layout: Layout, name: str, state: JobState, *, ended: bool, python: str | None) -> None:
    ledger = Ledger(layout.ledger)
    ledger.put_job(Job(name, state, "asked", time.time(), time.time(), ended=time.time() if ended else None))
    ledger.close()
    if python is not None:
        (layout.jobs / name).mkdir()
        (layout.jobs / name / "job.json").write_text(json.dumps({"python": python, "of": "another release"}))


def test_jobs_that_have_not_ended_need_the_python_that_they_began_with(layout: Layout) -> None:
    put_job(layout, "one", JobState.RUNNING, ended=False, python="/versions/a/python")
    put_job(layout, "two", JobState.QUEUED, ended=False, python="/versions/b/python")
    put_job(layout, "three", JobState.FAILED, ended=True, python="/versions/c/python")
    put_job(layout, "four", JobState.FORMING, ended=False, python=None)
    assert list(interpreters(layout)) == ["/versions/a/python", "/versions/b/python"]


def test_where_the_root_is_not_mounted_nothing_is_said_of_jobs(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="mounted"):
        list(interpreters(Layout(tmp_path / "root")))


def test_the_copy_of_a_ledger_is_whole_while_the_daemon_has_it_open(layout: Layout, tmp_path: Path) -> None:
    put_job(layout, "one", JobState.QUEUED, ended=False, python=None)
    open_by_the_daemon = Ledger(layout.ledger)
    open_by_the_daemon.put_job(Job("two", JobState.QUEUED, "asked", time.time(), time.time()))  # in the write-ahead log only
    copy_ledger(layout, tmp_path / "copy.db")
    open_by_the_daemon.close()
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert [row[0] for row in copy.execute("SELECT id FROM jobs ORDER BY created")] == ["one", "two"]
    copy.close()


def test_the_daemon_runs_when_the_one_that_holds_the_root_says_so(layout: Layout) -> None:
    assert not is_running(layout, os.getpid())
    with lock_root(layout):
        for state, running in (("starting", False), ("running", True), ("stopping", False)):
            write_status(layout, {"state": state, "pid": os.getpid()})
            assert is_running(layout, os.getpid()) is running
        write_status(layout, {"state": "running", "pid": os.getpid()})
        assert not is_running(layout, os.getpid() + 1)
    assert not is_running(layout, os.getpid())


def rendered(tmp_path: Path, root: str) -> Path:
    example = (CHECKOUT / ".env.example").read_text().replace("AZAION_ROOT_DIR=/azaion", f"AZAION_ROOT_DIR='{root}'")
    (tmp_path / ".env").write_text(example)
    config = tmp_path / "config.yaml"
    render_file(env_file=tmp_path / ".env", template=CHECKOUT / "config.template.yaml", output=config, process={})
    return config


def test_a_question_is_answered_on_standard_output(layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_job(layout, "one", JobState.QUEUED, ended=False, python="/versions/a/python")
    config = str(rendered(tmp_path, str(layout.root)))
    assert main(["root", config]) == 0
    assert main(["interpreters", config]) == 0
    assert main(["running", config, "1"]) == 1
    assert main(["copy-ledger", config, str(tmp_path / "copy.db")]) == 0
    assert capsys.readouterr().out == f"{layout.root}\n/versions/a/python\n"
    assert (tmp_path / "copy.db").stat().st_size > 0


def test_what_cannot_be_answered_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(rendered(tmp_path, str(tmp_path / "nowhere")))
    assert main(["interpreters", config]) == 78
    assert main(["root", str(rendered(tmp_path, f"{tmp_path}/two\nlines"))]) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert "systemd cannot be told" in said.err
