"""How a batch is divided, how fast ingest is, and when it waits for space."""

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from azaion_daemon.errors import DiskFullError, StorageError
from azaion_daemon.ingest.space import Space
from azaion_daemon.ingest.staging import StagedMessage, in_portions
from azaion_daemon.ingest.state import IngestState, Rate
from azaion_daemon.ingest.writer import Plan
from azaion_daemon.store.layout import Home
from azaion_daemon.stream.events import BulkEvent, Decoded, Status
from tests.unit.builders import event


def single(position: int) -> StagedMessage:
    return StagedMessage(Decoded(position, b"d", event(position=position), None), None, 10)


def bulk_of(position: int, names: int, rejection: str | None = None) -> StagedMessage:
    names_ = tuple(f"n{number}" for number in range(names))
    return StagedMessage(Decoded(position, b"d", BulkEvent(position, b"d", Status.VALIDATED, names_, ""), rejection), None, 100)


def divided(*messages: StagedMessage, max_names: int = 4) -> list[list[tuple[int, int, bool]]]:
    """The portions, each message as its position, how many names it has, and whether it is complete."""

    def names(message: StagedMessage) -> int:
        return len(message.decoded.event.names) if isinstance(message.decoded.event, BulkEvent) else 1

    portions = in_portions(messages, max_names=max_names)
    return [[(message.decoded.position, names(message), message.complete) for message in portion] for portion in portions]


def test_a_small_batch_is_one_portion() -> None:
    assert divided(single(1), bulk_of(2, 2), single(3)) == [[(1, 1, True), (2, 2, True), (3, 1, True)]]


def test_messages_are_kept_whole_where_they_fit() -> None:
    assert divided(single(1), bulk_of(2, 4), single(3)) == [[(1, 1, True)], [(2, 4, True)], [(3, 1, True)]]


def test_a_long_message_is_divided_and_only_its_last_part_is_complete() -> None:
    parts = divided(single(1), bulk_of(2, 9), single(3))
    assert parts == [[(1, 1, True)], [(2, 4, False)], [(2, 4, False)], [(2, 1, True), (3, 1, True)]]


def test_nothing_is_nothing() -> None:
    assert divided() == []


def test_parts_have_every_name_once_and_the_bytes_once() -> None:
    portions = list(in_portions([bulk_of(1, 10, "one more was bad")], max_names=3))
    names = [name for (part,) in portions if isinstance(part.decoded.event, BulkEvent) for name in part.decoded.event.names]
    assert names == [f"n{number}" for number in range(10)]
    assert sum(part.bytes for (part,) in portions) == 100


def test_a_rate_is_of_the_last_ten_seconds() -> None:
    now = 100.0
    rate = Rate(lambda: now)
    now = 105.0
    rate.add(50, 5000)
    assert rate.now() == (10.0, 1000.0)
    now = 112.0
    rate.add(10, 100)
    assert rate.now() == (6.0, 510.0)
    now = 130.0
    assert rate.now() == (0.0, 0.0)


async def test_a_step_without_room_is_repeated_until_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.ingest.space._POLL_S", 0.01)
    space = Space(tmp_path)
    tries = 0

    async def step() -> str:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise DiskFullError("no room")
        return "done"

    assert await space.repeat(step) == "done"
    assert (tries, space.paused) == (4, None)


async def test_a_step_that_fails_otherwise_fails_at_once(tmp_path: Path) -> None:
    async def step() -> None:
        raise StorageError("the disk")

    with pytest.raises(StorageError):
        await Space(tmp_path).repeat(step)


async def test_it_is_paused_while_any_step_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.ingest.space._POLL_S", 0.01)
    space = Space(tmp_path)
    room: set[str] = set()

    async def step(name: str) -> None:
        if name not in room:
            raise DiskFullError(name)

    waiting = {name: asyncio.create_task(space.repeat(lambda name=name: step(name))) for name in ("a", "b")}  # type: ignore[misc]
    async with asyncio.timeout(10):
        while space.paused is None:  # noqa: ASYNC110 - only the status asks for it
            await asyncio.sleep(0.001)
        room.add("a")
        await waiting["a"]
        assert space.paused == "b"
        room.add("b")
        await waiting["b"]
    assert space.paused is None


async def test_after_giving_up_a_step_without_room_fails(tmp_path: Path) -> None:
    async def step() -> None:
        raise DiskFullError("no room")

    space = Space(tmp_path)
    space.give_up()
    with pytest.raises(DiskFullError):
        await space.repeat(step)


def quarantined(position: int, why: str) -> StagedMessage:
    return StagedMessage(Decoded(position, b"d", None, why), None, 10)


def said_of(batches: Iterable[list[StagedMessage]]) -> list[EventDict]:
    state = IngestState(dict.fromkeys(Home, 0))
    with capture_logs() as logs:
        for batch in batches:
            state.batch_done(batch, Plan(), seconds=0.1)
    return [entry for entry in logs if entry["event"] != "ingest.batch"]


def test_a_producer_gone_mad_does_not_bury_the_log() -> None:
    batches = [[quarantined(number * 200 + one, f"the name 'x{one}' is {one} bytes long") for one in range(200)] for number in range(50)]
    said = said_of(batches)
    assert [(entry["position"], entry["count"], entry["repeated"]) for entry in said] == [
        (0, 200, 200),
        (200, 200, 400),
        (600, 200, 800),
        (1400, 200, 1600),
        (3000, 200, 3200),
        (6200, 200, 6400),
    ]


def test_another_reason_for_the_quarantine_is_said_among_many_of_one() -> None:
    flood = [[quarantined(number, "no map")] * 100 for number in range(20)]
    said = said_of([*flood, [quarantined(1, "no map"), quarantined(2, "no image")]])
    assert [entry["why"] for entry in said][-1] == "no image"


def test_of_ever_new_reasons_a_few_are_said_and_the_rest_counted() -> None:
    letters = [quarantined(number, f"reason {chr(97 + number)}") for number in range(20)]
    said = said_of([letters])
    assert len(said) == 6
    assert sum(entry["count"] for entry in said) == 20


def test_unknown_roles_are_said_once_each_and_not_for_ever() -> None:
    def of_role(role: int) -> StagedMessage:
        return StagedMessage(Decoded(role, b"d", event(position=role, role=role), None), None, 10)

    said = said_of([[of_role(15), of_role(16), of_role(15)], [of_role(15)], [of_role(17)]])
    assert [(entry["roles"], entry["position"]) for entry in said] == [([15, 16], 15), ([17], 17)]
    assert len(said_of([of_role(role)] for role in range(10_000, 20_000))) == 100


async def test_a_disk_on_the_edge_does_not_bury_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.ingest.space._POLL_S", 0.001)
    space = Space(tmp_path)
    with capture_logs() as logs:
        for _ in range(20):
            full = iter([DiskFullError("no space left for ledger.db")])

            async def step(full: Iterator[DiskFullError] = full) -> None:
                for error in full:
                    raise error

            await space.repeat(step)
    said = [(entry["event"], entry.get("repeated")) for entry in logs]
    assert said == [(event, times) for number in (1, 2, 4, 8, 16) for event, times in (("ingest.paused", number), ("ingest.resumed", None))]
