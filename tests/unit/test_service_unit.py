"""The unit: systemd understands every line of it, its score is kept, and it says the same as the code."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from azaion_daemon.watchdog import INTERVAL_S

UNIT = Path(__file__).parents[2] / "systemd" / "azaion-daemon.service"
COMMAND = "/opt/azaion-training/current/.venv/bin/azaion-daemon"
WORST = 1.8
ANALYZE = shutil.which("systemd-analyze")

# Continuous integration has set it up, or has to say why not.
needs_systemd = pytest.mark.skipif(
    ANALYZE is None and "CI" not in os.environ, reason="systemd-analyze is not installed: apt-get install systemd, or `make setup` as root"
)


def analyze(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    assert ANALYZE is not None, "systemd-analyze is not installed"
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)


def directives() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def verified(unit: str, tmp_path: Path) -> str:
    """What systemd says of a unit whose command is there. (It says that a line is unknown, and ends with 0.)"""
    command = tmp_path / "azaion-daemon"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    copy = tmp_path / UNIT.name
    copy.write_text(unit.replace(COMMAND, str(command)))
    done = analyze("verify", "--man=no", copy)
    return f"{done.stdout}{done.stderr}" + (f"status {done.returncode}" if done.returncode else "")


@needs_systemd
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    assert verified(UNIT.read_text(), tmp_path) == ""


@needs_systemd
def test_a_line_that_this_systemd_does_not_know_would_be_seen(tmp_path: Path) -> None:
    assert "RestartOften" in verified(UNIT.read_text().replace("Restart=", "RestartOften="), tmp_path)


@needs_systemd
def test_the_unit_is_hardened(tmp_path: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={round(WORST * 10)}", UNIT)
    score = re.search(r"Overall exposure level.*: ([0-9.]+) ", done.stdout)
    assert score is not None, done.stdout + done.stderr
    assert float(score[1]) <= WORST, done.stdout
    assert done.returncode == 0


def test_it_watches_as_closely_as_the_limits_of_the_parts_are_made_for() -> None:
    assert directives()["WatchdogSec"] == [f"{INTERVAL_S:.0f}"]


def test_it_renders_before_a_start_and_before_a_reload_which_waits_for_the_outcome() -> None:
    found = directives()
    render, reload = found["ExecReload"]
    assert found["ExecStartPre"] == [render]
    assert render.startswith(f"{COMMAND} config render --env-file ")
    assert reload.startswith(f"{COMMAND} reload --wait ")
    assert not any(command.startswith("-") for command in found["ExecReload"])  # a failure is not to be passed over
    assert {command.rpartition(" ")[2] for command in (render, reload, *found["ExecStart"])} == {"/opt/azaion-training/config.yaml"}


def test_nothing_takes_from_a_worker_what_it_needs_when_the_unit_stops_or_while_it_trains() -> None:
    found = directives()
    assert found["KillMode"] == ["process"]
    harmful = {
        "MemoryDenyWriteExecute", "OOMScoreAdjust", "PrivateDevices", "PrivateNetwork", "PrivateTmp", "PrivateUsers", "RemoveIPC",
        "RuntimeDirectory",
    }  # fmt: skip
    assert harmful & found.keys() == set()
    reasons = "".join(line for line in UNIT.read_text().splitlines() if line.startswith("#"))
    assert {name for name in harmful if f"{name}=" not in reasons} == set()  # what is left out has its reason beside it


def test_an_error_of_the_operators_is_not_tried_again_and_anything_else_is_for_ever() -> None:
    found = directives()
    assert found["RestartPreventExitStatus"] == [str(os.EX_CONFIG)]
    assert (found["Restart"], found["StartLimitIntervalSec"]) == (["always"], ["0"])
