"""Having a daemon that runs read its configuration again: finding it, telling it, waiting for what becomes of it.

The new configuration need not be valid for that: whether it is, the daemon says. Only the root must be known, by which the daemon is found.
"""

import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from azaion_daemon.errors import ConfigError, NoAnswerError
from azaion_daemon.ops.status import read_status
from azaion_daemon.settings import load_settings, read_config
from azaion_daemon.store.durable import lock_holder
from azaion_daemon.store.layout import Layout

_POLL_S = 0.05
_ROOT_LINE = re.compile(r"^directories:[^\n]*\n(?:[ \t#][^\n]*\n|\n)*?[ \t]+root:[ \t]+([^\n]+)", re.MULTILINE)


def find_root(config: Path) -> Path:
    """The root that a configuration file names, also when nothing else in it can be used.

    Raises:
        ConfigError: It does not say; the daemon, if there is one, keeps what it has.
    """
    try:
        return load_settings(config).directories.root
    except ConfigError as unusable:
        with suppress(ConfigError):
            if (root := _named_root(read_config(config, errors="replace"))) is not None:
                return root
        raise ConfigError(
            f"{unusable}\nNor does it say which root the daemon works in, so it was not told; it keeps the configuration that it has. "
            "Correct the file, or name the root with --root."
        ) from unusable


def _named_root(text: str) -> Path | None:
    """The value of directories.root in a text that may be anything."""
    if (line := _ROOT_LINE.search(text)) is None:
        return None
    try:
        value = yaml.safe_load(line[1])
    except (yaml.YAMLError, ValueError):
        return None
    return Path(value) if isinstance(value, str) and value.startswith("/") else None


def tell_to_reload(layout: Layout) -> int:
    """Send the daemon of a root a SIGHUP; its pid.

    Raises:
        NoAnswerError: None runs there, or it may not be told by this user.
    """
    pid = lock_holder(layout.lock)
    if pid is None:
        raise NoAnswerError(
            f"no daemon runs in {layout.root}, so there is nothing to reload: it reads the configuration when it starts. "
            "If directories.root was changed, name the root that it works in with --root."
        )
    try:
        if not _takes_sighup(pid):
            raise NoAnswerError(f"{layout.root} is in use by another command (pid {pid}), not by a daemon: there is nothing to reload")
        os.kill(pid, signal.SIGHUP)
    except PermissionError as error:
        raise NoAnswerError(
            f"the daemon (pid {pid}) may not be told by this user. Run this as root or as the user of the daemon, "
            "or: systemctl reload azaion-daemon"
        ) from error
    except (ProcessLookupError, FileNotFoundError) as error:
        raise NoAnswerError(f"the daemon (pid {pid}) has just ended") from error
    return pid


def _takes_sighup(pid: int) -> bool:
    """Whether a process has a handler for it; it would end any other, such as an `init` that holds the root."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGHUP - 1) & 1)


def reload_and_wait(layout: Layout, *, wait_s: float) -> dict[str, Any]:
    """Have the daemon reload; what its status says of that, as in `config.last_reload`, and its `pid`.

    Raises:
        NoAnswerError: As in `tell_to_reload`; or it ended meanwhile, or said nothing in time.
    """
    asked = time.monotonic()
    pid = tell_to_reload(layout)
    deadline = asked + wait_s
    while True:
        status = read_status(layout)
        ours = status.get("pid") == pid
        if ours and status["state"] != "stopped":
            last = status["config"]["last_reload"]
            if last is not None and last["begun_monotonic"] >= asked:
                return {"pid": pid, **last}
        if (holder := lock_holder(layout.lock)) != pid:
            after = "and was started again, so it has read the configuration anew" if holder else "and does not run any more"
            raise NoAnswerError(f"the daemon (pid {pid}) has ended meanwhile {after}. See: azaion-daemon status, or its log")
        if time.monotonic() > deadline:
            doing = "is still starting, and reloads when it is ready" if not ours else _said_of_silence(status, asked)
            raise NoAnswerError(
                f"the daemon (pid {pid}) {doing}; waited {wait_s:.0f} s. What becomes of it will be in its log as config.reloaded or "
                "config.reload_failed, and in config.last_reload of: azaion-daemon status --json. When nothing comes, its disk or machine "
                "is overloaded or hangs."
            )
        time.sleep(_POLL_S)


def _said_of_silence(status: Mapping[str, Any], asked: float) -> str:
    """An answer is part of the status, which on a full disk cannot be written."""
    if status["written_monotonic"] >= asked:
        return "has not answered"
    return "has not answered, nor has it written its status since it was asked (is the disk full?)"


def said_of_reload(document: dict[str, Any]) -> str:
    """What became of a reload that was applied, for people."""
    lines = [
        f"{what}: {', '.join(document[key])}"
        for key, what in (
            ("applied", "In force now"),
            ("next_job", "From the next training job on"),
            ("restart_required", "Only after a restart of the daemon, and as before until then"),
        )
        if document[key]
    ]
    return "\n".join(lines or ["Nothing has changed; the daemon works with this configuration already."])
