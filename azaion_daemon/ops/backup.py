"""A copy of what only this daemon can copy while it runs: the ledger as of one moment, and the small files beside it.

The images are not in it: they are files that are never changed in place, so any tool may copy them, afterwards. What comes into the tree
after the ledger was copied does no harm, since the restored daemon takes those messages again; a ledger that is ahead of the tree would.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from azaion_daemon import __version__
from azaion_daemon.errors import DamagedLedgerError, OperatorError
from azaion_daemon.store.database import read_database, sqlite_errors
from azaion_daemon.store.durable import copy_durably, fsync_directory, storage, write_json
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.root import identify_root

_PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class Backup:
    """What a copy holds; also in its backup.json, which is written last: a directory without it is no whole copy."""

    root: str
    """The identity of the root."""
    version: str
    created: float
    position: int | None
    """The newest position of the stream that the ledger in it knows."""
    annotations: int
    ledger_bytes: int
    files: tuple[str, ...]


def back_up(layout: Layout, directory: Path, *, clock: Callable[[], float] = time.time) -> Backup:
    """Copy the ledger and what lies beside it into a directory, in place of an earlier copy. Beside a running daemon, or without one.

    Raises:
        OperatorError: It cannot be written there, or that is no place for it.
        StorageError: The disk failed or is full; an earlier copy is still whole.
    """
    identity = identify_root(layout)
    directory = directory.absolute()
    if directory.resolve().is_relative_to(layout.root.resolve()):
        raise OperatorError(f"{directory} is below {layout.root}, and would be lost with it. Name a directory on another disk.")
    try:
        directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        directory.chmod(_PRIVATE)  # the signing key is in it
    except OSError as error:
        raise OperatorError(f"{directory} cannot be made ours: {error.strerror}. Name one that this user may write.") from error
    with storage("writing the backup"):
        created = clock()
        position, annotations = _copy_ledger(layout.ledger, directory / layout.ledger.name)
        files = tuple(_copy_rest(layout, directory))
        size = (directory / layout.ledger.name).stat().st_size
        made = Backup(identity.id, __version__, created, position, annotations, size, files)
        write_json(directory / "backup.json", asdict(made))
    return made


def _copy_ledger(source: Path, target: Path) -> tuple[int | None, int]:
    """As of one moment, and looked through; its position and how many annotations it has."""
    temporary = target.with_name(f".{target.name}.tmp")
    _forget(temporary)
    with closing(read_database(source)) as original, sqlite_errors(f"copying {source}"):
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        with closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, whole without a log beside it
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise DamagedLedgerError(
                    f"{source} is damaged: {verdict}. The backup from before is as it was. Stop the daemon, check the disk, restore it."
                )
            (position,) = copy.execute("SELECT max(base + offset) FROM position").fetchone()
            (annotations,) = copy.execute("SELECT count(*) FROM annotations").fetchone()
            copy.execute("PRAGMA journal_mode=WAL")  # as the daemon has it
    _sync(temporary)
    temporary.replace(target)
    fsync_directory(target.parent)
    return position, annotations


def _copy_rest(layout: Layout, directory: Path) -> list[str]:
    """Identity, keys, the hardware string, the records of releases; those that there are, each with its mode."""
    single = (layout.root_id, layout.hardware, layout.signing_key, layout.signing_public_key)
    files = [file for file in single if file.exists()]
    records = sorted(layout.releases.glob("*.json"))
    (directory / layout.releases.name).mkdir(exist_ok=True)
    for file in [*files, *records]:
        copy_durably(file, directory / file.relative_to(layout.state), mode=stat.S_IMODE(file.stat().st_mode))
    return [file.name for file in files] + [f"{layout.releases.name}/{file.name}" for file in records]


def _forget(temporary: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
