"""A server to install on: a root of its own in namespaces, where systemctl is a stand-in and pip needs no network.

The scripts are those of the checkout, run by root with the real useradd, pip and flock. What pip installs as the locked packages is one
tiny wheel that lets the new virtual environment see the packages of the present one.
"""

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

CHECKOUT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PREFIX = "/opt/azaion-training"
KEPT = ("opt", "etc", "srv", "stand-in")  # what a server's state is
_ENDS_WITHIN_S = 90.0
_LOCKED = "azaion-stand-in-lock"


class NoNamespacesError(Exception):
    """This machine lets nobody have a root of its own."""


def _packages() -> list[Path]:
    return [Path(entry).resolve() for entry in sys.path if entry.endswith("site-packages")]


def make_wheelhouse(directory: Path) -> Path:
    """The locked packages' stand-in: a wheel whose .pth leads to the present packages, but for the daemon itself."""
    seen = directory / "packages"
    seen.mkdir(parents=True)
    for package in (entry for place in _packages() for entry in place.iterdir()):
        if "azaion" not in package.name and package.suffix != ".pth" and not (seen / package.name).exists():
            (seen / package.name).symlink_to(package)
    wheels = directory / "wheels"
    wheels.mkdir()
    info = f"{_LOCKED.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(wheels / f"{_LOCKED.replace('-', '_')}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("overlay.pth", f"import sys; sys.path.insert(1, {str(seen)!r})\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {_LOCKED}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"overlay.pth,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return directory


def make_sources(directory: Path, *, change: Callable[[Path], None] = lambda _: None) -> Path:
    """A checkout whose lock is the stand-in, changed to be another version."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("azaion_daemon", "systemd", "deploy", "requirements"):
        shutil.copytree(CHECKOUT / name, directory / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".env.example", "config.template.yaml"):
        shutil.copy(CHECKOUT / name, directory / name)
    (directory / "requirements" / "server.txt").write_text(f"{_LOCKED}==1.0\n")
    change(directory)
    return directory


@dataclass(frozen=True)
class Done:
    """How a command ended; `said` is both of its outputs."""

    status: int
    said: str


class Server:
    """A root of its own; everything in it ends with it."""

    def __init__(self, mount_point: Path, wheelhouse: Path, visible: Sequence[Path]) -> None:
        mount_point.mkdir(parents=True, exist_ok=True)
        self._wheels = wheelhouse / "wheels"
        self._python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        system = {Path("/usr"), Path("/bin")}
        places = [Path(sys.base_prefix), wheelhouse, *_packages(), *visible]
        outside = [str(place) for place in places if not any(place.is_relative_to(known) for known in system)]
        self._unshare = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", str(HERE / "own_root.sh"), str(mount_point), *outside],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != "ready\n":
            raise NoNamespacesError(self._unshare.communicate()[1].strip())
        self._inner = int(Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text())
        self._chroot = str(mount_point)
        self._started: list[subprocess.Popen[bytes]] = []
        self.root = Path(f"/proc/{self._inner}/root{mount_point}")
        programs = self.root / "stand-in" / "bin"
        programs.mkdir()
        systemctl = programs / "systemctl"
        systemctl.write_text(f"#!{self._python} -IS\n{(HERE / 'stand_in_systemctl.py').read_text()}")
        systemctl.chmod(0o755)
        (programs / "python3").symlink_to(self._python)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._unshare.kill()  # what it started goes with it
        self._unshare.communicate()
        for process in self._started:
            process.wait()
        with suppress(FileNotFoundError):  # the namespace's own reaping may take a moment
            while Path(f"/proc/{self._inner}/cmdline").read_bytes():
                time.sleep(0.01)

    def command(self, *command: str, environment: dict[str, str] | None = None) -> list[str]:
        """The command line that runs a command in this root, as its root."""
        variables = {
            "PATH": "/stand-in/bin:/usr/bin:/bin", "HOME": "/srv", "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self._wheels), "PIP_NO_CACHE_DIR": "1", "PIP_NO_COMPILE": "1",
            **(environment or {}),
        }  # fmt: skip
        enter = ["nsenter", "--target", str(self._inner), "--mount", "--pid", "chroot", self._chroot]
        return [*enter, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command]

    def run(self, *command: str, environment: dict[str, str] | None = None) -> Done:
        """Run a command in this root to its end."""
        done = subprocess.run(
            self.command(*command, environment=environment), check=False, capture_output=True, text=True, timeout=_ENDS_WITHIN_S, cwd="/",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Done(done.returncode, done.stdout + done.stderr)

    def script(self, sources: Path | str, name: str, *arguments: str, killed_at: str | None = None) -> Done:
        """Run one of the scripts. With `killed_at` it gets SIGKILL before the first command whose text has that in it."""
        environment = {}
        if killed_at is not None:
            hook = self.root / "stand-in" / "hook"
            hook.write_text("set -T; trap 'case $BASH_COMMAND in *\"$KILLED_AT\"*) kill -9 $$ ;; esac' DEBUG\n")
            environment = {"BASH_ENV": "/stand-in/hook", "KILLED_AT": killed_at}
        return self.run(f"{sources}/deploy/{name}", *arguments, environment=environment)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in this root, to go on."""
        process = subprocess.Popen(self.command(*command), cwd="/", stdin=subprocess.DEVNULL)
        self._started.append(process)
        return process

    def path(self, path: str) -> Path:
        """A path of this root as it is seen from outside; links lead where they would outside."""
        return self.root / path.lstrip("/")

    def save(self, to: Path) -> None:
        """Keep the state of this server."""
        for name in KEPT:
            subprocess.run(["cp", "-a", str(self.root / name), str(to / name)], check=True)

    def restore(self, kept: Path) -> None:
        """Be as a server was that was saved."""
        for name in KEPT:
            subprocess.run(["cp", "-a", f"{kept / name}/.", str(self.root / name)], check=True)

    def link(self, name: str) -> str:
        """The version that a link of the installation names; empty without one."""
        link = self.path(f"{PREFIX}/{name}")
        return link.readlink().name if link.is_symlink() else ""

    def versions(self) -> set[str]:
        """The directories of versions that are there."""
        return {entry.name for entry in self.path(f"{PREFIX}/versions").iterdir() if entry.is_dir()}

    def running(self) -> str:
        """The version that the daemon's process is of; empty when none runs."""
        state = self.path("/stand-in/state.json")
        pid = json.loads(state.read_text()).get("pid") if state.exists() else None
        if pid is None:
            return ""
        program = self.run("cat", f"/proc/{pid}/cmdline").said.split("\0")[0]
        return program.removeprefix(f"{PREFIX}/versions/").split("/")[0]

    def calls(self) -> list[str]:
        """What systemctl was asked for."""
        calls = self.path("/stand-in/calls")
        return calls.read_text().splitlines() if calls.exists() else []

    def listing(self, *paths: str) -> list[str]:
        """Everything below some paths, with mode and owner; files with time of change and digest too.

        Directories' own times tell that something lay there for a moment, such as what doctor tries.
        """
        names = 'find "$@" -type d -printf "%p %M %U:%G\\n" -o -printf "%p %M %U:%G %T@ %l\\n" | sort'
        contents = 'find "$@" -type f -print0 | sort -z | xargs -0 sha256sum'
        return self.run("bash", "-c", f"{names}; {contents}", "-", *paths).said.splitlines()
