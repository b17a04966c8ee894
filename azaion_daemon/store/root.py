"""The root directory: made by `init` only, recognised by `run`.

A data disk that is not mounted must not become an empty dataset, so nothing but `init` ever makes `{root}/state`, and everything else
refuses a root without it.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from azaion_daemon.errors import RootError
from azaion_daemon.store.durable import exclusive_lock, write_json
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Root:
    """The identity of a root, which the split of its datasets is keyed with."""

    id: str
    created: float


def init_root(layout: Layout) -> Root:
    """Make the directories, the identity and an empty ledger. Calling it again completes what is missing and keeps the rest.

    Raises:
        RootError: The root cannot be written, is in use, or holds annotations that no ledger knows.
    """
    try:
        for directory in layout.directories():
            directory.mkdir(parents=True, exist_ok=True)
        with lock_root(layout):
            if not layout.ledger.exists():
                _refuse_unknown_annotations(layout)
                _create_ledger(layout.ledger)
            if not layout.root_id.exists():
                write_json(layout.root_id, {"id": str(uuid.uuid4()), "created": time.time()})
    except OSError as error:
        raise RootError(
            f"{error.filename or layout.root} cannot be made: {error.strerror}. Run init as a user that may write there."
        ) from error
    return _identity(layout)


def open_root(layout: Layout) -> Root:
    """Check that a root is one that `init` made, whole, writable and on one filesystem.

    Raises:
        RootError: It is not; the message says what to do.
    """
    try:
        _check_root(layout)
    except OSError as error:
        raise RootError(f"{error.filename or layout.root} cannot be looked at: {error.strerror}. Check its owner and mode.") from error
    return _identity(layout)


@contextmanager
def lock_root(layout: Layout) -> Iterator[None]:
    """Be the only process that writes below this root.

    Raises:
        RootError: Another process is.
    """
    with exclusive_lock(layout.lock, busy=f"{layout.root} is in use by another process of this daemon"):
        yield


def _check_root(layout: Layout) -> None:
    if not layout.root_id.exists():
        raise RootError(
            f"{layout.root} is not a root of this daemon: {layout.root_id} is missing. Is its disk mounted? A new root is made by: "
            "azaion-daemon init"
        )
    device = layout.root.stat().st_dev
    for directory in layout.directories():
        if not directory.is_dir():
            raise RootError(f"{directory} is missing. If that is as it should be, azaion-daemon init makes it again.")
        if directory.stat().st_dev != device:
            raise RootError(f"{directory} is on another filesystem than {layout.root}; files could not be moved by rename")
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise RootError(f"{directory} cannot be written by the user {os.geteuid()}")


def _identity(layout: Layout) -> Root:
    try:
        return Root(**json.loads(layout.root_id.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise RootError(f"{layout.root_id} cannot be read: {error}. Restore it from a backup.") from error


def _create_ledger(path: Path) -> None:
    aside = path.with_name("new-" + path.name)
    for debris in path.parent.glob(aside.name + "*"):
        debris.unlink()
    Ledger.create(aside)
    shutil.move(aside, path)


def _refuse_unknown_annotations(layout: Layout) -> None:
    for home in Home:
        for directory in (layout.images(home), layout.labels(home)):
            if any(directory.iterdir()):
                raise RootError(
                    f"{directory} holds files already, and there is no ledger that knows them. Restore {layout.ledger} from a backup, "
                    "or name another root. Delete nothing."
                )
