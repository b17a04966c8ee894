"""Digests that indexing left unknown: read in the background, before a dataset, and before the rules meet an image."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from azaion_daemon.errors import StorageError
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.digests import digest_of
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.ingest.staging import Stager
from azaion_daemon.ingest.writer import Writer
from azaion_daemon.sections import IngestSettings
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation
from tests.unit.builders import CLASSES, OPERATOR, VALIDATOR, created, edited, make_root, picture, put_files, row, tree_of

SEED, VALIDATED, DELETED = Home.SEED, Home.VALIDATED, Home.DELETED
DIGESTS = [hashlib.sha256(picture(number)).hexdigest() for number in range(2)]


def unknown(home: Home = SEED, name: str = "a") -> Annotation:
    return row(home, name=name, image=UNKNOWN_DIGEST, position=0, validated_position=0 if home is VALIDATED else None)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


def indexed(layout: Layout, *rows: Annotation) -> Ledger:
    put_files(layout, *rows)
    ledger = Ledger(layout.ledger)
    ledger.add_annotations(rows)
    return ledger


# Before a batch


@pytest.fixture
def writer(layout: Layout) -> Iterator[Writer]:
    ledger = indexed(layout, unknown(VALIDATED))
    made = Writer("s", ledger, layout)
    yield made
    made.close()
    ledger.close()


def apply(writer: Writer, layout: Layout, message: object) -> Annotation:
    stager = Stager("s", layout.incoming, Quarantine(layout.quarantine))
    plan = writer.commit(stager.stage([message], IngestSettings()), CLASSES)  # type: ignore[list-item]
    stager.close()
    assert writer.place(list(plan.rows.values())) == []
    return plan.rows["a"]


def test_the_same_image_again_is_recognised(layout: Layout, writer: Writer) -> None:
    after = apply(writer, layout, created(1, "a", 0, role=OPERATOR))
    assert (after.image, after.image_conflict, after.home) == (DIGESTS[0], False, VALIDATED)


def test_another_image_is_a_conflict(layout: Layout, writer: Writer) -> None:
    after = apply(writer, layout, created(1, "a", 1, role=OPERATOR))
    assert (after.image, after.image_conflict) == (DIGESTS[0], True)


def test_an_image_by_a_validating_role_replaces_it(layout: Layout, writer: Writer) -> None:
    assert apply(writer, layout, created(1, "a", 1, role=VALIDATOR)).image == DIGESTS[1]
    assert layout.image(VALIDATED, "a", "jpg").read_bytes() == picture(1)


def test_an_image_that_is_gone_is_supplied(layout: Layout, writer: Writer) -> None:
    layout.image(VALIDATED, "a", "jpg").unlink()
    after = apply(writer, layout, created(1, "a", 1, role=OPERATOR))
    assert (after.image, after.image_missing) == (DIGESTS[1], False)


def test_what_brings_no_image_needs_no_digest(layout: Layout, writer: Writer) -> None:
    assert apply(writer, layout, edited(1, "a", role=VALIDATOR)).image == UNKNOWN_DIGEST
    assert tree_of(layout)["data/images/a.jpg"] == picture(0)


def test_an_annotation_without_a_label_gets_one_also_when_that_is_empty(layout: Layout) -> None:
    lacking = unknown(VALIDATED)._replace(label="", label_problem="no label: its file is missing")
    ledger = indexed(layout, lacking)
    layout.label(VALIDATED, "a").unlink()
    writer = Writer("s", ledger, layout)
    assert writer.place([lacking]) == []
    assert not layout.label(VALIDATED, "a").exists()  # an empty file would say that nothing is to be seen
    after = apply(writer, layout, edited(1, "a", detections=[], role=VALIDATOR))
    writer.close()
    ledger.close()
    assert (after.label, after.label_problem, after.validated_position) == ("", None, 1)
    assert layout.label(VALIDATED, "a").read_bytes() == b""


def test_an_image_that_is_being_moved_is_found(layout: Layout) -> None:
    put_files(layout, unknown(SEED))
    assert digest_of(unknown(VALIDATED), layout) == DIGESTS[0]


def test_a_directory_that_is_gone_is_no_loss_of_an_image(layout: Layout) -> None:
    layout.images(DELETED).rmdir()
    with pytest.raises(StorageError, match="data_deleted/images"):
        digest_of(unknown(VALIDATED), layout)


# In the background


class Parts:
    def __init__(self, layout: Layout, *rows: Annotation) -> None:
        self.layout = layout
        self.call = LedgerThread(indexed(layout, *rows))
        self.pipeline = Pipeline("s", IngestSettings(), layout, self.call, Inbox(1 << 20), known_classes=CLASSES)
        self.digester = Digester(layout, self.call, self.pipeline)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self.digester.run())

    async def until(self, reached: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(10):
            while not await reached():  # noqa: ASYNC110 - the ledger has no event
                await asyncio.sleep(0.01)

    async def row(self, name: str = "a") -> Annotation:
        return (await self.call(self.call.ledger.annotations, [name]))[name]

    async def known(self) -> bool:
        return not any([await self.call(self.call.ledger.undigested_count, home) for home in Home])

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self.pipeline.close()
        self.call.close()


@pytest.fixture
async def parts(layout: Layout) -> AsyncIterator[Parts]:
    names = [f"{number:03}" for number in range(200)]
    made = Parts(layout, *(unknown(list(Home)[index % 3], name) for index, name in enumerate(names)))
    yield made
    await made.close()


async def test_all_images_get_their_digests(parts: Parts) -> None:
    parts.start()
    await parts.until(parts.known)
    rows = await parts.call(parts.call.ledger.annotations_after, "", 1000)
    assert {one.image for one in rows} == {DIGESTS[0]}
    assert {one.validated_position for one in rows if one.home is VALIDATED} == {0}


async def test_an_image_that_is_nowhere_is_flagged(parts: Parts) -> None:
    (await asyncio.to_thread(parts.layout.image, VALIDATED, "001", "jpg")).unlink()
    parts.start()
    await parts.until(parts.known)
    lost = await parts.row("001")
    assert (lost.home, lost.image, lost.image_missing) == (VALIDATED, None, True)
    async with asyncio.timeout(5):
        await parts.pipeline.state.changed.wait()  # the trigger counts it


async def test_nothing_is_read_while_ingest_is_paused(parts: Parts) -> None:
    parts.pipeline.space._reasons[parts] = "the disk is full"
    parts.start()
    await asyncio.sleep(0.2)
    assert (await parts.row("001")).image == UNKNOWN_DIGEST


async def test_a_dataset_waits_until_every_validated_image_is_known(parts: Parts) -> None:
    async def form() -> list[Annotation]:
        async with parts.digester.still():
            return await parts.call(parts.call.ledger.in_home, VALIDATED)

    forming = asyncio.create_task(form())
    await asyncio.sleep(0.1)
    assert not forming.done()
    parts.start()
    async with asyncio.timeout(10):
        assert {one.image for one in await forming} == {DIGESTS[0]}


async def test_what_is_indexed_later_is_read_too(parts: Parts) -> None:
    parts.start()
    await parts.until(parts.known)
    put_files(parts.layout, unknown(VALIDATED, "new"))
    await parts.call(parts.call.ledger.add_annotations, [unknown(VALIDATED, "new")])
    parts.digester.look_again()
    await parts.until(parts.known)
    assert (await parts.row("new")).image == DIGESTS[0]


async def test_a_digest_never_replaces_that_of_a_newer_image(parts: Parts) -> None:
    ledger = parts.call.ledger
    await parts.call(ledger.replace_annotations, [unknown(VALIDATED, "001")._replace(image=DIGESTS[1])], ())
    await parts.call(ledger.put_digests, {"001": DIGESTS[0]})
    assert (await parts.row("001")).image == DIGESTS[1]
