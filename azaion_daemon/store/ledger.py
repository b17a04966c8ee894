"""The ledger: SQLite tables that decide what is true. The tree of files follows it.

One connection writes, in the one process that holds the root's lock. Every method is one short transaction and blocks; the daemon calls
them on a thread of their own (`LedgerThread`).
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from azaion_daemon.errors import RootError
from azaion_daemon.health import Pulse, calling, waiting_for
from azaion_daemon.store.audit import write_audit
from azaion_daemon.store.database import create_database, open_database, read_database, sqlite_errors, transaction
from azaion_daemon.store.due import IMAGE_LOST, DueTables, note_change, write_job
from azaion_daemon.store.layout import Home
from azaion_daemon.store.records import Annotation, AuditEntry, Job, Model, Outline, Position, Release, ReleaseState
from azaion_daemon.store.serials import SerialTable

P = ParamSpec("P")
T = TypeVar("T")

_COLUMNS = Annotation._fields
_JOB_COLUMNS = tuple(field.name for field in fields(Job))
_MODEL_COLUMNS = tuple(field.name for field in fields(Model))
_UPSERT = (
    f"INSERT INTO annotations ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608 - constants
    f"ON CONFLICT (name) DO UPDATE SET {', '.join(f'{column}=excluded.{column}' for column in _COLUMNS[1:])}"
)
_MOVE = (
    "UPDATE annotations SET home=:home, position=:position, dirty=:position, changed=:changed, "
    "validated_position=CASE WHEN :trained_on THEN :position ELSE validated_position END "
    "WHERE name IN (SELECT value FROM json_each(:names))"
)
"""What a row says after a move, for many names with one statement: half the time of whole rows, and none of it the interpreter's."""
_INSERT = _UPSERT.partition(" ON CONFLICT")[0]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM annotations"  # noqa: S608 - constants
_OUTLINE = "SELECT name, home, extension, image IS NOT NULL, pending IS NOT NULL, label_problem, dirty FROM annotations"
_HOMES = {home.value: home for home in Home}
_PASSED_OVER = "SELECT subject, why FROM audit WHERE time>=? AND action LIKE '% ignored' AND subject IN"
_CAME = "min(first_seen, coalesce(created_at, first_seen))"
_YOUNGER = (
    f"SELECT name FROM annotations WHERE {_CAME}>? AND media<>'?' "  # noqa: S608 - constants; the literal is `UNKNOWN_MEDIA`
    f"AND media NOT IN (SELECT media FROM annotations WHERE media<>'' AND {_CAME}<=?)"
)
_RELEASES = "SELECT serial, model_sha256, state, created, changed, why, details FROM releases"
_VARIABLES = 30_000
"""SQLite's limit of bound variables is 32,766."""
_HOME, _MISSING, _CONFLICT = (_COLUMNS.index(column) for column in ("home", "image_missing", "image_conflict"))


def _annotation(row: tuple[Any, ...]) -> Annotation:
    values = [*row]
    values[_HOME] = _HOMES[values[_HOME]]
    values[_MISSING] = bool(values[_MISSING])
    values[_CONFLICT] = bool(values[_CONFLICT])
    return Annotation._make(values)


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_JOB_COLUMNS, row, strict=True))
    flags = {name: bool(values[name]) for name in ("judged", "trial", "asked")}
    return Job(**{**values, **flags, "result": _read_json(values["result"]), "verdict": _read_json(values["verdict"])})


def _model(row: tuple[Any, ...]) -> Model:
    values = dict(zip(_MODEL_COLUMNS, row, strict=True))
    return Model(**{**values, "metrics": json.loads(values["metrics"]), "current": bool(values["current"])})


def _release(row: tuple[Any, ...]) -> Release:
    serial, model, state, created, changed, why, details = row
    return Release(serial, model, state, created, changed, why, _read_json(details))


def _moves(rows: Iterable[Annotation]) -> Iterator[dict[str, object]]:
    together: dict[tuple[Home, int, bool, float], list[str]] = {}
    for row in rows:
        together.setdefault((row.home, row.position, row.validated_position == row.position, row.changed), []).append(row.name)
    for (home, position, trained_on, changed), names in together.items():
        yield {"home": home, "position": position, "trained_on": trained_on, "changed": changed, "names": json.dumps(names)}


class Ledger:
    """The database of one root directory."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, read_only: bool = False) -> None:
        """Open an existing ledger and migrate it. With `read_only` it may be that of a running daemon, and stays as it is.

        Raises:
            RootError: There is none, or it is something else.
            StorageError: SQLite cannot read it.
        """
        if not path.exists():
            raise RootError(f"{path} does not exist. Restore it from a backup, or make it anew with: azaion-daemon index rebuild")
        self._clock = clock
        self._db = read_database(path) if read_only else open_database(path)
        self.due = DueTables(self._db, clock)
        """What says when a training is due."""
        self.serials = SerialTable(self._db, clock)
        """What becomes of serial numbers when the ordinary is not enough."""

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty ledger where there is none."""
        create_database(path)

    def close(self) -> None:
        """Close the database; its write-ahead log is folded in."""
        self._db.close()

    def _transaction(self, doing: str) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._db, doing)

    # Annotations

    def position(self, stream: str) -> Position | None:
        """How far a stream has been consumed; None before its first message."""
        row = self._db.execute("SELECT offset, digest, base FROM position WHERE stream=?", (stream,)).fetchone()
        return Position(*row) if row else None

    def last_position(self) -> int | None:
        """The newest position of all streams; None before the first message."""
        (last,) = self._db.execute("SELECT max(base + offset) FROM position").fetchone()
        return cast("int | None", last)

    def annotations(self, names: Sequence[str]) -> dict[str, Annotation]:
        """The rows of those names that there are."""
        found: dict[str, Annotation] = {}
        for start in range(0, len(names), _VARIABLES):
            part = names[start : start + _VARIABLES]
            rows = self._db.execute(f"{_SELECT} WHERE name IN ({','.join('?' * len(part))})", part)
            found.update((row[0], _annotation(row)) for row in rows)
        return found

    def commit_batch(
        self,
        stream: str,
        position: Position | None,
        changed: Collection[Annotation],
        audit: Iterable[AuditEntry] = (),
        *,
        moved: Collection[Annotation] = (),
    ) -> None:
        """Record a batch: new rows and, unless it stays, the position. From here on it has happened.

        Of the rows that are `moved` nothing else has changed: their home, and the positions and the time that go with it.
        """
        now = self._clock()
        with self._transaction("recording a batch in the ledger") as db:
            before = self.last_position()
            replayed = position is not None and position.position == before
            db.executemany(_UPSERT, changed)
            db.executemany(_MOVE, _moves(moved))
            write_audit(db, now, audit)
            note_change(db, [*changed, *moved], (-1 if before is None else before) + (not replayed), now)
            if position is None:
                return
            db.execute(
                "INSERT INTO position (stream, offset, digest, updated, base) VALUES (?, ?, ?, ?, ?) ON CONFLICT (stream) DO UPDATE "
                "SET offset=excluded.offset, digest=excluded.digest, updated=excluded.updated, base=excluded.base",
                (stream, position.offset, position.digest, now, position.base),
            )

    def was_replayed(self, message: int) -> bool:
        """Whether a message out of the quarantine was applied, as its audit entries say. Reads the whole audit: for rare questions."""
        query = "SELECT EXISTS (SELECT 1 FROM audit WHERE action='replayed' AND why=?)"
        (found,) = self._db.execute(query, (f"message {message}",)).fetchone()
        return bool(found)

    def passed_over(self, names: Sequence[str], since: float) -> dict[str, str]:
        """What was asked of annotations that were unknown then, by name, since a time (seconds since the epoch); the last of each."""
        found: dict[str, str] = {}
        for start in range(0, len(names), _VARIABLES):
            subjects = [f"annotation {name}" for name in names[start : start + _VARIABLES]]
            query = f"{_PASSED_OVER} ({','.join('?' * len(subjects))})"
            rows = self._db.execute(query, (since, *subjects))
            found.update((subject.removeprefix("annotation "), why) for subject, why in rows)
        return found

    def clear_dirty(self, placed_to: int) -> None:
        """Record that the tree surely shows every row that was marked at `placed_to` or before."""
        with self._transaction("clearing marks in the ledger") as db:
            db.execute("UPDATE annotations SET dirty=NULL, staged=NULL, stale_extensions='' WHERE dirty <= ?", (placed_to,))

    def flag_image_lost(self, lost: Collection[Annotation]) -> None:
        """Record that these annotations' images are nowhere, unless they were given others meanwhile."""
        if not lost:
            return
        now = self._clock()
        with self._transaction("flagging annotations in the ledger") as db:
            position = self.last_position() or 0
            db.executemany(
                "UPDATE annotations SET image=NULL, staged=NULL, image_missing=1, changed=:now, "
                "validated_position=CASE home WHEN 'validated' THEN :position ELSE validated_position END "
                "WHERE name=:name AND image=:image",
                ({"now": now, "position": position, "name": row.name, "image": row.image} for row in lost),
            )
            write_audit(db, now, (AuditEntry(f"annotation {row.name}", IMAGE_LOST, "daemon", "no directory holds it") for row in lost))
            note_change(db, self.annotations([row.name for row in lost]).values(), position, now)

    def dirty(self) -> list[Annotation]:
        """The rows that the tree may not show yet."""
        return [_annotation(row) for row in self._db.execute(f"{_SELECT} WHERE dirty IS NOT NULL ORDER BY dirty")]

    def staged_files(self) -> set[str]:
        """The files in `incoming` that a row names."""
        rows = self._db.execute("SELECT staged FROM annotations WHERE dirty IS NOT NULL AND staged IS NOT NULL")
        return {name for (name,) in rows}

    def counts(self) -> dict[Home, int]:
        """How many annotations live in each home."""
        found = dict(self._db.execute("SELECT home, count(*) FROM annotations GROUP BY home"))
        return {home: found.get(home, 0) for home in Home}

    def flagged(self) -> int:
        """How many annotations are kept out of datasets by a flag."""
        query = "SELECT count(*) FROM annotations WHERE image_missing OR image_conflict OR label_problem IS NOT NULL"
        (count,) = self._db.execute(query).fetchone()
        return int(count)

    def in_home(self, home: Home) -> list[Annotation]:
        """All rows of a home, by name."""
        return [_annotation(row) for row in self._db.execute(f"{_SELECT} WHERE home=? ORDER BY name", (home,))]

    # What an indexed tree needs

    def add_annotations(self, rows: Iterable[Annotation]) -> None:
        """Record annotations that are new, in one transaction; fastest in the order of their names."""
        with self._transaction("recording annotations in the ledger") as db:
            db.executemany(_INSERT, rows)

    def replace_annotations(self, rows: Collection[Annotation], audit: Iterable[AuditEntry]) -> None:
        """Record new states of annotations that no message has brought about. The position stays."""
        now = self._clock()
        with self._transaction("recording annotations in the ledger") as db:
            db.executemany(_UPSERT, rows)
            write_audit(db, now, audit)
            note_change(db, rows, self.last_position() or 0, now)

    def date_annotations(self, position: int) -> None:
        """Say of all annotations that they are as of a position: what is older must not undo them."""
        with self._transaction("dating annotations in the ledger") as db:
            db.execute("UPDATE annotations SET position=?", (position,))

    def date_training(self, names: Iterable[str], position: int) -> None:
        """Say of annotations that they last changed what is trained on at a position."""
        with self._transaction("dating annotations in the ledger") as db:
            db.executemany("UPDATE annotations SET validated_position=? WHERE name=?", ((position, name) for name in names))

    def outlines(self, names: Sequence[str]) -> dict[str, Outline]:
        """The outlines of those names that there are, which take a third of the time of whole rows."""
        found: dict[str, Outline] = {}
        for start in range(0, len(names), _VARIABLES):
            part = names[start : start + _VARIABLES]
            query = f"{_OUTLINE} WHERE name IN ({','.join('?' * len(part))})"
            for name, home, *others in self._db.execute(query, part):
                found[name] = Outline(name, _HOMES[home], *others)
        return found

    def annotations_after(self, name: str, limit: int) -> list[Annotation]:
        """The next rows after a name, in the order of names."""
        return [_annotation(row) for row in self._db.execute(f"{_SELECT} WHERE name>? ORDER BY name LIMIT ?", (name, limit))]

    def undigested(self, home: Home, limit: int) -> list[Annotation]:
        """Rows of a home whose image's digest is unknown."""
        query = f"{_SELECT} INDEXED BY annotations_undigested WHERE home=? AND image='?' LIMIT ?"
        return [_annotation(row) for row in self._db.execute(query, (home, limit))]

    def undigested_count(self, home: Home) -> int:
        """How many images of a home have an unknown digest."""
        query = "SELECT count(*) FROM annotations INDEXED BY annotations_undigested WHERE home=? AND image='?'"
        (count,) = self._db.execute(query, (home,)).fetchone()
        return int(count)

    def put_digests(self, digests: Mapping[str, str]) -> None:
        """Record the digests, by name, of images that still have none: a row that got another image meanwhile keeps that one's."""
        with self._transaction("recording digests in the ledger") as db:
            db.executemany(
                "UPDATE annotations SET image=? WHERE name=? AND image='?'", ((digest, name) for name, digest in digests.items())
            )

    def put_sizes(self, sizes: Iterable[tuple[str, str, int, int]]) -> None:
        """Record width and height, in pixels, of images by name and digest, where they are unknown: indexing opens no image."""
        with self._transaction("recording sizes in the ledger") as db:
            db.executemany(
                "UPDATE annotations SET width=?3, height=?4 WHERE name=?1 AND image=?2 AND width IS NULL",
                sizes,
            )

    def put_model(self, model: Model) -> None:
        """Record a model that another ledger knew."""
        with self._transaction("recording a model in the ledger") as db:
            since = model.current_since if model.current_since is not None or not model.current else model.created
            values = (model.sha256, model.job, model.dataset_id, _json(model.metrics), model.path, int(model.current), model.created, since)
            db.execute("INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    # Media

    def sides(self) -> dict[str, str]:
        """The side of the split that each media was given."""
        return dict(self._db.execute("SELECT name, side FROM media"))

    def on_side(self, side: str, since: float) -> set[str]:
        """The media that were given a side of the split by a time, in seconds since the epoch."""
        return {name for (name,) in self._db.execute("SELECT name FROM media WHERE side=? AND assigned<=?", (side, since))}

    def younger(self, names: Sequence[str], than: float) -> set[str]:
        """Those annotations whose image came after a time (seconds since the epoch), and no other one of the same media before it.

        An image came when its message was taken, but no later than its file or its producer says: that of a tree that was indexed was
        there before. Of a media that was lost with a ledger nobody knows.
        """
        found: set[str] = set()
        for start in range(0, len(names), _VARIABLES):
            part = names[start : start + _VARIABLES]
            rows = self._db.execute(f"{_YOUNGER} AND name IN ({','.join('?' * len(part))})", (than, than, *part))
            found.update(name for (name,) in rows)
        return found

    def add_sides(self, sides: Mapping[str, str]) -> None:
        """Record the sides of new media. A side never changes."""
        with self._transaction("recording the split in the ledger") as db:
            now = self._clock()
            db.executemany("INSERT INTO media (name, side, assigned) VALUES (?, ?, ?)", [(name, side, now) for name, side in sides.items()])

    # Jobs, models, releases

    def put_job(self, job: Job, *, actor: str = "daemon") -> None:
        """Record a job's state, with an audit entry."""
        with self._transaction(f"recording the job {job.id} in the ledger") as db:
            write_job(db, job, actor=actor)

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        rows = self._db.execute(f"SELECT {', '.join(_JOB_COLUMNS)} FROM jobs ORDER BY created, id")  # noqa: S608 - constants
        return [_job(row) for row in rows]

    def latest_jobs(self, count: int, *, also: Collection[str]) -> list[Job]:
        """The newest jobs, oldest first, and of the older ones those in the states `also`. Results are large: no others are read."""
        newest = "SELECT id FROM jobs ORDER BY created DESC, id DESC LIMIT ?"
        where = f"state IN ({','.join('?' * len(also))}) OR id IN ({newest})"
        query = f"SELECT {', '.join(_JOB_COLUMNS)} FROM jobs WHERE {where} ORDER BY created, id"  # noqa: S608 - constants
        return [_job(row) for row in self._db.execute(query, (*also, count))]

    def put_current_model(self, model: Model, *, why: str = "", actor: str = "daemon") -> None:
        """Record a model and make it the current one."""
        with self._transaction("recording the model in the ledger") as db:
            db.execute("UPDATE models SET current=0")
            db.execute(
                "INSERT INTO models (sha256, job, dataset_id, metrics, path, current, created, current_since) "
                "VALUES (?, ?, ?, ?, ?, 1, ?, ?) "
                "ON CONFLICT (sha256) DO UPDATE SET current=1, path=excluded.path, current_since=excluded.current_since",
                (model.sha256, model.job, model.dataset_id, _json(model.metrics), model.path, model.created, self._clock()),
            )
            write_audit(
                db,
                self._clock(),
                [AuditEntry(f"model {model.sha256}", "current", actor, why or (f"job {model.job}" if model.job else "it was there"))],
            )

    def current_model(self) -> Model | None:
        """The one that consumers are to get, and that others are compared with."""
        row = self._db.execute(f"SELECT {', '.join(_MODEL_COLUMNS)} FROM models WHERE current").fetchone()  # noqa: S608 - constants
        return None if row is None else _model(row)

    def models(self) -> list[Model]:
        """All models, oldest first."""
        rows = self._db.execute(f"SELECT {', '.join(_MODEL_COLUMNS)} FROM models ORDER BY created")  # noqa: S608 - constants
        return [_model(row) for row in rows]

    def job_states(self) -> dict[str, str]:
        """How every job stands, by its id."""
        return dict(self._db.execute("SELECT id, state FROM jobs"))

    def count_models(self) -> int:
        """How many models there are."""
        (count,) = self._db.execute("SELECT count(*) FROM models").fetchone()
        return int(count)

    def add_release(self, model_sha256: str) -> Release:
        """Record that a model is to be published, under the next serial. Older releases that still wait are superseded."""
        with self._transaction("recording the release in the ledger") as db:
            now = self._clock()
            (last,) = db.execute("SELECT coalesce(max(serial), 0) FROM releases").fetchone()
            db.execute("UPDATE releases SET state='superseded', changed=? WHERE state='waiting'", (now,))
            release = Release(last + 1, model_sha256, "waiting", now, now)
            db.execute(
                "INSERT INTO releases (serial, model_sha256, state, created, changed) VALUES (?, ?, ?, ?, ?)",
                (release.serial, release.model_sha256, release.state, now, now),
            )
            write_audit(db, now, [AuditEntry(f"release {release.serial}", "waiting", "daemon", f"model {model_sha256}")])
        return release

    def update_release(self, serial: int, state: ReleaseState, *, why: str | None = None, details: dict[str, Any] | None = None) -> None:
        """Record what became of a release."""
        with self._transaction("recording the release in the ledger") as db:
            now = self._clock()
            db.execute(
                "UPDATE releases SET state=?, why=?, details=coalesce(?, details), changed=? WHERE serial=?",
                (state, why, _json(details), now, serial),
            )
            write_audit(db, now, [AuditEntry(f"release {serial}", state, "daemon", why or "")])

    def postpone_release(self, serial: int, why: str, *, details: dict[str, Any]) -> bool:
        """Record why a release waits, if it still does; a new reason has an audit entry."""
        with self._transaction("recording the release in the ledger") as db:
            now = self._clock()
            row = db.execute("SELECT why FROM releases WHERE serial=? AND state='waiting'", (serial,)).fetchone()
            if row is None:
                return False
            db.execute("UPDATE releases SET why=?, details=?, changed=? WHERE serial=?", (why, _json(details), now, serial))
            if row != (why,):
                write_audit(db, now, [AuditEntry(f"release {serial}", "waiting", "daemon", why)])
        return True

    def releases(self) -> list[Release]:
        """All releases, oldest first."""
        return [_release(row) for row in self._db.execute(f"{_RELEASES} ORDER BY serial")]

    def published_release(self) -> Release | None:
        """The newest release that consumers have had."""
        row = self._db.execute(f"{_RELEASES} WHERE state = 'published' ORDER BY serial DESC LIMIT 1").fetchone()
        return None if row is None else _release(row)

    def latest_releases(self, count: int) -> list[Release]:
        """The newest releases, oldest first."""
        rows = self._db.execute(f"{_RELEASES} ORDER BY serial DESC LIMIT ?", (count,)).fetchall()
        return [_release(row) for row in reversed(rows)]


class LedgerThread:
    """Runs the ledger's blocking calls on one thread, in the order in which they are awaited."""

    def __init__(self, ledger: Ledger, pulse: Pulse | None = None) -> None:
        """`pulse` is the thread's own: whoever awaits a call waits for something that is watched by itself."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._pulse = pulse
        self.ledger = ledger

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await one of the ledger's methods.

        Raises:
            StorageError: SQLite failed, in reading too.
        """

        def call() -> T:
            with calling(self._pulse, getattr(function, "__name__", "a call")), sqlite_errors("using the ledger"):
                return function(*args, **kwargs)

        with waiting_for("the ledger"):
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def close(self) -> None:
        """Finish the calls under way and close the ledger."""
        self._executor.shutdown()
        self.ledger.close()


def _json(document: dict[str, Any] | None) -> str | None:
    return None if document is None else json.dumps(document, ensure_ascii=False, default=str)


def _read_json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else cast("dict[str, Any]", json.loads(text))
