"""The whole of ingest without a broker: messages in the inbox, ledger and tree out."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from blockbuster import BlockBuster

from azaion_daemon.errors import DiskFullError, StorageError
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.ingest.staging import MAX_PORTION_NAMES, StagedMessage, Stager
from azaion_daemon.ingest.writer import Writer
from azaion_daemon.sections import IngestSettings
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Annotation, AuditEntry, Position
from azaion_daemon.stream.events import RawMessage, Status
from tests.unit.builders import BOX, CLASSES, VALIDATOR, boxes, bulk, created, debris_of, edited, make_root, picture, row, tree_of

FAST = IngestSettings(batch_delay_s=0.01, sync_interval_s=0.05, threads=2, min_free_disk=0)


class Ingest:
    """A pipeline over a real root, and what tests ask of it."""

    def __init__(self, layout: Layout, settings: IngestSettings, ledger: Callable[[Path], Ledger]) -> None:
        self.layout = layout
        self.ledger = LedgerThread(ledger(layout.ledger))
        self.inbox = Inbox(8 << 20)
        self.pipeline = Pipeline("s", settings, layout, self.ledger, self.inbox, known_classes=CLASSES)
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.pipeline.recover()
        self.task = asyncio.create_task(self.pipeline.run())

    async def send(self, messages: Iterable[RawMessage]) -> None:
        for message in messages:
            await self.inbox.put(message)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                assert self.task is not None
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.005)

    async def until_at(self, offset: int) -> None:
        await self.until(lambda: self.pipeline.state.position == offset)

    async def stop(self) -> None:
        assert self.task is not None
        self.pipeline.stop()
        async with asyncio.timeout(30):
            await self.task

    async def rows(self) -> dict[str, Annotation]:
        found = [await self.ledger(self.ledger.ledger.in_home, home) for home in Home]
        return {row.name: row for rows in found for row in rows}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


@asynccontextmanager
async def ingest(layout: Layout, settings: IngestSettings = FAST, ledger: Callable[[Path], Ledger] = Ledger) -> AsyncIterator[Ingest]:
    one = Ingest(layout, settings, ledger)
    try:
        await one.start()
        yield one
    finally:
        if one.task is not None:
            one.task.cancel()
            await asyncio.wait([one.task])
        one.pipeline.close()
        one.ledger.close()


async def test_messages_become_ledger_and_tree(layout: Layout, no_blocking_calls: BlockBuster) -> None:
    no_blocking_calls.deactivate()  # the parts are made before the loop has work
    async with ingest(layout) as one:
        no_blocking_calls.activate()
        await one.send([created(1, "a"), created(2, "b", 1, role=int(VALIDATOR)), bulk(3, Status.VALIDATED, ["a"])])
        await one.until_at(3)
        await one.stop()
        no_blocking_calls.deactivate()
        assert one.pipeline.state.counts == {Home.SEED: 0, Home.VALIDATED: 2, Home.DELETED: 0}
    assert tree_of(layout) == {
        "data/images/a.jpg": picture(0),
        "data/labels/a.txt": BOX.encode(),
        "data/images/b.jpg": picture(1),
        "data/labels/b.txt": BOX.encode(),
    }


async def test_the_order_of_the_stream_is_kept_across_batches_and_threads(layout: Layout) -> None:
    settings = FAST.model_copy(update={"batch_messages": 7, "threads": 4})
    async with ingest(layout, settings) as one:
        await one.send([created(0, "a"), *(edited(n, "a", detections=boxes(n % 5, n // 50)) for n in range(1, 200))])
        await one.until_at(199)
        assert (await one.rows())["a"].label.splitlines() == [f"{n} 0.5 0.5 0.25 0.25" for n in (4, 3)]
        assert one.pipeline.state.totals.messages == 200


class Counting(Ledger):
    """Keeps how many rows each commit had."""

    batches: ClassVar[list[int]] = []

    def commit_batch(
        self,
        stream: str,
        position: Position | None,
        changed: Collection[Annotation],
        audit: Iterable[AuditEntry] = (),
        *,
        moved: Collection[Annotation] = (),
    ) -> None:
        rows, also = list(changed), list(moved)
        self.batches.append(len(rows) + len(also))
        super().commit_batch(stream, position, rows, audit, moved=also)


@pytest.fixture
def counting() -> type[Counting]:
    Counting.batches.clear()
    return Counting


async def test_messages_that_come_together_are_committed_together(layout: Layout, counting: type[Counting]) -> None:
    settings = FAST.model_copy(update={"batch_messages": 10, "batch_delay_s": 5.0})
    one = Ingest(layout, settings, counting)
    await one.send(created(n, f"n{n}") for n in range(30))
    await one.start()
    await one.until_at(29)
    await one.stop()
    one.pipeline.close()
    one.ledger.close()
    assert counting.batches == [10, 10, 10]


async def test_a_bulk_message_of_ten_thousand_names_is_one_batch(layout: Layout, counting: type[Counting]) -> None:
    names = [f"n{number}" for number in range(10_000)]
    async with ingest(layout, ledger=counting) as one:
        await one.ledger(one.ledger.ledger.commit_batch, "s", Position(0, b"d"), [row(name=name, image=None) for name in names])
        await one.send([bulk(1, Status.VALIDATED, names)])
        await one.until_at(1)
        await one.stop()
        assert one.pipeline.state.counts[Home.VALIDATED] == 10_000
    assert counting.batches == [10_000, 10_000]
    assert len(list(layout.labels(Home.VALIDATED).iterdir())) == 10_000


async def test_a_bulk_message_of_more_names_than_a_transaction_takes_is_several_batches(layout: Layout, counting: type[Counting]) -> None:
    names = [f"n{number}" for number in range(20_000)]
    async with ingest(layout, ledger=counting) as one:
        await one.ledger(one.ledger.ledger.commit_batch, "s", Position(0, b"d"), [row(name=name, image=None) for name in names])
        await one.send([bulk(1, Status.DELETED, names)])
        await one.until_at(1)
        await one.stop()
        assert await one.ledger(one.ledger.ledger.dirty) == []
        totals = one.pipeline.state.totals
        assert (totals.messages, totals.written[Home.DELETED], totals.batches.document()["buckets"][-1]) == (1, 20_000, [None, 2])
    assert counting.batches == [20_000, MAX_PORTION_NAMES, 20_000 - MAX_PORTION_NAMES]
    assert len(list(layout.labels(Home.DELETED).iterdir())) == 20_000


async def test_stop_finishes_the_batch_in_hand_and_leaves_a_clean_tree(layout: Layout) -> None:
    settings = FAST.model_copy(update={"sync_interval_s": 300.0})
    async with ingest(layout, settings) as one:
        await one.send(created(n, f"n{n}", n % 3) for n in range(50))
        await one.until(lambda: one.pipeline.state.totals.messages > 0)
        await one.stop()
        done = one.pipeline.state.position
        rows = await one.rows()
        assert await one.ledger(one.ledger.ledger.dirty) == []
        position = await one.ledger(one.ledger.ledger.position, "s")
    assert position is not None
    assert position.offset == done
    assert done is not None
    assert set(rows) == {f"n{n}" for n in range(done + 1)}
    assert len(tree_of(layout)) == 2 * len(rows)


async def test_stop_with_nothing_to_do_ends_at_once(layout: Layout) -> None:
    async with ingest(layout) as one:
        await one.stop()


async def test_a_restart_goes_on_where_the_ledger_is_and_leaves_no_temporary_file(layout: Layout) -> None:
    messages = [created(n, f"n{n}", n % 3) for n in range(40)]
    async with ingest(layout) as one:
        await one.send(messages)
        await one.until(lambda: one.pipeline.state.totals.messages > 0)
        await one.stop()
        done = one.pipeline.state.position
    assert done is not None
    async with ingest(layout) as one:
        await one.send(messages[done + 1 :])
        await one.until(lambda: len(tree_of(layout)) == 80)
        await one.stop()
    assert debris_of(layout) == []


async def test_recovery_leaves_no_temporary_file_of_a_killed_process(layout: Layout) -> None:
    for directory in (layout.quarantine, layout.state, layout.incoming):
        (directory / ".7.json.4242.tmp").write_bytes(b"half of it")
    async with ingest(layout) as one:
        await one.stop()
    assert debris_of(layout) == []


async def test_marks_are_cleared_while_it_works(layout: Layout) -> None:
    async with ingest(layout) as one:
        await one.send([created(1)])
        await one.until_at(1)
        async with asyncio.timeout(30):
            while marked := await one.ledger(one.ledger.ledger.dirty):
                assert [row.name for row in marked] == ["a"]
                await asyncio.sleep(0.01)
        assert (await one.rows())["a"].staged is None


async def test_recovery_places_what_a_crash_left_and_knows_the_counts(layout: Layout) -> None:
    async with ingest(layout) as one:
        await one.send([created(1), created(2, "b"), RawMessage(3, b"bad")])
        await one.until_at(3)
        await one.stop()
    ledger = Ledger(layout.ledger)
    (before,) = ledger.annotations(["a"]).values()
    moved = before._replace(home=Home.VALIDATED, dirty=4)
    ledger.commit_batch("s", Position(4, b"d"), [moved])
    ledger.close()
    async with ingest(layout) as one:
        assert one.pipeline.state.counts == {Home.SEED: 1, Home.VALIDATED: 1, Home.DELETED: 0}
        assert one.pipeline.state.quarantined == 1
    assert layout.image(Home.VALIDATED, "a", "jpg").read_bytes() == picture(0)


async def test_a_bad_message_is_kept_counted_and_passed(layout: Layout) -> None:
    async with ingest(layout) as one:
        await one.send([created(1), RawMessage(2, b"bad"), created(3, "b", 1)])
        await one.until_at(3)
        assert one.pipeline.state.quarantined == 1
        assert set(await one.rows()) == {"a", "b"}
    assert (layout.quarantine / "2.amqp").read_bytes() == b"bad"


async def test_the_tree_stands_still_while_asked_to(layout: Layout) -> None:
    async with ingest(layout) as one:
        async with one.pipeline.still():
            before = tree_of(layout)
            await one.send([created(1)])
            await one.until(lambda: len(one.inbox) == 0)
            await asyncio.sleep(0.1)
            assert one.pipeline.state.position is None
            assert tree_of(layout) == before
        await one.until_at(1)


async def test_memory_is_bounded_by_the_inbox_while_writing_is_held(layout: Layout) -> None:
    async with ingest(layout, FAST.model_copy(update={"batch_messages": 1})) as one:
        one.inbox._max_bytes = 10_000
        async with one.pipeline.still():
            sending = asyncio.create_task(one.send(created(n, f"n{n}") for n in range(50)))
            await one.until(lambda: one.inbox.bytes > 6_000)
            assert not sending.done()
            assert one.inbox.bytes <= 10_000
        await sending
        await one.until_at(49)


class Failing(Ledger):
    """Raises an error for so many commits, then works."""

    error: StorageError = DiskFullError("recording a batch: no space. Free some space.")
    times = 1

    def commit_batch(
        self,
        stream: str,
        position: Position | None,
        changed: Collection[Annotation],
        audit: Iterable[AuditEntry] = (),
        *,
        moved: Collection[Annotation] = (),
    ) -> None:
        if type(self).times:
            type(self).times -= 1
            raise self.error
        super().commit_batch(stream, position, changed, audit, moved=moved)


async def test_a_full_disk_is_waited_out_and_then_it_goes_on(layout: Layout) -> None:
    class Full(Failing):
        times = 1

    async with ingest(layout, ledger=Full) as one:
        await one.send([created(1), created(2, "b", 1)])
        await one.until(lambda: one.pipeline.space.paused is not None)
        assert "no space" in (one.pipeline.space.paused or "")
        await one.until_at(2)
        assert one.pipeline.space.paused is None
        await one.stop()
    assert len(tree_of(layout)) == 4
    assert debris_of(layout) == []


async def test_a_full_disk_does_not_hold_up_a_stop_and_loses_nothing(layout: Layout) -> None:
    class AlwaysFull(Failing):
        times = 1_000_000

    async with ingest(layout, ledger=AlwaysFull) as one:
        await one.send([created(1)])
        await one.until(lambda: one.pipeline.space.paused is not None)
        one.pipeline.stop()
        async with asyncio.timeout(10):
            await one.task  # type: ignore[misc]
    async with ingest(layout) as one:
        await one.send([created(1)])
        await one.until_at(1)
    assert len(tree_of(layout)) == 2


async def test_a_failed_disk_does_not_hide_behind_a_full_one(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(_: Stager, messages: Sequence[RawMessage], __: IngestSettings) -> list[StagedMessage]:
        raise DiskFullError("no space") if messages[0].offset == 1 else StorageError("the disk")

    monkeypatch.setattr(Stager, "stage", stage)
    async with ingest(layout, FAST.model_copy(update={"batch_delay_s": 1.0})) as one:
        await one.send([created(1), created(2, "b", 1)])
        await ended_by_storage_error(one)


async def test_a_full_disk_is_waited_out_while_recovering(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.ingest.space._POLL_S", 0.01)
    recover, tries = Writer.recover, 0

    def full_at_first(writer: Writer) -> tuple[int, list[str]]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise DiskFullError("no space")
        return recover(writer)

    monkeypatch.setattr(Writer, "recover", full_at_first)
    async with ingest(layout) as one:
        await one.stop()
    assert tries == 3


async def test_a_replay_that_is_cut_short_by_a_stop_is_finished_by_the_next_start(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FAST.model_copy(update={"sync_interval_s": 300.0})
    odd = created(1, "odd", 2, extension="jfif")
    async with ingest(layout, settings) as one:
        await one.send([odd, created(2, "b", 1)])
        await one.until_at(2)
        one.pipeline._settings = settings.model_copy(update={"image_extensions": ("jpg", "jfif")})
        committed, place = asyncio.Event(), one.pipeline._place

        async def placing_takes_long(*arguments: Any) -> None:
            committed.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(one.pipeline, "_place", placing_takes_long)
        replaying = asyncio.create_task(one.pipeline.replay(1, as_new=False))
        async with asyncio.timeout(10):
            await committed.wait()
        replaying.cancel()
        await asyncio.wait([replaying])
        monkeypatch.setattr(one.pipeline, "_place", place)
        await one.stop()
        assert [row.name for row in await one.ledger(one.ledger.ledger.dirty)] == ["b", "odd"]
    async with ingest(layout) as one:
        await one.stop()
    assert tree_of(layout)["data-seed/images/odd.jfif"] == picture(2)
    assert debris_of(layout) == []


async def test_a_message_whose_annotation_was_deleted_meanwhile_is_applied_only_as_new(layout: Layout) -> None:
    async with ingest(layout) as one:
        await one.send([created(1, "odd", 2, extension="jfif"), bulk(2, Status.DELETED, ["odd"])])
        await one.until_at(2)
        one.pipeline._settings = FAST.model_copy(update={"image_extensions": ("jpg", "jfif")})
        assert "since then it was deleted" in (await one.pipeline.replay(1, as_new=False))["odd"]
        assert tree_of(layout) == {}
        assert await one.pipeline.replay(1, as_new=True) == {}
        assert set(tree_of(layout)) == {"data-seed/images/odd.jfif", "data-seed/labels/odd.txt"}
        await one.stop()


async def test_what_a_crash_left_in_the_quarantine_is_counted_once(layout: Layout) -> None:
    async with ingest(layout) as one:
        await asyncio.to_thread(one.pipeline._stager.stage, [RawMessage(1, b"bad")], FAST)
    async with ingest(layout) as one:
        await one.send([RawMessage(1, b"bad"), RawMessage(2, b"worse")])
        await one.until_at(2)
        await one.until(lambda: one.pipeline.state.quarantined == 2)
        await one.stop()
        assert one.pipeline.state.quarantined == 2


async def test_too_little_free_space_pauses_and_takes_no_message(layout: Layout) -> None:
    async with ingest(layout, FAST.model_copy(update={"min_free_disk": 1 << 62})) as one:
        await one.send([created(1)])
        await one.until(lambda: one.pipeline.space.paused is not None)
        assert re.fullmatch(rf"[\d.]+ [KMGT]iB are free below {layout.root}, less than the 4.0 EiB of .*", one.pipeline.space.paused or "")
        assert one.pipeline.state.position is None
        assert tree_of(layout) == {}


async def test_an_error_of_the_ledgers_disk_ends_it(layout: Layout) -> None:
    class Broken(Failing):
        times = 1
        error = StorageError("recording a batch: disk I/O error")

    async with ingest(layout, ledger=Broken) as one:
        await one.send([created(1)])
        await ended_by_storage_error(one)


@pytest.mark.parametrize("directory", ["data-seed/labels", "data-seed/images", "state/incoming"])
async def test_a_tree_that_cannot_be_written_ends_it(layout: Layout, directory: str) -> None:
    async with ingest(layout) as one:
        broken = layout.root / directory
        broken.rmdir()
        broken.write_text("in the way")
        await one.send([created(1)])
        await ended_by_storage_error(one)
        broken.unlink()
        broken.mkdir()
    async with ingest(layout) as one:
        if one.pipeline.state.counts[Home.SEED] == 0:
            await one.send([created(1)])
            await one.until_at(1)
        await one.stop()
    assert len(tree_of(layout)) == 2


async def test_a_quarantine_that_cannot_be_written_ends_it_rather_than_skip(layout: Layout) -> None:
    async with ingest(layout) as one:
        layout.quarantine.rmdir()
        layout.quarantine.write_text("in the way")
        await one.send([RawMessage(1, b"bad"), created(2)])
        await ended_by_storage_error(one)
        assert await one.ledger(one.ledger.ledger.position, "s") is None


async def ended_by_storage_error(one: Ingest) -> None:
    assert one.task is not None
    async with asyncio.timeout(20):
        with pytest.raises(BaseExceptionGroup) as caught:
            await one.task
    assert caught.group_contains(StorageError)
    assert not caught.group_contains(DiskFullError)


# Other settings while it works


async def test_other_limits_of_a_batch_hold_from_the_next_one_on_also_where_it_was_waited_for(layout: Layout) -> None:
    async with ingest(layout, FAST.model_copy(update={"batch_messages": 1})) as one:
        await one.send([created(1, "a")])
        await one.until_at(1)  # and now it waits for a message
        batches: list[int] = []
        stage = one.pipeline._stager.stage

        def counting(messages: Sequence[RawMessage], settings: IngestSettings) -> list[StagedMessage]:
            batches.append(len(messages))
            return stage(messages, settings)

        one.pipeline._stager.stage = counting  # type: ignore[method-assign]
        one.pipeline.reconfigure(FAST.model_copy(update={"batch_messages": 4, "batch_delay_s": 10, "threads": 1}))
        await one.send(created(number, f"n{number}") for number in range(2, 10))
        await one.until_at(9)
    assert batches == [4, 4]


async def test_the_tree_is_synced_by_another_interval_at_once(layout: Layout) -> None:
    async with ingest(layout, FAST.model_copy(update={"sync_interval_s": 300})) as one:
        await one.send([created(1, "a")])
        await one.until_at(1)
        assert await one.ledger(one.ledger.ledger.dirty) != []
        one.pipeline.reconfigure(FAST)
        await one.until(lambda: one.pipeline._placed_to is None)
        assert await one.ledger(one.ledger.ledger.dirty) == []


async def test_a_lower_limit_of_free_disk_ends_the_pause_and_no_message_is_lost(layout: Layout) -> None:
    async with ingest(layout, FAST.model_copy(update={"min_free_disk": 1 << 60})) as one:
        await one.send([created(1, "a"), created(2, "b")])
        await one.until(lambda: one.pipeline.space.paused is not None)
        one.pipeline.reconfigure(FAST)
        await one.until_at(2)
        assert one.pipeline.space.paused is None
        assert (await one.rows()).keys() == {"a", "b"}


async def test_other_images_are_believed_from_the_next_batch_on(layout: Layout) -> None:
    async with ingest(layout) as one:
        await one.send([created(1, "a")])
        await one.until_at(1)
        one.pipeline.reconfigure(FAST.model_copy(update={"image_extensions": ("png",)}))
        await one.send([created(2, "b"), created(3, "c", extension="png")])
        await one.until_at(3)
        one.pipeline.reconfigure(FAST.model_copy(update={"max_image_pixels": 1}))
        await one.send([created(4, "d")])
        await one.until_at(4)
        assert (await one.rows()).keys() == {"a", "c"}
        assert one.pipeline.state.quarantined == 2
