"""An operator of the daemon: makes its configuration and root through its commands, runs it, and looks at what it says and keeps."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import yaml

from azaion_daemon.sandbox.processes import SandboxError, spawn
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.pool import WorkerPool

_POLL_S = 0.05


class Operator:
    """Works in a directory of its own, in which `.env`, `config.yaml` and the daemon's log lie."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.log = directory / "daemon.log"

    def configure(self, dotenv: str, overrides: Mapping[str, Mapping[str, Any]]) -> None:
        """Render the configuration from a `.env` and the project's template, in which the sections of `overrides` are changed first.

        Raises:
            SandboxError: The command refuses.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        write_template(self.directory / "config.template.yaml", overrides)
        (self.directory / ".env").touch(0o600)  # it has passwords
        (self.directory / ".env").write_text(dotenv)
        self.command("config", "render", "--env-file", ".env")

    def command(self, *arguments: str) -> str:
        """Run a command of the daemon; its standard output.

        Raises:
            SandboxError: It ends with another status than 0; the message has what it said.
        """
        done = self.try_command(*arguments)
        if done.returncode:
            raise SandboxError(f"azaion-daemon {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def try_command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the daemon, whatever its status."""
        return subprocess.run([*_command(), *arguments], cwd=self.directory, capture_output=True, text=True, check=False)

    def root(self) -> Path:
        """The root directory that the configuration names."""
        return Path(yaml.safe_load(self.config.read_text())["directories"]["root"])

    def end_workers(self, root: Path | None = None) -> None:
        """End the trainings, which outlive their daemon; of the root that is configured, if no other is named."""
        with ThreadPoolExecutor(1) as thread:  # the caller may have an event loop of its own
            for job in ((root or self.root()) / "state" / "jobs").glob("*/"):
                thread.submit(asyncio.run, WorkerPool().cancel(JobDirectory(job))).result()

    def daemon(self, command: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> "RunningDaemon":
        """A context in which the daemon runs: by its command line, or by a `command` that stands for that and takes the same arguments.

        `environment` is what its process has beside ours.
        """
        return RunningDaemon(self, command or _command(), {**os.environ, **(environment or {})})


class RunningDaemon:
    """The daemon as a process of its own.

    Leaving the context stops it with SIGTERM. When something went wrong it is killed, and its trainings with it.
    """

    def __init__(self, operator: Operator, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._operator = operator
        self._command = command
        self._environment = environment
        self.log_start = 0
        """Where in the operator's log this run begins, in bytes."""
        self.process: subprocess.Popen[bytes]
        self._root: Path

    def __enter__(self) -> Self:
        log = self._operator.log
        self.log_start = log.stat().st_size if log.exists() else 0
        self._root = self._operator.root()  # whatever becomes of the configuration while it runs
        self.process = spawn([*self._command, "run"], log=log, cwd=self._operator.directory, environment=self._environment)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if kind is None:
            self.stop()
            self._check_events()
            return
        if self.process.poll() is None:
            self.kill()
        self._operator.end_workers(self._root)

    def stop(self, limit_s: float = 30.0) -> float:
        """Ask it to stop; how many seconds that took.

        Raises:
            SandboxError: It did not stop in time, or not with status 0.
        """
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise SandboxError(f"the daemon did not stop within {limit_s:.0f} s; see {self._operator.log}") from None
        if code != 0:
            raise SandboxError(f"the daemon ended with status {code}: {self._last_words()}")
        return time.monotonic() - started

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def events(self) -> list[dict[str, Any]]:
        """The log lines of this run, without one that is being written."""
        with self._operator.log.open("rb") as log:
            log.seek(self.log_start)
            lines = log.read().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def status(self) -> dict[str, Any] | None:
        """What it says of itself; None before its first word."""
        try:
            document: dict[str, Any] = json.loads((self._root / "state" / "status.json").read_bytes())
        except FileNotFoundError:
            return None
        return document if document["pid"] == self.process.pid else None

    def wait_for_event(self, name: str, *, limit_s: float = 30.0, **fields: Any) -> dict[str, Any]:
        """The first event of that name and with these fields."""

        def find() -> dict[str, Any] | None:
            matches = (event for event in self.events() if event["event"] == name and fields.items() <= event.items())
            return next(matches, None)

        return self._wait(find, f"the event {name} {fields or ''}", limit_s)

    def wait_for_status(self, reached: Callable[[dict[str, Any]], bool], what: str, *, limit_s: float = 60.0) -> dict[str, Any]:
        """The first status of which `reached` holds."""

        def find() -> dict[str, Any] | None:
            status = self.status()
            return status if status is not None and reached(status) else None

        return self._wait(find, what, limit_s)

    def memory_bytes(self) -> int:
        """Its resident memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def _wait(self, find: Callable[[], dict[str, Any] | None], what: str, limit_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while True:
            code = self.process.poll()
            if (found := find()) is not None:
                return found
            if code is not None:
                raise SandboxError(f"the daemon ended with status {code} before {what}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise SandboxError(f"waited {limit_s:.0f} s in vain for {what}; see {self._operator.log}")
            time.sleep(_POLL_S)

    def _check_events(self) -> None:
        outside = [event["message"] for event in self.events() if event.get("category") == "UncataloguedWarning"]
        if outside:
            raise SandboxError(f"the daemon has logged what is not in the catalogue: {'; '.join(outside)}")

    def _last_words(self) -> str:
        lines = self._operator.log.read_text().splitlines()
        return lines[-1] if lines else "it said nothing"


def write_template(path: Path, overrides: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the project's template with the sections of `overrides` changed."""
    template = yaml.safe_load(_template().read_text())
    for section, values in overrides.items():
        template[section] = {**(template.get(section) or {}), **values}
    path.write_text(yaml.safe_dump(template, sort_keys=False))


def _command() -> list[str]:
    return [sys.executable, "-m", "azaion_daemon.cli"]


def _template() -> Path:
    path = Path(__file__).parents[2] / "config.template.yaml"
    if not path.exists():
        raise SandboxError("config.template.yaml is not beside the package: run this from a checkout")
    return path
