"""Processes and ports of the sandbox: nothing is shared with another sandbox, and nothing is left behind.

A child dies with us whatever kills us, since the kernel sends it SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG, set by
`setpriv` before the program runs). So every child is started from one thread that lives as long as this process does.

A port is reserved by a socket that is bound but never listens: connecting to it is refused, no other process is given it as a free one,
and a server that sets SO_REUSEADDR, as all of ours do, may listen on it. So a server can be stopped and started again on the same port.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from azaion_daemon.errors import OutsideError

LOOPBACK = "127.0.0.1"

_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-starter")


class SandboxError(OutsideError):
    """A part of the sandbox could not be brought up or did not do what it was asked. The message says what to do."""


class ReservedPort:
    """A TCP port of this machine's loopback address that is ours until `release`, or until nobody knows of it any more."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as reserving:
            reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserving.bind((LOOPBACK, 0))
            self.number: int = reserving.getsockname()[1]
            self._close = weakref.finalize(self, os.close, reserving.detach())

    def release(self) -> None:
        """Give the port back."""
        self._close()


def spawn(
    command: Sequence[str | Path], *, log: Path, cwd: Path, environment: Mapping[str, str], stdin: int = subprocess.DEVNULL
) -> "subprocess.Popen[bytes]":
    """Start a child in a session of its own that dies with this process; its output is appended to the file `log`.

    Raises:
        SandboxError: The program or `setpriv` is not installed.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise SandboxError("setpriv is not installed. Install it with: apt-get install util-linux")

    def start() -> "subprocess.Popen[bytes]":
        with log.open("ab") as output:
            return subprocess.Popen(
                [setpriv, "--pdeathsig", "KILL", "--", *map(str, command)],
                cwd=cwd,
                env=dict(environment),
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    return _starter.submit(start).result()


def end(process: "subprocess.Popen[bytes]", *, how: signal.Signals = signal.SIGTERM, timeout_s: float = 15) -> None:
    """Stop a child: ask with the signal `how`, wait, kill what is still there. The whole session goes, grandchildren too."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)  # a frozen process takes no other signal but SIGKILL
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def wait_until(
    ready: Callable[[], bool],
    *,
    timeout_s: float,
    what: str,
    process: "subprocess.Popen[bytes] | None" = None,
    log: Path | None = None,
) -> None:
    """Ask `ready` every 20 ms until it says yes.

    Raises:
        SandboxError: It did not within `timeout_s`, or `process` ended; the message has the end of `log`.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process is not None and process.poll() is not None:
            raise SandboxError(f"{what} ended with status {process.returncode} before it was ready.{_tail(log)}")
        if time.monotonic() > deadline:
            raise SandboxError(f"{what} was not ready within {timeout_s:g} s; is the machine overloaded? Try again.{_tail(log)}")
        time.sleep(0.02)


def listening(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0


def _tail(log: Path | None, lines: int = 15) -> str:
    if log is None or not log.exists():
        return ""
    last = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([f" The end of {log}:", *(f"  {line}" for line in last)])
