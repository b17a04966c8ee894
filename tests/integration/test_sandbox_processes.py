import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from azaion_daemon.sandbox import broker_node
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.processes import LOOPBACK, ReservedPort, SandboxError, end, listening, spawn, wait_until


def processes_of(directory: Path) -> list[str]:
    """Command lines of the processes that work in a directory; those that have ended and wait to be collected do not count."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(directory):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return found


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.05)


def test_a_reserved_port_refuses_connections_is_not_given_away_and_can_be_served() -> None:
    port = ReservedPort()
    assert not listening(port.number)
    others = [socket.socket() for _ in range(200)]
    for other in others:
        other.bind((LOOPBACK, 0))
    assert port.number not in {other.getsockname()[1] for other in others}
    for other in others:
        other.close()
    with socket.create_server((LOOPBACK, port.number)):
        assert listening(port.number)
    assert not listening(port.number)
    port.release()


def test_end_kills_what_does_not_stop_and_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 1000 & while :; do sleep 1000; done"
    child = spawn(["sh", "-c", script], log=tmp_path / "log", cwd=tmp_path, environment=os.environ)
    wait_for(lambda: len(processes_of(tmp_path)) == 3)
    end(child, timeout_s=0.2)
    assert child.returncode == -signal.SIGKILL
    wait_for(lambda: not processes_of(tmp_path))


def test_waiting_for_a_process_that_ends_shows_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn(["sh", "-c", "echo no such luck; exit 3"], log=log, cwd=tmp_path, environment=os.environ)
    with pytest.raises(SandboxError, match=r"ended with status 3(?s:.)*no such luck"):
        wait_until(lambda: False, timeout_s=10, what="the child", process=child, log=log)


def test_without_rabbitmq_and_docker_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_node, "SCRIPTS", tmp_path)
    monkeypatch.setattr(broker_node, "docker_answers", lambda: False)
    with pytest.raises(SandboxError, match="apt-get install rabbitmq-server"):
        Broker(tmp_path / "broker")


# A `docker` that answers as the engine's client does, and listens on the published port until its input ends.
DOCKER = """\
#!{python}
import os, pathlib, signal, socket, sys
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
match sys.argv[1:]:
    case ["image", "inspect", *_]:
        sys.exit(1)
    case ["kill", "--signal", name, _]:
        os.kill(int((here / "container.pid").read_text()), signal.Signals[name])
    case ["run", *options]:
        (here / "container.pid").write_text(str(os.getpid()))
        host, port, _ = options[options.index("--publish") + 1].split(":")
        with socket.create_server((host, int(port))):
            sys.stdin.read()
"""


def test_without_rabbitmq_a_container_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.format(python=sys.executable))
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(broker_node, "SCRIPTS", tmp_path / "none")
    node = broker_node.node_for(tmp_path / "broker", "{}")
    node.start()
    assert listening(node.port)
    node.freeze(frozen=True)
    node.stop(signal.SIGKILL)
    assert not listening(node.port)
    node.start()
    node.close()
    assert not listening(node.port)
    calls = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == ["info", "image", "pull", "run", "pause", "unpause", "kill", "image", "pull", "run", "unpause", "kill", "volume"]


@pytest.fixture
def sandbox_up(tmp_path: Path) -> "subprocess.Popen[str]":
    program = (
        "import pathlib, sys; from azaion_daemon.sandbox.up import run_until_interrupted as up; "
        "up(pathlib.Path(sys.argv[1]), sys.stdout, annotations=3)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_dotenv(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("EXPORT_ONNX_IMGSZ"):
        line = process.stdout.readline()
        assert line, process.communicate()
        lines.append(line)
    return lines


def test_sandbox_up_prints_its_environment_and_stops_everything_when_asked(sandbox_up: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert len(read_dotenv(sandbox_up)) == 20
    running = processes_of(tmp_path)
    assert all(any(name in line for line in running) for name in ("epmd", "beam", "swift_node"))
    sandbox_up.send_signal(signal.SIGTERM)
    _, messages = sandbox_up.communicate(timeout=30)
    assert sandbox_up.returncode == 0
    assert "Ctrl-C" in messages
    assert "Traceback" not in messages
    wait_for(lambda: not processes_of(tmp_path), timeout_s=5)


def test_a_killed_sandbox_takes_its_processes_along(sandbox_up: "subprocess.Popen[str]", tmp_path: Path) -> None:
    read_dotenv(sandbox_up)
    sandbox_up.kill()
    sandbox_up.communicate()
    wait_for(lambda: not processes_of(tmp_path), timeout_s=10)
