"""The root directory: made by `init` only, recognised by `run`.

A data disk that is not mounted must not become an empty dataset, so nothing but `init` ever makes `{root}/state`, and everything else
refuses a root without it.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from azaion_daemon.errors import RootError
from azaion_daemon.store.durable import exclusive_lock, fsync_directory, storage, write_json
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.modes import close_root

_NEW = "new-"


@dataclass(frozen=True, slots=True)
class Root:
    """The identity of a root."""

    id: str
    created: float


def init_root(layout: Layout, fill: Callable[[Ledger], None] = lambda _: None) -> Root:
    """Make the directories, the identity and a ledger. Calling it again completes what is missing and keeps the rest.

    `fill` puts into a new ledger what the root holds already. The ledger gets its name when that is done, and the identity comes last.

    Raises:
        RootError: The root cannot be written, is in use, or its ledger was lost.
    """
    try:
        for directory in layout.directories():
            directory.mkdir(parents=True, exist_ok=True)
        close_root(layout)
        with lock_root(layout):
            if not layout.ledger.exists():
                _refuse_lost_ledger(layout)
                install_ledger(layout, fill)
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


def identify_root(layout: Layout) -> Root:
    """The identity of a root, for who only reads there.

    Raises:
        RootError: It has none: it is not mounted, or not one that `init` made.
    """
    if not layout.root_id.exists():
        raise RootError(
            f"{layout.root} is not a root of this daemon: {layout.root_id} is missing. Is its disk mounted? A new root is made by: "
            "azaion-daemon init"
        )
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
    identify_root(layout)
    device = layout.root.stat().st_dev
    homes = {directory: directory.stat() for home in Home for directory in (layout.images(home), layout.labels(home)) if directory.is_dir()}
    if len({(found.st_dev, found.st_ino) for found in homes.values()}) < len(homes):
        raise RootError(f"two of {', '.join(str(directory) for directory in homes)} are one and the same directory: undo the link or mount")
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


def install_ledger(layout: Layout, fill: Callable[[Ledger], None]) -> Path | None:
    """Make a ledger, durably, under its name only when it is filled; where one from before lies now. By who holds the root's lock.

    Raises:
        StorageError: The disk failed or is full; what was there before is as it was.
    """
    aside = layout.ledger.with_name(_NEW + layout.ledger.name)
    _remove(aside)  # what a crash has left
    Ledger.create(aside)
    ledger = Ledger(aside)
    try:
        fill(ledger)
    except BaseException:
        ledger.close()
        _remove(aside)
        raise
    ledger.close()
    with storage("making the ledger"):
        old = _set_aside(layout)
        aside.rename(layout.ledger)
        fsync_directory(layout.state)
    return old


def _remove(database: Path) -> None:
    for part in database.parent.glob(database.name + "*"):
        part.unlink()


def _set_aside(layout: Layout) -> Path | None:
    """Rename a ledger that cannot be used any more; where it lies now, None when there is none.

    Its write-ahead log goes along, also when it is all that is left: beside another database SQLite would take it for that one's.
    """
    stem = f"{layout.ledger.name}.broken-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    moved = None
    for suffix in ("", "-wal", "-shm"):
        part = layout.ledger.with_name(layout.ledger.name + suffix)
        if part.exists():
            moved = part.rename(part.with_name(stem + suffix))
    return moved and moved.with_name(stem)


def _refuse_lost_ledger(layout: Layout) -> None:
    """A root that has an identity had a ledger: its position, media and models are not to be had from the tree alone."""
    held = next((home for home in Home for directory in (layout.images(home), layout.labels(home)) if any(directory.iterdir())), None)
    if layout.root_id.exists() and held:
        raise RootError(
            f"{layout.ledger} is gone, and {layout.root} holds annotations. Restore it from a backup, or make it anew from the files with: "
            "azaion-daemon index rebuild. Delete nothing."
        )
