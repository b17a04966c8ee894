"""The audit: who or what changed a state, when, and why. Rows are only ever added."""

import sqlite3
from collections.abc import Iterable

from azaion_daemon.store.records import AuditEntry


def write_audit(db: sqlite3.Connection, now: float, entries: Iterable[AuditEntry]) -> None:
    """Add entries, within a transaction. `now` is in seconds since the epoch."""
    db.executemany(
        "INSERT INTO audit (time, subject, action, actor, why) VALUES (?, ?, ?, ?, ?)",
        ((now, entry.subject, entry.action, entry.actor, entry.why) for entry in entries),
    )


def newest_audit(db: sqlite3.Connection) -> int:
    """The id of the newest entry; 0 before the first."""
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM audit").fetchone()
    return int(newest)
