"""What the ledger says of when a training is due: what has changed since which snapshot and when, how jobs ended, what was asked for.

Two numbers say whether a snapshot has a change. The stream's position does for what messages changed. What changed while the stream stood
still (a replay, a repair, an image that was lost) has an audit entry, and those are numbered too. Together they are a `Mark`.

Times are those of a wall clock, which may have been wrong when they were written. One that lies in the future is brought back to now, in
the tables, by the first look that sees it: so it holds nothing back for longer than if it had just been.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import takewhile
from typing import NamedTuple

from azaion_daemon.store.audit import newest_audit, write_audit
from azaion_daemon.store.database import transaction
from azaion_daemon.store.records import Annotation, AuditEntry, Job

IMAGE_LOST = "image lost"
_BESIDE_THE_STREAM = "action IN ('replayed', 'repaired', 'image lost')"
"""What may change annotations while the stream stands still; word for word the condition of the index `audit_beside_the_stream`."""
_A_BURST_S = 60.0
"""Changes that follow each other so closely share a row, so there are 1,440 a day at most."""
_FAILED = "failed"


class Mark(NamedTuple):
    """A moment in the life of the annotations: what is later is not in a snapshot that was taken then."""

    position: int
    audit: int


NOTHING = Mark(-1, 0)
"""Before the first annotation."""


class Failure(NamedTuple):
    """The last job that ended, when it failed; trials are none."""

    job: str
    blame: str
    why: str
    settings: str | None
    """The digest of the settings that it failed with."""
    changed_since: int
    """How many annotations have changed since its snapshot."""
    in_a_row: int
    """How many jobs have failed, one after the other."""


class TrainingRequest(NamedTuple):
    """A training that somebody asked for and that no job has taken up."""

    id: str
    time: float
    reason: str
    trial: bool = False
    epochs: int | None = None
    """Instead of those of the settings."""


class DueRecord(NamedTuple):
    """What the ledger says. Times are in seconds since the epoch and never later than the look that found them."""

    changed: int
    """Annotations that are new, changed or gone among the validated since the snapshot of the last judged job."""
    first_change: float | None
    last_change: float | None
    """When the first and the last of those changes came; None where that is not known, since the tree was there before the ledger."""
    last_ended: float | None
    """When the last job ended that was no trial."""
    failure: Failure | None
    requests: tuple[TrainingRequest, ...]
    schedule_settled: float | None
    """Up to when the schedule has been dealt with; None when this schedule was never seen."""


class DueTables:
    """Those tables, over the ledger's connection. Every method is one short transaction at most."""

    def __init__(self, db: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock

    def mark(self) -> Mark:
        """Now. While nothing is written, it is the mark of a snapshot."""
        (position,) = self._db.execute("SELECT coalesce(max(base + offset), 0) FROM position").fetchone()
        return Mark(position, newest_audit(self._db))

    def record(self, schedule: str) -> DueRecord:
        """Everything that a decision follows from; `schedule` is the one in force."""
        self._bring_back(self._clock())
        judged = self._judged()
        first, last = self._db.execute(
            "SELECT min(began), max(ended) FROM changes WHERE position > :position OR (position = :position AND audit > :audit)",
            judged._asdict(),
        ).fetchone()
        (ended,) = self._db.execute("SELECT max(ended) FROM jobs WHERE NOT trial").fetchone()
        settled = self._db.execute("SELECT settled FROM schedule WHERE expression=?", (schedule,)).fetchone()
        return DueRecord(
            changed=self.changed_since(judged),
            first_change=first,
            last_change=last,
            last_ended=ended,
            failure=self._failure(),
            requests=self.waiting(),
            schedule_settled=settled[0] if settled else None,
        )

    def newest_change(self) -> float | None:
        """When the validated annotations last changed, in seconds since the epoch; None when they never did since the ledger was made."""
        row = self._db.execute("SELECT ended FROM changes ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else float(row[0])

    def waiting(self) -> tuple[TrainingRequest, ...]:
        """What was asked for and no job has taken up, the oldest first."""
        rows = self._db.execute("SELECT id, time, reason, trial, epochs FROM training_requests WHERE job IS NULL ORDER BY rowid")
        return tuple(TrainingRequest(id_, time, reason, bool(trial), epochs) for id_, time, reason, trial, epochs in rows)

    def known_requests(self) -> frozenset[str]:
        """The ids of everything that was ever asked for."""
        return frozenset(id_ for (id_,) in self._db.execute("SELECT id FROM training_requests"))

    def changed_since(self, mark: Mark) -> int:
        """How many annotations changed what is trained on after a mark."""
        (by_messages,) = self._db.execute("SELECT count(*) FROM annotations WHERE validated_position > ?", (mark.position,)).fetchone()
        (beside,) = self._db.execute(
            f"SELECT count(DISTINCT subject) FROM audit JOIN annotations ON name = substr(subject, length('annotation ') + 1) "  # noqa: S608
            f"WHERE {_BESIDE_THE_STREAM} AND id > :audit AND validated_position = :position",
            mark._asdict(),
        ).fetchone()
        return int(by_messages + beside)

    def ask(self, request: TrainingRequest) -> None:
        """Record that a training is asked for. Once more is the same as once, also when a job has taken it up."""
        with transaction(self._db, "recording a request in the ledger") as db:
            known = db.execute("SELECT 1 FROM training_requests WHERE id=?", (request.id,)).fetchone()
            if known is None:
                db.execute("INSERT INTO training_requests (id, time, reason, trial, epochs) VALUES (?, ?, ?, ?, ?)", request)
                write_audit(db, request.time, [AuditEntry("training", "asked for", "operator", request.reason)])

    def take_up(self, job: Job, requests: Sequence[TrainingRequest]) -> None:
        """Record a new job, and that it answers what was asked for and, unless it is a trial, what was scheduled until now."""
        with transaction(self._db, f"recording the job {job.id} in the ledger") as db:
            write_job(db, job, actor="operator" if requests else "daemon")
            db.executemany("UPDATE training_requests SET job=? WHERE id=?", ((job.id, request.id) for request in requests))
            if not job.trial:
                db.execute("UPDATE schedule SET settled=?", (job.created,))
            # The newest one stays, for whoever wants to know when that was.
            db.execute("DELETE FROM changes WHERE position < ? AND id < (SELECT max(id) FROM changes)", (self._judged().position,))

    def settle_schedule(self, schedule: str, until: float) -> None:
        """Record that all its times until then have been dealt with."""
        with transaction(self._db, "recording the schedule in the ledger") as db:
            db.execute("DELETE FROM schedule")
            db.execute("INSERT INTO schedule (expression, settled) VALUES (?, ?)", (schedule, until))

    def forget_schedule(self) -> None:
        """Record that there is none, so that one that is given later begins then, also the same."""
        (known,) = self._db.execute("SELECT EXISTS (SELECT 1 FROM schedule)").fetchone()
        if known:
            with transaction(self._db, "recording in the ledger that there is no schedule") as db:
                db.execute("DELETE FROM schedule")

    def _judged(self) -> Mark:
        """The mark of the newest snapshot that a judged or cancelled job was formed of; a trial has seen a sample only."""
        row = self._db.execute(
            "SELECT position, coalesce(audit, 0) FROM jobs WHERE (judged OR state='cancelled') AND NOT trial AND position IS NOT NULL "
            "ORDER BY position DESC, audit DESC LIMIT 1"
        ).fetchone()
        return Mark(*row) if row else NOTHING

    def _failure(self) -> Failure | None:
        query = (
            "SELECT id, blame, why, settings, position, audit, state FROM jobs WHERE ended IS NOT NULL AND NOT trial "
            "ORDER BY ended DESC, rowid DESC"  # of several at a time the one that began last need not have ended last
        )
        ended = self._db.execute(query).fetchall()
        failed = list(takewhile(lambda job: job[-1] == _FAILED and job[1] is not None, ended))
        if not failed:
            return None
        id_, blame, why, settings, position, audit, _ = failed[0]
        return Failure(id_, blame, why or "", settings, self.changed_since(Mark(position, audit)), len(failed))

    def _bring_back(self, now: float) -> None:
        (ahead,) = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM changes WHERE began > :now OR ended > :now) OR EXISTS (SELECT 1 FROM jobs WHERE ended > :now) "
            "OR EXISTS (SELECT 1 FROM schedule WHERE settled > :now)",
            {"now": now},
        ).fetchone()
        if ahead:
            with transaction(self._db, "bringing times back in the ledger") as db:
                for table, column in (("changes", "began"), ("changes", "ended"), ("jobs", "ended"), ("schedule", "settled")):
                    db.execute(f"UPDATE {table} SET {column}=:now WHERE {column} > :now", {"now": now})  # noqa: S608 - constants


def note_change(db: sqlite3.Connection, rows: Iterable[Annotation], least: int, now: float) -> None:
    """Note, within a transaction that writes them, when rows changed what is trained on: those that did so at `least` or later."""
    position = max((-1 if row.validated_position is None else row.validated_position for row in rows), default=-1)
    if position < max(least, 0):
        return
    newest = db.execute("SELECT id, began FROM changes ORDER BY id DESC LIMIT 1").fetchone()
    values = (position, newest_audit(db), now)
    if newest is not None and newest[1] <= now < newest[1] + _A_BURST_S:
        db.execute("UPDATE changes SET position=max(position, ?), audit=?, ended=? WHERE id=?", (*values, newest[0]))
    else:
        db.execute("INSERT INTO changes (position, audit, ended, began) VALUES (?, ?, ?, ?)", (*values, now))


def write_job(db: sqlite3.Connection, job: Job, *, actor: str) -> None:
    """Write a job's row and an audit entry, within a transaction."""
    documents = {
        name: None if document is None else json.dumps(document, ensure_ascii=False, default=str)
        for name, document in (("result", job.result), ("verdict", job.verdict))
    }
    row = {**asdict(job), "judged": int(job.judged), "trial": int(job.trial), "asked": int(job.asked), **documents}
    columns = list(row)
    db.execute(
        f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({', '.join(f':{column}' for column in columns)}) "  # noqa: S608
        f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{column}=excluded.{column}' for column in columns)}",
        row,
    )
    write_audit(db, job.changed, [AuditEntry(f"job {job.id}", job.state, actor, job.why or job.reason)])
