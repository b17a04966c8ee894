"""What happens to serial numbers beside the ordinary: raised above what was published, given to an older model again, restored.

They only grow. A serial number that consumers may have seen is never given to anything else.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace

from azaion_daemon.store.audit import write_audit
from azaion_daemon.store.database import transaction
from azaion_daemon.store.records import AuditEntry, Release


class SerialTable:
    """The ledger's releases, over its connection. Every method is one short transaction."""

    def __init__(self, db: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock

    def raise_above(self, serial: int, highest: int, why: str) -> int:
        """Give a release that waits another serial, above `highest` and all that the ledger knows; which one."""
        with transaction(self._db, "raising the serial of a release in the ledger") as db:
            now = self._clock()
            raised = max(highest, _last(db)) + 1
            db.execute("UPDATE releases SET serial=?, changed=? WHERE serial=? AND state='waiting'", (raised, now, serial))
            write_audit(db, now, [AuditEntry(f"release {serial}", f"raised to {raised}", "daemon", why)])
        return raised

    def roll_back(self, again: Release, reason: str) -> Release:
        """Make the model of an older release the current one, and have it published under the next serial.

        Releases that wait are superseded. Once more, before it is published, is the same as once.
        """
        with transaction(self._db, "recording a rollback in the ledger") as db:
            now = self._clock()
            last = _last(db)
            newest = db.execute("SELECT state, model_sha256, created, changed FROM releases WHERE serial=?", (last,)).fetchone()
            if newest is not None and newest[:2] == ("waiting", again.model_sha256):
                return Release(last, again.model_sha256, "waiting", *newest[2:])
            waiting = [serial for (serial,) in db.execute("SELECT serial FROM releases WHERE state='waiting' ORDER BY serial")]
            db.execute("UPDATE releases SET state='superseded', changed=? WHERE state='waiting'", (now,))
            db.execute("UPDATE models SET current=0 WHERE sha256<>?", (again.model_sha256,))
            db.execute("UPDATE models SET current=1, current_since=? WHERE sha256=?", (now, again.model_sha256))
            release = Release(last + 1, again.model_sha256, "waiting", now, now)
            _insert(db, release)
            why = f"back to release {again.serial}: {reason}"
            write_audit(
                db,
                now,
                [
                    *(AuditEntry(f"release {serial}", "superseded", "operator", why) for serial in waiting),
                    AuditEntry(f"model {again.model_sha256}", "current", "operator", why),
                    AuditEntry(f"release {release.serial}", "waiting", "operator", why),
                ],
            )
        return release

    def restore(self, releases: Iterable[Release]) -> None:
        """Record releases that another ledger knew."""
        with transaction(self._db, "recording releases in the ledger") as db:
            for release in releases:
                _insert(db, replace(release, why=release.why or "restored"))


def _last(db: sqlite3.Connection) -> int:
    (last,) = db.execute("SELECT coalesce(max(serial), 0) FROM releases").fetchone()
    return int(last)


def _insert(db: sqlite3.Connection, release: Release) -> None:
    details = None if release.details is None else json.dumps(release.details, default=str)
    db.execute(
        "INSERT INTO releases (serial, model_sha256, state, created, changed, why, details) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (release.serial, release.model_sha256, release.state, release.created, release.changed, release.why, details),
    )
