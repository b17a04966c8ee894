"""A dataset formed of what the ledger says, while the tree stands still; a stop gives it up."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.dataset.classes import Classes
from azaion_daemon.errors import DatasetError
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.sections import IngestSettings
from azaion_daemon.store.due import Mark
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Position
from tests.unit.builders import CLASSES, make_root, put_files, row, settings_on

NO_WEIGHTS = Path("/nowhere.yaml")
ROWS = [row(Home.VALIDATED, name=f"n{number:02}", media=f"v{number}") for number in range(20)]


class World:
    """What a dataset is formed of, with a clock that can hold the forming up."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        ledger = Ledger(layout.ledger)
        ledger.commit_batch("s", Position(7, b""), ROWS)
        self.call = LedgerThread(ledger)
        self.pipeline = Pipeline("s", IngestSettings(), layout, self.call, Inbox(1 << 20), known_classes=CLASSES)
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        names = Classes(tuple(f"c{number}" for number in range(80)), CLASSES)
        digester = Digester(layout, self.call, self.pipeline)
        self.former = DatasetFormer(layout, names, self.call, digester, stream="s", clock=self._clock)
        self.positions: list[int] = []

    def take_mark(self, mark: Mark) -> None:
        self.positions.append(mark.position)

    def _clock(self) -> float:
        self.reached.set()
        assert self.go_on.wait(20)
        return 0.0

    async def datasets(self) -> list[str]:
        return [path.name for path in await asyncio.to_thread(lambda: [*self.layout.datasets.iterdir()])]


@asynccontextmanager
async def opened(layout: Layout) -> AsyncIterator[World]:
    put_files(layout, *ROWS)
    world = World(layout)
    try:
        yield world
    finally:
        world.pipeline.close()
        world.call.close()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


async def test_it_shows_the_position_and_its_sides_are_in_the_ledger(layout: Layout) -> None:
    async with opened(layout) as world:
        made = await world.former.form(settings_on(world.layout), world.take_mark, weights=NO_WEIGHTS)
        assert (made.position, world.positions) == (7, [7])
        assert len(await world.call(world.call.ledger.sides)) == 20
        assert await world.datasets() == [made.name]


async def test_two_servers_that_hold_the_same_form_the_same_dataset(tmp_path: Path) -> None:
    """Other roots, with identities of their own."""
    ids = set()
    for name in ("one", "two"):
        async with opened(make_root(tmp_path / name)) as world:
            ids.add((await world.former.form(settings_on(world.layout), world.take_mark, weights=NO_WEIGHTS)).id)
    assert len(ids) == 1


async def test_the_disk_that_the_training_will_need_counts(layout: Layout, tmp_path: Path) -> None:
    weights = tmp_path / "huge.pt"
    weights.touch()
    with weights.open("r+b") as file:
        file.truncate(1 << 42)  # sparse
    async with opened(layout) as world:
        with pytest.raises(DatasetError, match=r"too_little_disk.*TiB"):
            await world.former.form(settings_on(world.layout), world.take_mark, weights=weights)
        assert (world.positions, await world.datasets()) == ([7], [])


async def test_a_stop_gives_it_up_and_the_tree_stands_still_until_nothing_is_left(layout: Layout) -> None:
    async with opened(layout) as world:
        world.go_on.clear()
        forming = asyncio.create_task(world.former.form(settings_on(world.layout), world.take_mark, weights=NO_WEIGHTS))
        assert await asyncio.to_thread(world.reached.wait, 20)
        forming.cancel()
        done, _ = await asyncio.wait([forming], timeout=0.1)
        assert done == set()
        world.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await forming
        assert await world.datasets() == []
        assert await world.call(world.call.ledger.sides) == {}
