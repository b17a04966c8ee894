"""The ledger over its versions, its positions, and its thread."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from azaion_daemon.errors import DamagedLedgerError, RootError, StorageError
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import AuditEntry, Job, Model, Position
from tests.unit.builders import row


async def test_a_ledger_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    thread = LedgerThread(Ledger(path))
    path.write_bytes(b"overwritten by somebody" * 1000)
    with pytest.raises(StorageError, match="using the ledger"):
        await thread(thread.ledger.jobs)
    thread.close()


def test_what_is_no_database_is_damaged_and_starting_again_would_not_help(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"overwritten by somebody" * 1000)
    with pytest.raises(DamagedLedgerError, match="index rebuild") as caught:
        Ledger(tmp_path / "ledger.db")
    assert caught.value.exit_code == os.EX_CONFIG


async def test_what_is_not_sqlites_fault_comes_out_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    thread = LedgerThread(Ledger(path))
    with pytest.raises(ZeroDivisionError):
        await thread(lambda: 1 // 0)
    thread.close()


def made_by_the_first_version(path: Path) -> None:
    """A ledger as schema 1 had it, with a position, a released job, one that failed and one under way."""
    Ledger.create(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE position DROP COLUMN base")
        db.execute("ALTER TABLE models DROP COLUMN current_since")
        for column in ("audit", "settings", "blame", "ended", "trial", "epochs", "verdict", "asked"):
            db.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        for table in ("changes", "schedule", "training_requests"):
            db.execute(f"DROP TABLE {table}")
        db.execute("DROP INDEX audit_beside_the_stream")
        db.execute("INSERT INTO position (stream, offset, digest, updated) VALUES ('s', 7, x'aa', 1.0)")
        db.execute("INSERT INTO audit VALUES (3, 1.0, 'annotation a', 'repaired', 'operator', 'stray label')")
        for number, state in enumerate(("released", "failed", "running")):
            columns = "id, state, reason, position, judged, created, changed"
            db.execute(f"INSERT INTO jobs ({columns}) VALUES (?, ?, 'r', 7, 0, ?, 9.0)", (state, state, number))
        db.execute("PRAGMA user_version=1")
        db.commit()


def test_an_older_ledger_is_migrated_at_its_opening_and_keeps_what_it_has(tmp_path: Path) -> None:
    made_by_the_first_version(tmp_path / "ledger.db")
    for _ in range(2):
        with closing(Ledger(tmp_path / "ledger.db")) as ledger:
            assert ledger.position("s") == Position(7, b"\xaa")


def test_what_jobs_of_an_older_ledger_were_blamed_for_is_not_known_and_holds_nothing_back(tmp_path: Path) -> None:
    made_by_the_first_version(tmp_path / "ledger.db")
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        assert [(job.id, job.ended, job.audit, job.blame) for job in ledger.jobs()] == [
            ("released", 9.0, 3, None), ("failed", 9.0, 3, None), ("running", None, 3, None),
        ]  # fmt: skip
        assert ledger.due.record("").failure is None


def test_a_newer_ledger_can_be_worked_with_since_versions_only_add(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    with closing(sqlite3.connect(path)) as db:
        for table in (
            "position",
            "annotations",
            "media",
            "jobs",
            "models",
            "releases",
            "audit",
            "changes",
            "schedule",
            "training_requests",
        ):
            db.execute(f"ALTER TABLE {table} ADD COLUMN from_the_future TEXT")
        db.execute("PRAGMA user_version=99")
        db.commit()
    with closing(Ledger(path)) as ledger:
        ledger.commit_batch("s", Position(1, b"d"), [row()], [AuditEntry("a", "b", "c", "d")])
        ledger.add_sides({"m": "train"})
        ledger.put_current_model(Model("f" * 64, None, None, {}, "azaion.onnx", current=True, created=1.0))
        ledger.add_release("f" * 64)
        assert ledger.annotations(["a"]) == {"a": row()}
        assert [model.sha256 for model in ledger.models()] == ["f" * 64]


def test_what_is_sqlite_and_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(RootError, match="is not a ledger of this daemon"):
        Ledger(path)


def test_positions_go_on_growing_when_one_stream_follows_another(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "ledger.db")
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        assert ledger.last_position() is None
        ledger.commit_batch("old", Position(41, b"d"), [])
        ledger.commit_batch("new", Position(3, b"e", base=42), [])
        assert ledger.position("new") == Position(3, b"e", 42)
        assert ledger.last_position() == 45


def test_the_newest_jobs_and_older_ones_that_are_not_over_are_read_without_all_others(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "ledger.db")
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        for number in range(9):
            state = {1: "held", 2: "running", 8: "running"}.get(number, "released")
            ledger.put_job(Job(f"J{number}", state, "", float(number), float(number), result={"number": number}))
        jobs = ledger.jobs()
        assert ledger.latest_jobs(3, also={"held", "running"}) == [jobs[1], jobs[2], *jobs[6:]]
        assert ledger.latest_jobs(20, also=set()) == jobs


def test_the_newest_releases_and_how_many_models_there_are(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "ledger.db")
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        for digest in ("a", "b", "c"):
            ledger.put_current_model(Model(digest, None, None, {}, f"/models/{digest}", current=True, created=1.0))
            ledger.add_release(digest)
        assert ledger.latest_releases(2) == ledger.releases()[1:]
        assert ledger.latest_releases(20) == ledger.releases()
        assert ledger.count_models() == 3


def test_the_log_that_a_long_reader_made_large_does_not_stay_large(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    log = tmp_path / "ledger.db-wal"

    def write(ledger: Ledger, number: int, characters: int) -> None:
        ledger.put_job(Job(f"J{number}", "released", "x" * characters, 1.0, 1.0))

    with closing(Ledger(path)) as ledger:
        write(ledger, 0, 1)
        with closing(Ledger(path, read_only=True)) as reader:
            reader.jobs()  # its view of the ledger is of now until it is closed
            for number in range(1, 13):
                write(ledger, number, 1 << 20)
            assert log.stat().st_size > 10 << 20
        write(ledger, 13, 5 << 20)  # this one folds the log in, the next one begins it anew
        write(ledger, 14, 1)
        assert log.stat().st_size <= 8 << 20
