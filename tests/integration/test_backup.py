"""A copy that was made beside the running daemon, as the operator's guide says, and a root that is restored from it."""

import json
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.scenario import Scenario, scenario
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Job, Model
from tests.harness import Site, expected_tree

MODEL = Model("a" * 64, None, None, {}, "/gone", current=True, created=1.0)
TRAINING = Job("20260401T120000Z", "running", "enough has changed", created=1.0, changed=1.0, dataset="azaion-2026-04-01", position=1)
"""Was under way when the copy was made; its directory is not in it."""


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    made = Site(tmp_path, broker, stream)
    made.overrides["ingest"]["batch_messages"] = 7
    made.prepare()
    return made


def wait_until_consumed(daemon: RunningDaemon, messages: int) -> None:
    daemon.wait_for_status(lambda status: (status["stream"]["position"] or 0) >= messages - 1, "everything is consumed")


def rows(site: Site) -> list[tuple[Any, ...]]:
    """What the ledger says of annotations, without the times of day at which it came to know it."""
    columns = "name, home, extension, label, pending, image, position, media, image_missing, label_problem"
    with sqlite3.connect(site.root / "state" / "ledger.db") as db:
        return db.execute(f"SELECT {columns} FROM annotations ORDER BY name").fetchall()


def put_job(site: Site, job: Job) -> None:
    ledger = Ledger(site.root / "state" / "ledger.db")
    ledger.put_job(job)
    ledger.close()


def copy_files(site: Site, to: Path) -> None:
    """As `rsync -a --exclude=/state` does it."""
    shutil.copytree(site.root, to, ignore=lambda directory, _: ["state"] if Path(directory) == site.root else [])


def restore(site: Site, backup: Path, files: Path) -> None:
    """The steps of the guide."""
    shutil.rmtree(site.root)
    shutil.copytree(files, site.root)
    shutil.copytree(backup, site.root / "state")
    site.operator.command("init")
    site.operator.try_command("index", "check", "--repair")


def interrupted(site: Site, shift: Scenario, backup: Path, files: Path) -> None:
    """A copy in the middle of the work, the files some messages later than the ledger; more work; everything is lost."""
    third = len(shift.messages) // 3
    with site.daemon() as daemon:
        site.publish(shift.messages[:third])
        wait_until_consumed(daemon, third)
        site.publish(shift.messages[third : 2 * third])
        daemon.wait_for_status(lambda status: status["stream"]["position"] > third, "the work goes on")
        site.operator.command("backup", str(backup))
        wait_until_consumed(daemon, 2 * third)
        copy_files(site, files)
        site.publish(shift.messages[2 * third :])
        wait_until_consumed(daemon, len(shift.messages))


def test_a_root_restored_from_a_copy_goes_on_and_nothing_is_lost_or_doubled(site: Site, tmp_path: Path) -> None:
    shift = scenario(150, seed=6)
    backup, files = tmp_path / "copy" / "state", tmp_path / "copy" / "files"
    interrupted(site, shift, backup, files)
    meant = rows(site)
    copied = json.loads((backup / "backup.json").read_text())
    assert copied["position"] < len(shift.messages) - 1
    restore(site, backup, files)
    put_job(site, TRAINING)
    with site.daemon() as daemon:
        resumed = daemon.wait_for_event("stream.connected")
        assert resumed["offset"] == copied["position"]
        wait_until_consumed(daemon, len(shift.messages))
        failed = daemon.wait_for_event("job.failed")
        assert failed["job"] == TRAINING.id
        assert failed["blame"] == "infrastructure"  # so another one is begun
        assert [event for event in daemon.events() if event["level"] == "error"] == [failed]
    assert site.tree() == expected_tree(shift)
    assert site.left_over() == []
    assert rows(site) == meant
    site.operator.command("index", "check", "--deep")  # fails when there is a difference


def test_serials_go_on_above_those_of_the_copy(site: Site, tmp_path: Path) -> None:
    ledger = Ledger(site.root / "state" / "ledger.db")
    ledger.put_current_model(MODEL)
    serial = ledger.add_release(MODEL.sha256).serial
    ledger.close()
    backup, files = tmp_path / "copy", tmp_path / "files"
    site.operator.command("model", "key")
    made = json.loads(site.operator.command("backup", str(backup), "--json"))
    assert {"signing.pem", "signing.pub.pem", "root.json"} <= set(made["files"])
    copy_files(site, files)
    key, public = (site.root / "state" / "signing.pem").read_bytes(), site.operator.command("model", "key")
    restore(site, backup, files)
    assert (site.root / "state" / "signing.pem").read_bytes() == key
    assert site.operator.command("model", "key") == public
    restored = Ledger(site.root / "state" / "ledger.db")
    assert restored.add_release(MODEL.sha256).serial == serial + 1
    restored.close()


def test_only_its_owner_can_read_a_copy_and_another_takes_its_place_whole(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "copy"
    site.operator.command("model", "key")
    for _ in range(2):
        site.operator.command("backup", str(backup))
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in backup.iterdir() if path.is_file()}
    assert (modes["signing.pem"], modes["ledger.db"], modes["root.json"]) == (0o600, 0o640, 0o640)
    assert not [path for path in backup.iterdir() if path.name.startswith(".") or path.name.endswith(("-wal", "-shm", "-journal"))]


def test_a_place_that_would_be_lost_with_the_root_is_refused(site: Site) -> None:
    refused = site.operator.try_command("backup", str(site.root / "state" / "copy"))
    assert refused.returncode == 78
    assert "would be lost with it" in refused.stderr


def test_a_damaged_ledger_is_not_put_in_the_place_of_an_earlier_copy(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "copy"
    site.operator.command("backup", str(backup))
    before = (backup / "ledger.db").read_bytes()
    ledger = site.root / "state" / "ledger.db"
    content = bytearray(ledger.read_bytes())
    content[4096 : 4096 * 6] = b"\xff" * 4096 * 5
    ledger.write_bytes(content)
    assert site.operator.try_command("backup", str(backup)).returncode != 0
    assert (backup / "ledger.db").read_bytes() == before
