"""The command finds the daemon by its root whatever the new file holds, tells nobody else, and never waits for one that is gone."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.errors import ConfigError, NoAnswerError
from azaion_daemon.ops.reload_order import find_root, reload_and_wait, said_of_reload, tell_to_reload
from azaion_daemon.ops.status import write_status
from azaion_daemon.store.layout import Layout
from tests.unit.builders import make_root
from tests.unit.test_reloading import text_of

HOLDER = """
import signal, sys, time
from pathlib import Path
from azaion_daemon.store.durable import exclusive_lock

came = []
if sys.argv[2] == "daemon":
    signal.signal(signal.SIGHUP, lambda *_: came.append(1))
with exclusive_lock(Path(sys.argv[1]), busy="busy"):
    print("held", flush=True)
    while not came or len(sys.argv) == 3:
        time.sleep(0.01)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


@contextmanager
def held(layout: Layout, *story: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the root: `daemon` takes a SIGHUP, and ends by it if `mortal`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(layout.lock), *story], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def says(layout: Layout, pid: int, begun: float, **last: Any) -> None:
    reload = {"ok": True, "error": None, "applied": [], "next_job": [], "restart_required": [], "begun_monotonic": begun, **last}
    write_status(layout, {"pid": pid, "state": "running", "config": {"last_reload": reload}})


@pytest.mark.parametrize(
    "text",
    [
        text_of(directories={"root": "/srv/azaion"}),
        "api: [\ndirectories:\n  data: x\n  # a remark\n\n  root: /srv/azaion # here\nstream: {\n",
        'directories:\n  root: "/srv/azaion"\nstream: null\n',
    ],
)
def test_the_root_is_found_in_a_file_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(text.encode() + b"\xff")
    assert find_root(config) == Path("/srv/azaion")


@pytest.mark.parametrize(
    "text", ["", "directories:\n  root: azaion\n", "directories:\n  root: [\n", "directories:\nroot: /x\n", "\0", None]
)
def test_where_it_does_not_say_that_is_said_and_what_the_daemon_does(tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "config.yaml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(ConfigError, match=r"it keeps the configuration that it has.*--root") as caught:
        find_root(config)
    assert str(config) in str(caught.value)


def test_without_a_daemon_there_is_nothing_to_tell(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(NoAnswerError, match="no daemon runs in"):
        tell_to_reload(layout)
    with pytest.raises(NoAnswerError, match="no daemon runs in"):
        tell_to_reload(Layout(tmp_path / "never made"))


def test_another_command_that_holds_the_root_is_left_alone(layout: Layout) -> None:
    with held(layout, "command") as process:
        with pytest.raises(NoAnswerError, match=f"another command .pid {process.pid}."):
            tell_to_reload(layout)
        assert process.poll() is None


def test_an_answer_from_before_is_none(layout: Layout) -> None:
    with held(layout, "daemon") as process:
        says(layout, process.pid, time.monotonic())
        with pytest.raises(NoAnswerError, match=r"nor has it written its status .* \(is the disk full\?\); waited 0 s"):
            reload_and_wait(layout, wait_s=0.3)
        assert process.poll() is None


def test_a_status_that_is_written_without_an_answer_is_none(layout: Layout) -> None:
    with held(layout, "daemon") as process:
        before = time.monotonic()
        says(layout, process.pid, before)
        later = threading.Timer(0.3, lambda: says(layout, process.pid, before))
        later.start()
        with pytest.raises(NoAnswerError, match="has not answered; waited 2 s"):
            reload_and_wait(layout, wait_s=2)
        later.join()


def test_the_answer_that_came_after_is_the_one(layout: Layout) -> None:
    with held(layout, "daemon") as process:
        says(layout, process.pid, time.monotonic())
        later = threading.Timer(
            0.3, lambda: says(layout, process.pid, time.monotonic(), ok=False, error="no", restart_required=["stream.name"])
        )
        later.start()
        document = reload_and_wait(layout, wait_s=60)
        later.join()
        assert (document["pid"], document["ok"], document["error"], document["restart_required"]) == (
            process.pid,
            False,
            "no",
            ["stream.name"],
        )


def test_one_that_ends_instead_of_answering_is_not_waited_for(layout: Layout) -> None:
    with held(layout, "daemon", "mortal") as process, pytest.raises(NoAnswerError, match=f"{process.pid}. has ended meanwhile"):
        reload_and_wait(layout, wait_s=3600)


def test_one_that_is_still_starting_is_told_and_named_so(layout: Layout) -> None:
    layout.status.write_text(json.dumps({"pid": os.getpid(), "state": "running", "config": {"last_reload": None}}))  # of the run before
    with held(layout, "daemon"), pytest.raises(NoAnswerError, match="is still starting"):
        reload_and_wait(layout, wait_s=0.3)


def test_what_is_said_names_what_waits_for_a_restart() -> None:
    nothing: dict[str, list[str]] = {"applied": [], "next_job": [], "restart_required": []}
    assert "Nothing has changed" in said_of_reload(nothing)
    said = said_of_reload({"applied": ["a.b"], "next_job": ["c.d", "e.f"], "restart_required": ["g.h"]})
    assert said.splitlines() == [
        "In force now: a.b",
        "From the next training job on: c.d, e.f",
        "Only after a restart of the daemon, and as before until then: g.h",
    ]
