"""What stands for systemctl where systemd is not PID 1: it starts and stops what the unit says, as its user, and records its calls.

Restart= is not done: a unit that fails has failed. Drop-ins are not read.
"""

import grp
import json
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE = Path("/stand-in")
UNIT = Path("/etc/systemd/system/azaion-daemon.service")
LOG = HERE / "journal"
STATE = HERE / "state.json"
START_LIMIT_S = 240.0


def service() -> dict[str, list[str]]:
    """Every key of [Service] with its values, in order."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def main_pid() -> int:
    with suppress(FileNotFoundError, KeyError):
        pid = int(json.loads(STATE.read_text())["pid"])
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return 0


def state() -> str:
    if main_pid():
        return "active"
    return str(json.loads(STATE.read_text())["when_ended"]) if STATE.exists() else "inactive"


def spawn(command: list[str], notify: Path | None) -> "subprocess.Popen[bytes]":
    """A process as the unit's user, where and with what the unit says."""
    what = service()
    user, group = pwd.getpwnam(what["User"][0]), grp.getgrnam(what["Group"][0])
    with LOG.open("ab") as log:
        return subprocess.Popen(
            command,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **({"NOTIFY_SOCKET": str(notify)} if notify else {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=what.get("WorkingDirectory", ["/"])[0],
            user=user.pw_uid,
            group=group.gr_gid,
            extra_groups=os.getgrouplist(user.pw_name, group.gr_gid),
            umask=int(what.get("UMask", ["0022"])[0], 8),
            start_new_session=True,
        )


def start() -> int:
    what = service()
    STATE.write_text(json.dumps({"when_ended": "failed"}))
    for before in what.get("ExecStartPre", []):
        if spawn(shlex.split(before.lstrip("-+!@:")), None).wait() != 0:
            return 1
    notify = HERE / "notify" if what.get("Type", ["simple"])[0].startswith("notify") else None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        if notify is not None:
            notify.unlink(missing_ok=True)
            listener.bind(str(notify))
            notify.chmod(0o777)
        listener.settimeout(0.1)
        daemon = spawn(shlex.split(what["ExecStart"][0]), notify)
        STATE.write_text(json.dumps({"pid": daemon.pid, "when_ended": "failed"}))
        deadline = time.monotonic() + START_LIMIT_S
        while notify is not None:
            with suppress(TimeoutError):
                if b"READY=1" in listener.recv(65536):
                    break
            if daemon.poll() is not None or time.monotonic() > deadline:
                return 1
    return 0


def stop() -> int:
    if pid := main_pid():
        os.kill(pid, signal.SIGTERM)
        while main_pid():
            time.sleep(0.02)
    STATE.write_text(json.dumps({"when_ended": "inactive"}))
    return 0


def main(arguments: list[str]) -> int:
    with (HERE / "calls").open("a") as calls:
        calls.write(f"{' '.join(arguments)}\n")
    match [word for word in arguments if word != "--quiet"]:
        case ["start" | "restart" as verb, _]:
            if verb == "restart":
                stop()
            return 0 if main_pid() else start()
        case ["stop", _]:
            return stop()
        case ["is-active", _]:
            if "--quiet" not in arguments:
                sys.stdout.write(f"{state()}\n")
            return 0 if state() == "active" else 3
        case ["show", "--property", "MainPID", "--value", _]:
            sys.stdout.write(f"{main_pid()}\n")
            return 0
        case ["daemon-reload"] | ["reset-failed" | "enable" | "disable", _]:
            return 0
    sys.stderr.write(f"the stand-in for systemctl does not know: {arguments}\n")
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
