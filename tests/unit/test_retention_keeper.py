"""Retention on disk: what goes, goes whole and is logged; what is not ours or is in use is left alone; a crash leaves no half dataset."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from azaion_daemon.retention.facts import look_at_disk
from azaion_daemon.retention.keeper import Keeper
from azaion_daemon.retention.removal import bytes_of_its_own, remove, set_aside, set_aside_before
from azaion_daemon.sections import RetentionSettings
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Job, Model
from azaion_daemon.training.jobs import JobDirectory
from tests.unit.builders import make_root
from tests.unit.test_training_jobs import spec

DAY = 86400.0
NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
KEEP_ONE = RetentionSettings(datasets_keep=1, datasets_keep_days=10, jobs_keep=1, jobs_keep_days=10)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


@pytest.fixture
async def ledger(layout: Layout) -> AsyncIterator[LedgerThread]:
    thread = LedgerThread(Ledger(layout.ledger, clock=lambda: NOW))
    yield thread
    thread.close()


def keeper(layout: Layout, ledger: LedgerThread, settings: RetentionSettings = KEEP_ONE) -> Keeper:
    return Keeper(settings, layout, ledger, clock=lambda: NOW)


def put_dataset(layout: Layout, name: str, *, days_old: float, position: int = 0, images: int = 3) -> Path:
    path = layout.datasets / name
    (path / "train" / "images").mkdir(parents=True)
    for number in range(images):
        (path / "train" / "images" / f"{number}.jpg").write_bytes(b"x" * 5000)
    (path / "train" / "labels.cache").write_bytes(b"x" * 100)
    created = datetime.fromtimestamp(NOW - days_old * DAY, UTC).isoformat()
    (path / "dataset.json").write_text(json.dumps({"id": f"id of {name}", "name": name, "created": created, "position": position}))
    return path


def put_job(layout: Layout, ledger: LedgerThread, id_: str, state: str = "failed", *, days_old: float, **others: Any) -> JobDirectory:
    directory = JobDirectory(layout.jobs / id_)
    directory.create(spec(id=id_))
    for part in (directory.run, directory.checkpoints, directory.library_home):
        part.mkdir()
        (part / "file").write_bytes(b"x")
    time = NOW - days_old * DAY
    ledger.ledger.put_job(Job(id_, state, "", time, time, **others))
    return directory


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def test_what_may_go_goes_with_all_that_is_in_it_and_each_is_logged(layout: Layout, ledger: LedgerThread) -> None:
    put_dataset(layout, "azaion-2026-04-01", days_old=60)
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    put_job(layout, ledger, "old", days_old=60)
    put_job(layout, ledger, "new", days_old=1, position=9)
    with capture_logs() as logs:
        await keeper(layout, ledger).make_pass()
    assert (names(layout.datasets), names(layout.jobs)) == ({"azaion-2026-05-31"}, {"new"})
    told = [(line["event"], line["name"], line["why"]) for line in logs]
    why = "nothing refers to it, and it is old"
    assert told == [("retention.removed", "old", why), ("retention.removed", "azaion-2026-04-01", why)]
    assert logs[1]["freed_bytes"] >= 15_000


async def test_of_a_job_that_a_model_came_from_only_what_it_worked_with_goes(layout: Layout, ledger: LedgerThread) -> None:
    kept = put_job(layout, ledger, "old", "released", days_old=60)
    put_job(layout, ledger, "new", days_old=1, position=9)
    ledger.ledger.put_current_model(Model("m1", "old", "i", {}, "", current=True, created=NOW))
    kept.onnx.write_bytes(b"onnx")
    with capture_logs() as logs:
        await keeper(layout, ledger).make_pass()
        await keeper(layout, ledger).make_pass()
    assert names(kept.path) == {"job.json", "model.onnx"}
    assert [line["name"] for line in logs] == ["old/run", "old/checkpoints", "old/home"]
    assert names(layout.jobs) == {"old", "new"}


async def test_a_dataset_that_models_or_living_workers_were_trained_on_stays(layout: Layout, ledger: LedgerThread) -> None:
    put_dataset(layout, "azaion-2026-01-01", days_old=150)
    put_dataset(layout, "azaion-2026-01-02", days_old=149)
    put_dataset(layout, "azaion-2026-01-03", days_old=148)
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    ledger.ledger.put_current_model(Model("m1", None, "id of azaion-2026-01-01", {}, "", current=True, created=NOW))
    working = put_job(layout, ledger, "cancelled", "cancelled", days_old=60)  # its spec names azaion-2026-01-02
    put_job(layout, ledger, "new", days_old=1, position=9)
    with exclusive_lock(working.lock, busy=""):
        await keeper(layout, ledger).make_pass()
        assert names(layout.datasets) == {"azaion-2026-01-01", "azaion-2026-01-02", "azaion-2026-05-31"}
        assert names(layout.jobs) == {"cancelled", "new"}
    await keeper(layout, ledger).make_pass()
    assert names(layout.datasets) == {"azaion-2026-01-01", "azaion-2026-05-31"}
    assert names(layout.jobs) == {"new"}


async def test_what_is_not_ours_is_left_alone(layout: Layout, ledger: LedgerThread, tmp_path: Path) -> None:
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    elsewhere = put_dataset(replace(layout, root=tmp_path), "azaion-2020-01-01", days_old=2000)
    (layout.datasets / elsewhere.name).symlink_to(elsewhere)
    put_dataset(layout, "mine", days_old=2000)
    copied = put_dataset(layout, "azaion-2020-01-02", days_old=2000)
    copied.rename(layout.datasets / "azaion-2020-01-03")
    (layout.datasets / "azaion-2020-01-04" / "train").mkdir(parents=True)
    damaged = put_dataset(layout, "azaion-2020-01-05", days_old=2000) / "dataset.json"
    damaged.write_text('{"id": "')
    (layout.jobs / "unknown").mkdir()
    before = names(layout.datasets)
    with capture_logs() as logs:
        await keeper(layout, ledger).make_pass()
    assert (names(layout.datasets), names(layout.jobs)) == (before, {"unknown"})
    assert (elsewhere / "dataset.json").exists()
    assert {line["event"] for line in logs} == {"retention.failed"}
    assert [str(damaged) in line["why"] or "azaion-2020-01-03" in line["why"] for line in logs] == [True, True]


async def test_links_inside_are_removed_and_not_followed(layout: Layout, ledger: LedgerThread, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    inside = put_dataset(layout, "azaion-2026-04-01", days_old=60)
    (inside / "directory").symlink_to(tmp_path / "precious")
    (inside / "file").symlink_to(tmp_path / "precious" / "file")
    (inside / "dangling").symlink_to(tmp_path / "nothing")
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    await keeper(layout, ledger).make_pass()
    assert names(layout.datasets) == {"azaion-2026-05-31"}
    assert (tmp_path / "precious" / "file").read_text() == "kept"


async def test_what_cannot_be_removed_is_a_warning_and_the_rest_goes_on(
    layout: Layout, ledger: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_dataset(layout, "azaion-2026-04-01", days_old=60)
    put_dataset(layout, "azaion-2026-04-02", days_old=60)
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    real = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "azaion-2026-04-02":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, target)

    with capture_logs() as logs, monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse)
        await keeper(layout, ledger).make_pass()
    assert names(layout.datasets) == {"azaion-2026-04-02", "azaion-2026-05-31"}
    assert [(line["event"], Path(line["name"]).name) for line in logs] == [
        ("retention.failed", "azaion-2026-04-02"),
        ("retention.removed", "azaion-2026-04-01"),
    ]


async def test_what_cannot_be_removed_is_said_ever_more_rarely(
    layout: Layout, ledger: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_dataset(layout, "azaion-2026-04-01", days_old=60)
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    keeping = keeper(layout, ledger)
    with capture_logs() as logs:
        for _ in range(9):
            await keeping.make_pass()
    assert [line["repeated"] for line in logs if line["event"] == "retention.failed"] == [1, 2, 4, 8]


async def test_what_a_crash_left_aside_is_removed_by_the_next_pass(layout: Layout, ledger: LedgerThread) -> None:
    set_aside(put_dataset(layout, "azaion-2026-04-01", days_old=60), layout.datasets)
    again = set_aside(put_dataset(layout, "azaion-2026-04-01", days_old=60), layout.datasets)
    assert again.name == ".removing-azaion-2026-04-01-2"
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    with capture_logs() as logs:
        await keeper(layout, ledger).make_pass()
    assert names(layout.datasets) == {"azaion-2026-05-31"}
    assert {line["why"] for line in logs} == {"its removal was cut short before"}


@pytest.mark.parametrize("moment", ["rename", "os.unlink", "os.rmdir"])
async def test_a_kill_at_any_moment_leaves_a_dataset_whole_or_aside(layout: Layout, ledger: LedgerThread, moment: str) -> None:
    put_dataset(layout, "azaion-2026-04-01", days_old=60)
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    program = f"""
import asyncio, os, signal
from pathlib import Path
from azaion_daemon.retention.keeper import Keeper
from azaion_daemon.sections import RetentionSettings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
def dies(*args, **named): os.kill(os.getpid(), signal.SIGKILL)
if "{moment}" == "rename":
    real = Path.rename
    def dies_after(self, target): real(self, target); dies()
    Path.rename = dies_after
else:
    {moment if "." in moment else "os.rmdir"} = dies
layout = Layout(Path({str(layout.root)!r}))
async def run():
    await Keeper(RetentionSettings(datasets_keep=1, datasets_keep_days=10), layout, LedgerThread(Ledger(layout.ledger))).make_pass()
asyncio.run(run())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    died = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], env=environment, check=False)
    assert died.returncode == -9
    assert [path.name for path in set_aside_before(layout.datasets)] == [".removing-azaion-2026-04-01"]
    assert {one.name for one in look_at_disk(layout).datasets} == {"azaion-2026-05-31"}
    await keeper(layout, ledger).make_pass()
    assert names(layout.datasets) == {"azaion-2026-05-31"}


async def test_it_looks_at_the_start_when_asked_and_when_the_settings_change(layout: Layout, ledger: LedgerThread) -> None:
    put_dataset(layout, "azaion-2026-04-01", days_old=60)
    put_dataset(layout, "azaion-2026-04-02", days_old=59, position=5)
    kept = keeper(layout, ledger, RetentionSettings(datasets_keep=3, datasets_keep_days=0))
    running = asyncio.create_task(kept.run())
    try:
        put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
        kept.reconfigure(RetentionSettings(datasets_keep=2, datasets_keep_days=0))
        await until(lambda: names(layout.datasets) == {"azaion-2026-04-02", "azaion-2026-05-31"})
        put_dataset(layout, "azaion-2026-06-01", days_old=0, position=11)
        kept.look()
        await until(lambda: names(layout.datasets) == {"azaion-2026-06-01", "azaion-2026-05-31"})
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a directory has no event
            await asyncio.sleep(0.01)


async def test_a_large_removal_leaves_the_loop_free_and_a_stop_waits_for_one_portion_only(layout: Layout, ledger: LedgerThread) -> None:
    put_dataset(layout, "azaion-2026-04-01", days_old=60, images=3000)
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    running = asyncio.create_task(keeper(layout, ledger).make_pass())
    await until(lambda: bool(set_aside_before(layout.datasets)))
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    (aside,) = set_aside_before(layout.datasets)
    assert len(list((aside / "train" / "images").iterdir())) > 1000
    await keeper(layout, ledger).make_pass()
    assert names(layout.datasets) == {"azaion-2026-05-31"}


def test_shared_files_are_not_counted_as_freed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "own").write_bytes(b"x" * 8192)
    (tmp_path / "a" / "shared").write_bytes(b"x" * 8192)
    os.link(tmp_path / "a" / "shared", tmp_path / "elsewhere")
    own = bytes_of_its_own(tmp_path / "a")
    assert own >= 8192
    assert (tmp_path / "a" / "own").stat().st_blocks * 512 == own
    assert sum(remove(tmp_path / "a")) == own
    assert (tmp_path / "elsewhere").exists()


async def test_a_ledger_that_fails_is_not_taken_for_one_that_refers_to_nothing(layout: Layout, ledger: LedgerThread) -> None:
    put_dataset(layout, "azaion-2026-04-01", days_old=60)
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    with sqlite3.connect(layout.ledger) as db:
        db.execute("DROP TABLE models")
    with pytest.raises(Exception, match="models"):
        await keeper(layout, ledger).make_pass()
    assert len(names(layout.datasets)) == 2


async def test_a_model_goes_with_its_directory_and_its_row_stays(layout: Layout, ledger: LedgerThread) -> None:
    settings = KEEP_ONE.model_copy(update={"models_keep": 1, "models_keep_days": 10})
    for number in range(4):
        path = layout.models / f"azaion-2026-01-0{number + 1}"
        path.mkdir()
        (path / "azaion.onnx").write_bytes(b"x" * 5000)
        since = NOW - (90 - 30 * number) * DAY
        made = Model(f"m{number}", None, None, {}, str(path / "azaion.onnx"), current=number == 3, created=since, current_since=since)
        ledger.ledger.put_model(made)
    (layout.models / "yolo26m.pt").write_bytes(b"base")
    (layout.models / "mine").mkdir()
    held: list[bool] = []
    guard = asyncio.Lock()

    def installing() -> asyncio.Lock:
        held.append(guard.locked())
        return guard

    with capture_logs() as logs:
        await Keeper(settings, layout, ledger, installing=installing, clock=lambda: NOW).make_pass()
    assert names(layout.models) == {"azaion-2026-01-03", "azaion-2026-01-04", "yolo26m.pt", "mine"}
    assert [line["name"] for line in logs if line["event"] == "retention.removed"] == ["azaion-2026-01-02", "azaion-2026-01-01"]
    assert (len(ledger.ledger.models()), held) == (4, [False])


async def test_a_full_disk_that_an_installation_waits_on_is_relieved(layout: Layout, ledger: LedgerThread) -> None:
    settings = KEEP_ONE.model_copy(update={"models_keep": 1, "models_keep_days": 10})
    for number, name in enumerate(("azaion-2026-01-01", "azaion-2026-01-02", "azaion-2026-01-03")):
        put_dataset(layout, name, days_old=90 - number)
        (path := layout.models / name).mkdir()
        made = Model(
            f"m{number}", None, f"id of {name}", {}, str(path / "azaion.onnx"), current=number == 2, created=NOW - 80 * DAY + number
        )
        ledger.ledger.put_model(made)
    put_dataset(layout, "azaion-2026-02-01", days_old=60)
    put_dataset(layout, "azaion-2026-05-31", days_old=1, position=9)
    put_job(layout, ledger, "old", days_old=60)
    put_job(layout, ledger, "new", days_old=1, position=9)
    kept = {"azaion-2026-01-01", "azaion-2026-01-02", "azaion-2026-01-03"}
    guard = asyncio.Lock()
    await guard.acquire()
    await Keeper(settings, layout, ledger, installing=lambda: guard, patience_s=0.01, clock=lambda: NOW).make_pass()
    assert (names(layout.jobs), names(layout.models)) == ({"new"}, kept)
    assert names(layout.datasets) == kept | {"azaion-2026-05-31"}  # what a model came from stays with it


async def test_evaluations_are_kept_up_to_a_number(layout: Layout, ledger: LedgerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.retention.keeper._EVALUATIONS", 2)
    await keeper(layout, ledger).make_pass()  # there is none yet
    layout.evaluations.mkdir()
    for number in range(4):
        file = layout.evaluations / f"{number}.json"
        file.write_text("{}")
        os.utime(file, (NOW + number, NOW + number))
    await keeper(layout, ledger).make_pass()
    assert names(layout.evaluations) == {"2.json", "3.json"}
