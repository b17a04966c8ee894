"""An older model becomes the current one again: its files, the ledger, its release; or why not."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from azaion_daemon.conducting.installing import Installer
from azaion_daemon.conducting.promoting import Promoter
from azaion_daemon.errors import DiskFullError, OperatorError
from azaion_daemon.ingest.space import Space
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Model
from tests.unit.builders import make_root

OLD, NEW = (sha256(f"onnx of {which}".encode()).hexdigest() for which in ("old", "new"))


class World:
    """A root with two kept models, the newer one being the current one."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.now = 100.0
        self.call = LedgerThread(Ledger(layout.ledger, clock=lambda: self.now))
        self.ordered: list[str] = []
        installer = Installer(layout, self.call, Space(layout.root), self._order, clock=lambda: self.now)
        self.promoter = Promoter(layout, self.call, Space(layout.root), installer)
        for digest, which in ((OLD, "old"), (NEW, "new")):
            path = layout.models / f"azaion-{which}"
            path.mkdir()
            for kind in ("pt", "onnx"):
                (path / f"azaion.{kind}").write_text(f"{kind} of {which}")
            (path / "result.json").write_text("{}")
            self.call.ledger.put_current_model(Model(digest, which, "d", {}, str(path / "azaion.onnx"), current=True, created=1.0))
        self.now = 200.0

    async def _order(self, digest: str) -> None:
        self.ordered.append(digest)

    @property
    def in_place(self) -> tuple[str | None, str]:
        """What lies where the current model does."""
        pt = self.layout.pt
        return pt.read_text() if pt.exists() else None, self.layout.onnx.read_text()

    @property
    def current(self) -> list[tuple[str, float | None]]:
        return [(model.sha256, model.current_since) for model in self.call.ledger.models() if model.current]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(make_root(tmp_path / "azaion"))
    yield world
    world.call.close()


async def test_an_older_model_becomes_the_current_one_and_is_released(world: World) -> None:
    said = await world.promoter.promote(OLD, "the new one misses boats")
    assert said == f"Model {OLD[:12]} is the current one and is released."
    assert (world.in_place, world.current, world.ordered) == (("pt of old", "onnx of old"), [(OLD, 200.0)], [OLD])
    query = "SELECT actor, why FROM audit WHERE subject=? ORDER BY id DESC LIMIT 1"
    assert world.call.ledger._db.execute(query, (f"model {OLD}",)).fetchone() == ("operator", "the new one misses boats")
    before = (world.layout.models / "azaion-new" / "result.json").stat().st_mtime
    assert (world.layout.models / "azaion-old" / "result.json").stat().st_mtime >= before  # what a new ledger goes by


async def test_asked_again_after_a_kill_it_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "put_current_model", full)
        with pytest.raises(RuntimeError):
            await world.promoter.promote(OLD, "why")
    assert world.current[0][0] == NEW
    for _ in range(2):
        await world.promoter.promote(OLD, "why")
        assert (world.in_place, world.current[0][0]) == (("pt of old", "onnx of old"), OLD)


async def test_the_weights_of_another_model_do_not_pass_for_its(world: World) -> None:
    """One that was taken over may have come without any."""
    world.layout.pt.write_text("pt of new")
    kept = world.layout.models / "azaion-old"
    (kept / "azaion.pt").unlink()
    with pytest.raises(OperatorError, match=r"azaion\.pt is gone"):
        await world.promoter.promote(OLD, "why")
    digest = sha256(b"onnx").hexdigest()
    (kept / "azaion.onnx").write_bytes(b"onnx")
    world.call.ledger.put_model(Model(digest, None, None, {}, str(kept / "azaion.onnx"), current=False, created=1.0))
    await world.promoter.promote(digest, "why")
    assert world.in_place == (None, "onnx")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [("gone", "is not kept any more"), ("cut", "is damaged: its SHA-256 begins with"), ("none", "there is no model")],
)
async def test_a_model_whose_files_are_not_what_they_were_is_refused(world: World, damage: str, sentence: str) -> None:
    onnx = world.layout.models / "azaion-old" / "azaion.onnx"
    if damage == "gone":
        onnx.unlink()
    elif damage == "cut":
        onnx.write_text("onnx of")
    with pytest.raises(OperatorError, match=sentence):
        await world.promoter.promote("f" * 64 if damage == "none" else OLD, "why")
    assert (world.current[0][0], world.ordered) == (NEW, [])
    assert not world.layout.onnx.exists()


async def test_a_full_disk_is_waited_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.ingest.space._POLL_S", 0.01)
    times, put = [1, 1], Ledger.put_current_model

    def full(self: Ledger, model: Model, *, why: str = "", actor: str = "daemon") -> None:
        if times:
            times.pop()
            raise DiskFullError("no space")
        put(self, model, why=why, actor=actor)

    monkeypatch.setattr(Ledger, "put_current_model", full)
    await world.promoter.promote(OLD, "why")
    assert (world.current[0][0], times) == (OLD, [])
