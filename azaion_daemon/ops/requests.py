"""What commands ask of the daemon: a file a request, taken up when SIGUSR1 says so, or at the daemon's next start.

state/requests/{id}.json      the request
state/requests/{id}.answer    what became of it; replaces the request
"""

import json
import os
import signal
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from azaion_daemon.errors import OperatorError
from azaion_daemon.store.durable import lock_holder, storage, write_json
from azaion_daemon.store.layout import Layout

_POLL_S = 0.05
_ANSWER_KEPT_S = 600.0
_LONGEST_REASON = 500
_MODE = 0o644  # root may ask, and the daemon must be able to read it; nobody else can enter the directory


@dataclass(frozen=True)
class Request:
    """Something to do: its kind and its arguments, as JSON."""

    id: str
    kind: str
    arguments: dict[str, Any]


def ask(layout: Layout, kind: str, arguments: dict[str, Any], *, wait_s: float) -> dict[str, Any] | None:
    """Leave a request, wake the daemon and wait for its answer; None when no daemon runs: it is taken up at the next start.

    Raises:
        OperatorError: The requests cannot be written, or no answer came in time (the request stays).
    """
    request = Request(uuid.uuid4().hex, kind, arguments)
    path = layout.requests / f"{request.id}.json"
    try:
        write_json(path, asdict(request), mode=_MODE)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}. Run this as the user of the daemon.") from error
    pid = lock_holder(layout.lock)
    if pid is None:
        return None
    try:
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError:
        return None
    except PermissionError as error:
        raise OperatorError(f"the daemon (pid {pid}) cannot be woken by this user; the request waits for its next start") from error
    answer = path.with_suffix(".answer")
    deadline = time.monotonic() + wait_s
    while not answer.exists():
        if time.monotonic() > deadline:
            raise OperatorError(f"no answer within {wait_s:.0f} s; the request stays and is carried out when the daemon comes to it")
        time.sleep(_POLL_S)
    document: dict[str, Any] = json.loads(answer.read_text())
    answer.unlink()
    return document


def peek(layout: Layout) -> list[Request]:
    """The requests that wait, oldest first, as far as they can be read. Nothing is done about any."""
    found: list[tuple[float, Request]] = []
    for path in layout.requests.glob("*.json"):
        with suppress(FileNotFoundError, ValueError, TypeError):
            found.append((path.stat().st_mtime, Request(**json.loads(path.read_text()))))
    return [request for _, request in sorted(found, key=lambda one: one[0])]


def pending(layout: Layout) -> list[Request]:
    """The requests that wait, oldest first; one that cannot be read is answered so. Answers that nobody fetched go away."""
    requests = []
    for path in layout.requests.glob("*.answer"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _ANSWER_KEPT_S:
                path.unlink()
    for path in sorted(layout.requests.glob("*.json"), key=lambda path: path.stat().st_mtime):
        try:
            requests.append(Request(**json.loads(path.read_text())))
        except (ValueError, TypeError) as error:
            _answer(path, {"ok": False, "error": f"the request cannot be read: {error}"})
    return requests


def answer(layout: Layout, request: Request, document: dict[str, Any]) -> None:
    """Say what became of a request, which is done then.

    Raises:
        StorageError: The disk failed or is full; answering again goes on.
    """
    with storage("answering a request"):
        _answer(layout.requests / f"{request.id}.json", document)


def wishes_of(request: Request) -> tuple[bool, int | None]:
    """Whether a training that is asked for is to be a trial, and of how many epochs.

    Raises:
        OperatorError: Its wishes make no sense.
    """
    trial, epochs = request.arguments.get("trial", False), request.arguments.get("epochs")
    if not isinstance(trial, bool) or not (epochs is None or (isinstance(epochs, int) and epochs >= 1)):
        raise OperatorError(f"a training of {epochs} epochs cannot be asked for (trial: {trial})")
    return trial, epochs


def _answer(path: Path, document: dict[str, Any]) -> None:
    write_json(path.with_suffix(".answer"), document)
    path.unlink()


def checked_reason(reason: str) -> str:
    """A reason in one line.

    Raises:
        OperatorError: It is empty or too long.
    """
    reason = " ".join(reason.split())
    if not 1 <= len(reason) <= _LONGEST_REASON:
        raise OperatorError(f"a reason has between 1 and {_LONGEST_REASON} characters; this one has {len(reason)}")
    return reason
