"""`status --watch` on a pseudo-terminal: what is drawn, resized, left, and refused."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from azaion_daemon.ops.status import read_status, write_status
from azaion_daemon.ops.status_view import render_status
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.jobs import JobDirectory, Progress
from azaion_daemon.training.outcomes import Phase
from tests.unit.builders import make_root
from tests.unit.test_status_view import DOCUMENT

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


@pytest.fixture
def command(tmp_path: Path, layout: Layout) -> list[str]:
    config = {
        "api": {"url": "http://h", "email": "e", "password": "p"},
        "stream": {"host": "h", "port": 1, "user": "u", "password": "p", "name": "s"},
        "directories": {"root": str(layout.root), "data": "data", "data_seed": "data-seed", "data_deleted": "data_deleted"},
        "training": {"model": "m.yaml", "epochs": 1, "batch_size": 1, "imgsz": 64, "save_period": 1, "workers": 0},
        "export": {"imgsz": 64},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "azaion_daemon.cli", "status", "--config", str(tmp_path / "config.yaml")]


class Terminal:
    """A process on a terminal of its own, and everything that it has written there."""

    def __init__(self, command: list[str], *, columns: int = 80, lines: int = 24, **environment: str) -> None:
        self._descriptor, theirs = pty.openpty()
        self.resize(columns, lines)
        inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            # Ctrl-C is the terminal's; where tests run in the background it would be ignored.
            ["env", "--default-signal=INT", "setsid", "--ctty", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**inherited, "TERM": "xterm-256color", **environment},
        )
        os.close(theirs)
        self.written = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def modes(self) -> object:
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self._descriptor)

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def until(self, text: str, limit_s: float = 30.0) -> str:
        """What is written until this text appears anew."""
        start, deadline = len(self.written), time.monotonic() + limit_s
        while text not in self.written[start:]:
            assert time.monotonic() < deadline, self.written[start:]
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self.written += os.read(self._descriptor, 1 << 16).decode(errors="replace")
        return self.written[start:]

    def end(self) -> int:
        """Read to the end; the exit status."""
        with suppress(OSError):  # the other side is closed
            while data := os.read(self._descriptor, 1 << 16):
                self.written += data.decode(errors="replace")
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._descriptor)


@pytest.fixture
def watch(command: list[str]) -> Iterator[Terminal]:
    terminal = Terminal([*command, "--watch"])
    yield terminal
    terminal.close()


def test_it_is_drawn_again_and_again_until_ctrl_c(layout: Layout, watch: Terminal) -> None:
    assert "never run" in watch.until("never run")
    with exclusive_lock(layout.lock, busy="busy"):
        write_status(layout, {**DOCUMENT, "pid": os.getpid()})
        shown = watch.until("46%")
        assert COLOUR.search(shown)
        watch.until("46%")  # a second later
    watch.until("killed or crashed")  # the daemon is gone
    watch.press("\x03")
    assert watch.end() == 0
    assert watch.written.index(ENTER) < watch.written.rindex(LEAVE)
    assert "Traceback" not in watch.written


def test_it_follows_the_size_of_the_terminal(layout: Layout, watch: Terminal) -> None:
    write_status(layout, DOCUMENT)
    assert "╭" not in watch.until("of 4.0 TB free")
    watch.resize(200, 50)
    watch.until("╭")  # at once: it is told of the size
    watch.process.send_signal(signal.SIGTERM)
    assert watch.end() == 0
    assert LEAVE in watch.written


def test_q_ends_it_and_gives_the_terminal_back_as_it_was(layout: Layout, watch: Terminal) -> None:
    before = watch.modes
    watch.until("q quits")
    assert watch.modes != before  # keys come at once, and are not shown
    watch.press("xq")
    watch.until(LEAVE)
    deadline = time.monotonic() + 30
    while watch.modes != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert watch.end() == 0


def test_no_colour_where_nobody_wants_it(layout: Layout, command: list[str]) -> None:
    write_status(layout, DOCUMENT)
    terminal = Terminal([*command, "--watch"], NO_COLOR="1")
    try:
        terminal.until("of 4.0 TB free")
        terminal.press("\x03")
        assert terminal.end() == 0
        assert not COLOUR.search(terminal.written)
    finally:
        terminal.close()


def test_without_a_terminal_it_says_what_to_use_instead(layout: Layout, command: list[str]) -> None:
    write_status(layout, DOCUMENT)
    done = subprocess.run([*command, "--watch"], capture_output=True, text=True, check=False, env={**os.environ, "FORCE_COLOR": "1"})
    assert (done.returncode, done.stdout) == (78, "")
    assert "`status --json` for programs" in done.stderr
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert plain.returncode == 3  # not running, as systemctl has it
    assert "\x1b" not in plain.stdout
    assert "last words" in plain.stdout
    said = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert (said.returncode, json.loads(said.stdout)["state"]) == (3, "stopped")


def test_without_a_daemon_it_is_its_trainings_that_say_how_far_they_are(layout: Layout) -> None:
    last = {"id": "J2", "state": "running"}  # a daemon that stops gives its jobs up before its last words
    write_status(layout, {**DOCUMENT, "pid": 1, "training": {"why": "wait", "jobs": [{"id": "J1", "state": "released"}, last]}})
    job = JobDirectory(layout.jobs / "J2")
    job.path.mkdir(parents=True)
    now = datetime.now(UTC)
    job.write_progress(Progress(phase=Phase.TRAIN, epoch=90, epochs=120, epoch_s=10.0, started=now, phase_started=now, updated=now))
    with exclusive_lock(job.lock, busy="busy"):
        document = read_status(layout)
    assert (document["state"], document["training"]["jobs"][-1]["progress"]["epoch"]) == ("stopped", 90)
    assert "J2, running, it goes on without the daemon" in render_status(document, now)
    document = read_status(layout)
    assert document["training"]["jobs"][-1]["progress"] is None
    assert "its worker has ended" in document["training"]["jobs"][-1]["waits_for"]
