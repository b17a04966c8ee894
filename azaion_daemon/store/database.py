"""SQLite under the ledger: schema, opening, migrating, transactions, and its errors as an operator needs them.

The schema only ever grows by additions, so that the version before can still work with it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from azaion_daemon.errors import DamagedLedgerError, DiskFullError, RootError, StorageError

_MIGRATIONS = {
    2: ("ALTER TABLE position ADD COLUMN base INTEGER NOT NULL DEFAULT 0",),
    3: (
        "ALTER TABLE jobs ADD COLUMN audit INTEGER",
        "ALTER TABLE jobs ADD COLUMN settings TEXT",
        "ALTER TABLE jobs ADD COLUMN blame TEXT",
        "ALTER TABLE jobs ADD COLUMN ended REAL",
        "UPDATE jobs SET audit=(SELECT coalesce(max(id), 0) FROM audit)",
        "UPDATE jobs SET ended=changed WHERE state IN ('accepted', 'rejected', 'held', 'releasing', 'released', 'failed', 'cancelled')",
        (
            "CREATE TABLE changes (id INTEGER PRIMARY KEY, position INTEGER NOT NULL, audit INTEGER NOT NULL, began REAL NOT NULL, "
            "ended REAL NOT NULL) STRICT"
        ),
        "CREATE TABLE schedule (expression TEXT PRIMARY KEY, settled REAL NOT NULL) STRICT",
        "CREATE TABLE training_requests (id TEXT PRIMARY KEY, time REAL NOT NULL, reason TEXT NOT NULL, job TEXT) STRICT",
        "CREATE INDEX audit_beside_the_stream ON audit (action) WHERE action IN ('replayed', 'repaired', 'image lost')",
    ),
    4: (
        "ALTER TABLE jobs ADD COLUMN trial INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN epochs INTEGER",
        "ALTER TABLE jobs ADD COLUMN verdict TEXT",
        "ALTER TABLE jobs ADD COLUMN asked INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE training_requests ADD COLUMN trial INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE training_requests ADD COLUMN epochs INTEGER",
        "ALTER TABLE models ADD COLUMN current_since REAL",
        "UPDATE models SET current_since=created WHERE current",
    ),
}
"""What leads to each version from the one before. Additions only: the version before must still be able to work with the ledger."""
SCHEMA_VERSION = max(_MIGRATIONS)
_WRITTEN_OUT = 2
_LOG_KEPT_BYTES = 8 << 20
"""Twice what the write-ahead log usually has before it is folded in."""
_SCHEMA = """
CREATE TABLE position (
    stream TEXT PRIMARY KEY, offset INTEGER NOT NULL, digest BLOB NOT NULL, updated REAL NOT NULL, base INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE annotations (
    name TEXT PRIMARY KEY, home TEXT NOT NULL, extension TEXT NOT NULL, label TEXT NOT NULL, pending TEXT, image TEXT, staged TEXT,
    stale_extensions TEXT NOT NULL, dirty INTEGER, position INTEGER NOT NULL, validated_position INTEGER, seen BLOB NOT NULL,
    media TEXT NOT NULL, time_ticks INTEGER, created_at REAL, creator_role INTEGER NOT NULL, creator_email TEXT NOT NULL, source INTEGER,
    width INTEGER, height INTEGER, image_missing INTEGER NOT NULL, image_conflict INTEGER NOT NULL, label_problem TEXT,
    first_seen REAL NOT NULL, changed REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX annotations_home ON annotations (home);
CREATE INDEX annotations_dirty ON annotations (dirty) WHERE dirty IS NOT NULL;
CREATE INDEX annotations_flagged ON annotations (name) WHERE image_missing OR image_conflict OR label_problem IS NOT NULL;
CREATE INDEX annotations_validated_position ON annotations (validated_position) WHERE validated_position IS NOT NULL;
CREATE TABLE media (name TEXT PRIMARY KEY, side TEXT NOT NULL, assigned REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL, why TEXT, dataset TEXT, position INTEGER, judged INTEGER NOT NULL,
    created REAL NOT NULL, changed REAL NOT NULL, result TEXT
) STRICT;
CREATE TABLE models (
    sha256 TEXT PRIMARY KEY, job TEXT, dataset_id TEXT, metrics TEXT NOT NULL, path TEXT NOT NULL, current INTEGER NOT NULL,
    created REAL NOT NULL
) STRICT;
CREATE TABLE releases (
    serial INTEGER PRIMARY KEY, model_sha256 TEXT NOT NULL, state TEXT NOT NULL, why TEXT, created REAL NOT NULL, changed REAL NOT NULL,
    details TEXT
) STRICT;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, subject TEXT NOT NULL, action TEXT NOT NULL, actor TEXT NOT NULL, why TEXT NOT NULL
) STRICT;
"""
"""Of version 2. Later ones are reached by the migrations, in a new ledger too."""

_INDEXED_TREE = "CREATE INDEX IF NOT EXISTS annotations_undigested ON annotations (home) WHERE image='?'"
"""Made at every opening, so that a ledger of an earlier version gets it too. The literal is `UNKNOWN_DIGEST`."""


def create_database(path: Path) -> None:
    """Make an empty ledger's database where there is none."""
    with sqlite_errors(f"creating {path}"):
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            later = ";".join(statement for version, steps in _MIGRATIONS.items() if version > _WRITTEN_OUT for statement in steps)
            db.executescript(f"BEGIN;{_SCHEMA}{later};PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        finally:
            db.close()


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database of a ledger and bring it up to date. A newer one is taken as it is: versions only ever add.

    Raises:
        RootError: It is something else than a ledger.
        StorageError: SQLite cannot read it.
    """
    with sqlite_errors(f"opening {path}", opening=True):
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA busy_timeout=10000")
        db.execute("PRAGMA cache_size=-8000")
        # A command that reads for long keeps all that is written meanwhile in the log, which would stay so large until the daemon ends.
        db.execute(f"PRAGMA journal_size_limit={_LOG_KEPT_BYTES}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < 1:
        db.close()
        raise RootError(f"{path} is not a ledger of this daemon. Restore it from a backup.")
    for target in range(version + 1, SCHEMA_VERSION + 1):
        with transaction(db, f"migrating {path} to schema {target}"):
            for statement in _MIGRATIONS[target]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={target}")
    with sqlite_errors(f"opening {path}", opening=True):
        db.execute(_INDEXED_TREE)
    return db


def read_database(path: Path) -> sqlite3.Connection:
    """Open the database of a ledger for reading only, beside a process that writes: all that is read is as of one moment.

    Raises:
        RootError: This user cannot read it, or it is of an earlier version.
        StorageError: SQLite cannot read it.
    """
    try:
        with sqlite_errors(f"reading {path}", opening=True):
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA busy_timeout=10000")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute("BEGIN")
    except StorageError as error:
        if getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            raise RootError(f"{path} cannot be read by this user. Run this as the user of the daemon.") from error
        raise
    if version < SCHEMA_VERSION:
        db.close()
        raise RootError(f"{path} is of an earlier version; the next start of the daemon brings it up to date.")
    return db


@contextmanager
def transaction(db: sqlite3.Connection, doing: str) -> Iterator[sqlite3.Connection]:
    """All of it or nothing, durably. `doing` says what failed."""
    with sqlite_errors(doing):
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


@contextmanager
def sqlite_errors(doing: str, *, opening: bool = False) -> Iterator[None]:
    """Say what was being done. Only while `opening` is a damage believed: a disk that fails shows as one in the middle of work."""
    try:
        yield
    except sqlite3.Error as error:
        match getattr(error, "sqlite_errorcode", None):
            case sqlite3.SQLITE_FULL:
                raise DiskFullError(f"{doing}: {error}. Free some space; nothing is lost and work goes on by itself.") from error
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT if opening:
                raise DamagedLedgerError(
                    f"{doing}: {error}. Check the disk, then restore the ledger from a backup, or make its annotations again from the "
                    "tree with: azaion-daemon index rebuild"
                ) from error
        raise StorageError(f"{doing}: {error}. Check the disk and the kernel's log, then start the daemon again.") from error
