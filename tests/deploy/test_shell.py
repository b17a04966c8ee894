"""Every shell script of the repository is clean."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SCRIPTS = sorted([*CHECKOUT.glob("deploy/*.sh"), *CHECKOUT.glob("tests/**/*.sh"), CHECKOUT / ".ci" / "run"])
OPERATORS = ("install.sh", "upgrade.sh", "uninstall.sh")


@pytest.mark.skipif(
    shutil.which("shellcheck") is None and "CI" not in os.environ,
    reason="shellcheck is not installed: apt-get install shellcheck, or `make setup` as root",
)
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", "--external-sources", *SCRIPTS], check=False, capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [*OPERATORS, "docker-entrypoint.sh", "dev-setup.sh"])
def test_a_script_that_is_run_can_be_run(name: str) -> None:
    assert os.access(CHECKOUT / "deploy" / name, os.X_OK)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_script_says_what_it_does_and_refuses_what_it_does_not_know(name: str) -> None:
    script = str(CHECKOUT / "deploy" / name)
    told = subprocess.run([script, "--help"], check=False, capture_output=True, text=True)
    assert (told.returncode, f"Usage: deploy/{name}" in told.stdout) == (0, True)
    refused = subprocess.run([script, "--whatever"], check=False, capture_output=True, text=True)
    assert (refused.returncode, "unknown argument: --whatever" in refused.stderr) == (1, True)


@pytest.mark.parametrize("name", [*OPERATORS, "common.sh"])
def test_nothing_is_removed_with_all_that_is_below_it(name: str) -> None:
    commands = [line.partition("#")[0] for line in (CHECKOUT / "deploy" / name).read_text().splitlines()]
    assert [line for line in commands if "rm -r" in line or "rm --recursive" in line] == []
