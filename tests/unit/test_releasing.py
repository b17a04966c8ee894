"""What a release is of, and going back to an older model."""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Never

import pytest
from pydantic import SecretStr

from azaion_daemon import __version__
from azaion_daemon.errors import DiskFullError, OperatorError
from azaion_daemon.ingest.space import Space
from azaion_daemon.outbox import Outbox
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.manifesting import SerialUsedError
from azaion_daemon.publish.record import Published
from azaion_daemon.releasing import RollBack, release_facts
from azaion_daemon.sections import PublishSettings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Model
from azaion_daemon.training.jobs import JobDirectory, JobResult
from azaion_daemon.training.outcomes import Outcome, Phase
from tests.unit.builders import make_root

AT = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "root")


@pytest.fixture
def ledger(layout: Layout) -> Iterator[LedgerThread]:
    thread = LedgerThread(Ledger(layout.ledger))
    yield thread
    thread.close()


def keep(layout: Layout, ledger: LedgerThread, name: str, *, pt: bool = True) -> Model:
    """A model that was trained, kept and published."""
    directory = layout.models / name
    directory.mkdir()
    (directory / "azaion.onnx").write_bytes(name.encode())
    if pt:
        (directory / "azaion.pt").write_bytes(b"pt of " + name.encode())
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    model = Model(sha256, name, "d", {"map50": 0.5, "classes": [], "bad": float("nan")}, str(directory / "azaion.onnx"), True, 1.0)
    ledger.ledger.put_current_model(model)
    ledger.ledger.update_release(ledger.ledger.add_release(sha256).serial, "published")
    for kept in directory.iterdir():
        (layout.models / kept.name).write_bytes(kept.read_bytes())
    return model


class Ordered:
    def __init__(self) -> None:
        self.models: list[str] = []

    async def __call__(self, model_sha256: str) -> None:
        self.models.append(model_sha256)


async def roll_back(layout: Layout, ledger: LedgerThread, serial: int) -> tuple[dict[str, Any], list[str]]:
    ordered = Ordered()
    return await RollBack(layout, ledger, Space(layout.root), ordered, asyncio.Lock())(serial, "reason"), ordered.models


async def test_the_older_model_is_the_current_one_in_ledger_and_files_and_its_release_is_ordered(
    layout: Layout, ledger: LedgerThread
) -> None:
    old, new = keep(layout, ledger, "old"), keep(layout, ledger, "new")
    ledger.ledger.add_release(new.sha256)
    answer, ordered = await roll_back(layout, ledger, 1)
    assert answer == {"serial": 4, "to": 1, "model": old.sha256, "superseded": [3]}
    assert ordered == [old.sha256]
    assert (layout.onnx.read_bytes(), layout.pt.read_bytes()) == (b"old", b"pt of old")
    assert [model.sha256 for model in ledger.ledger.models() if model.current] == [old.sha256]


async def test_a_full_disk_is_waited_out(layout: Layout, ledger: LedgerThread) -> None:
    old, _ = keep(layout, ledger, "old"), keep(layout, ledger, "new")
    tries = 0

    async def order(_: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise DiskFullError("no space")

    answer = await RollBack(layout, ledger, Space(layout.root), order, asyncio.Lock())(1, "reason")
    assert (answer["serial"], answer["model"], tries) == (3, old.sha256, 2)


async def test_a_ledger_that_is_lost_afterwards_is_made_anew_with_its_order(layout: Layout, ledger: LedgerThread) -> None:
    old, _ = keep(layout, ledger, "old"), keep(layout, ledger, "new")
    result = Path(old.path).with_name("result.json")
    result.write_text("{}")
    os.utime(result, (1.0, 1.0))
    await roll_back(layout, ledger, 1)
    assert result.stat().st_mtime > 1.0


async def test_a_trainable_model_that_is_not_of_the_current_one_does_not_stay(layout: Layout, ledger: LedgerThread) -> None:
    keep(layout, ledger, "taken-over", pt=False)
    keep(layout, ledger, "new")
    await roll_back(layout, ledger, 1)
    assert layout.onnx.read_bytes() == b"taken-over"
    assert not layout.pt.exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda file: file.unlink(),
            r"is not kept any more .*\. Fetch it back, then roll back: mkdir -p /.* && azaion-daemon model fetch 1 --output /",
        ),
        (lambda file: file.write_bytes(b"x"), r"is damaged: .*\. Fetch it back"),
        (lambda file: (file.unlink(), file.mkdir()), r"cannot be read: Is a directory"),
    ],
)
async def test_a_model_that_is_not_there_any_more_changes_nothing_and_can_be_fetched_back(
    layout: Layout, ledger: LedgerThread, damage: Any, said: str
) -> None:
    old, new = keep(layout, ledger, "old"), keep(layout, ledger, "new")
    damage(Path(old.path))
    with pytest.raises(OperatorError, match=said):
        await roll_back(layout, ledger, 1)
    assert layout.onnx.read_bytes() == b"new"
    assert [model.sha256 for model in ledger.ledger.models() if model.current] == [new.sha256]
    assert len(ledger.ledger.releases()) == 2


async def test_a_disk_that_is_full_halfway_changes_nothing_until_there_is_space(
    layout: Layout, ledger: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = keep(layout, ledger, "old")
    keep(layout, ledger, "new")
    copy, seen = shutil.copyfileobj, list[tuple[bytes, bytes]]()

    def full_at_first(source: BinaryIO, target: BinaryIO) -> None:
        if source.name.endswith(".pt"):
            seen.append((layout.onnx.read_bytes(), layout.pt.read_bytes()))
            if len(seen) == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    monkeypatch.setattr("azaion_daemon.store.kept.shutil.copyfileobj", full_at_first)
    monkeypatch.setattr("azaion_daemon.ingest.space._POLL_S", 0.01)
    await roll_back(layout, ledger, 1)
    assert seen == [(b"new", b"pt of new")] * 2
    assert (layout.onnx.read_bytes(), layout.pt.read_bytes()) == (b"old", b"pt of old")
    assert [model.sha256 for model in ledger.ledger.models() if model.current] == [old.sha256]
    assert not list(layout.models.glob(".*"))


def test_the_manifest_says_what_the_ledger_and_the_result_know(layout: Layout, ledger: LedgerThread) -> None:
    model = keep(layout, ledger, "20260401T000000Z")
    bare = release_facts(model, layout)
    assert bare == ReleaseFacts(job=model.job, dataset_id="d", metrics={"map50": 0.5}, versions={"azaion-daemon": __version__})
    JobDirectory(Path(model.path).parent).write_result(JobResult(outcome=Outcome.DONE, versions={"torch": "2"}, finished=AT))
    job = JobDirectory(layout.jobs / str(model.job))
    job.path.mkdir()
    job.mark(Phase.EXPORT, 1.0, {"input": [4, 3, 64, 64], "output": [4, 300, 6]})
    facts = release_facts(model, layout)
    assert facts.versions == {"azaion-daemon": __version__, "torch": "2"}
    assert (facts.input_shape, facts.output_shape) == ((4, 3, 64, 64), (4, 300, 6))


def test_what_is_damaged_beside_a_model_does_not_hold_back_its_release(layout: Layout, ledger: LedgerThread) -> None:
    model = keep(layout, ledger, "20260401T000000Z")
    (Path(model.path).parent / "result.json").write_text("{")
    job = JobDirectory(layout.jobs / str(model.job))
    job.path.mkdir()
    job.mark(Phase.EXPORT, 1.0, {"input": [4, None], "output": "?"})
    facts = release_facts(model, layout)
    assert (facts.input_shape, facts.output_shape, facts.job) == (None, None, model.job)


class SaysUsed:
    """A publisher of a store in which release 41 is."""

    def __init__(self) -> None:
        self.serials: list[int] = []
        self.done = asyncio.Event()

    async def publish(self, model: Path, serial: int, facts: ReleaseFacts, **_: object) -> Published:
        self.serials.append(serial)
        if serial <= 41:
            raise SerialUsedError(serial, 41, "the manifest is of release 41")
        self.done.set()
        return Published(serial, "m", "p", "c", 1, 1, "listed", AT)

    async def abort_uploads(self) -> None:
        """There are none."""


async def test_a_serial_that_was_published_elsewhere_is_raised_and_published_at_once(layout: Layout, ledger: LedgerThread) -> None:
    keep(layout, ledger, "old")
    publisher = SaysUsed()
    settings = PublishSettings(model_key=SecretStr("k"))
    outbox = Outbox(settings, ledger, publisher, facts=lambda _: ReleaseFacts())
    ledger.ledger.add_release(ledger.ledger.models()[0].sha256)
    running: asyncio.Task[Never] = asyncio.create_task(outbox.run())
    async with asyncio.timeout(30):
        await publisher.done.wait()
    running.cancel()
    assert publisher.serials == [2, 42]
    assert [release.serial for release in ledger.ledger.releases()] == [1, 42]
