"""A part that works must get on; one that waits for something with a name may take its time; systemd hears of the first kind by silence."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from azaion_daemon.health import Ailing, Health, Sign, Vitals, beat, holding, judge, strand, waiting_for, working
from azaion_daemon.notify import Notifier
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.watchdog import INTERVAL_S, Watchdog, patience
from tests.manager import Manager
from tests.unit.builders import make_root


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vitals(clock: Clock) -> Vitals:
    return Vitals(clock=clock)


def at(vitals: Vitals) -> dict[str, str]:
    return {part: one["what"] for part, one in vitals.document()["parts"].items()}


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_takes_longer_than_it_may_is_ailing() -> None:
    signs = [
        Sign("write", "working", since=0.0, limit_s=600),
        Sign("consume", "waiting for messages", since=0.0, limit_s=None),
        Sign("keep", "working", since=100.0, limit_s=600),
        Sign("answer", "waiting for a lock", since=0.0, limit_s=3600),
    ]
    assert judge(signs, 600.0) == Health()
    assert judge(signs, 700.5) == Health((Ailing("write", "working", 700.5), Ailing("keep", "working", 600.5)))
    assert [one.part for one in judge(signs, 1e6).ailing] == ["write", "keep", "answer"]


async def test_a_part_that_says_nothing_is_found(vitals: Vitals, clock: Clock) -> None:
    forgotten = asyncio.Event()
    task = asyncio.create_task(vitals.watched("keep", forgotten.wait(), limit_s=60))
    await turn()
    clock.now += 61
    assert vitals.judged().ailing == (Ailing("keep", "working", 61.0),)
    forgotten.set()
    await task
    assert (vitals.judged(), at(vitals)) == (Health(), {})


async def test_a_wait_with_a_name_takes_as_long_as_it_takes_and_the_work_after_it_has_its_whole_time(vitals: Vitals, clock: Clock) -> None:
    messages, done = asyncio.Event(), asyncio.Event()

    async def part() -> None:
        with waiting_for("messages"):
            await messages.wait()
        await done.wait()

    task = asyncio.create_task(vitals.watched("consume", part(), limit_s=60))
    await turn()
    clock.now += 1e6
    assert (vitals.judged().ok, at(vitals)) == (True, {"consume": "waiting for messages"})
    messages.set()
    await turn()
    clock.now += 59
    assert (vitals.judged().ok, at(vitals)) == (True, {"consume": "working"})
    clock.now += 2
    assert not vitals.judged().ok
    done.set()
    await task


async def test_long_work_gets_on_by_its_steps_on_a_thread_too(vitals: Vitals, clock: Clock) -> None:
    def read_all_images() -> None:
        for _ in range(100):
            clock.now += 50
            beat()

    async def part() -> bool:
        with working("an index check"):
            await asyncio.to_thread(read_all_images)
            assert at(vitals) == {"answer": "an index check"}
            return vitals.judged().ok

    assert await vitals.watched("answer", part(), limit_s=60)


async def test_progress_beside_it_does_not_hide_a_step_that_hangs(vitals: Vitals, clock: Clock) -> None:
    async def stage() -> None:
        with strand("stage"):
            await asyncio.Event().wait()

    async def part() -> None:
        beside = asyncio.create_task(stage())
        for _ in range(20):
            await turn()
            clock.now += 10
            beat()
        assert vitals.judged().ailing == (Ailing("write: stage", "working", 200.0),)
        beside.cancel()

    await vitals.watched("write", part(), limit_s=60)


async def test_two_parts_that_wait_for_each_other_do_not_do_so_for_ever(vitals: Vitals, clock: Clock) -> None:
    tree, model = asyncio.Lock(), asyncio.Lock()

    async def takes(first: asyncio.Lock, second: asyncio.Lock) -> None:
        async with holding(first, "the first"):
            await turn()
            async with holding(second, "the second"):
                pass

    tasks = [asyncio.create_task(vitals.watched(name, takes(*locks))) for name, locks in (("a", (tree, model)), ("b", (model, tree)))]
    for _ in range(3):
        await turn()
    clock.now += 12 * 3600
    assert vitals.judged().ok
    clock.now += 13 * 3600
    assert {(one.part, one.what) for one in vitals.judged().ailing} == {("a", "waiting for the second"), ("b", "waiting for the second")}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not tree.locked()
    assert not model.locked()


async def test_where_nobody_is_watched_all_of_it_does_nothing() -> None:
    beat()
    with waiting_for("nothing"), strand("none"):
        await asyncio.sleep(0)


async def test_a_call_that_hangs_ails_the_ledger_not_whoever_waits_for_it(vitals: Vitals, clock: Clock, tmp_path: Path) -> None:
    layout = make_root(tmp_path / "azaion")
    ledger = LedgerThread(Ledger(layout.ledger), vitals.thread("ledger"))
    released, begun = threading.Event(), threading.Event()

    def commit_batch() -> None:
        begun.set()
        released.wait(30)

    task = asyncio.create_task(vitals.watched("write", ledger(commit_batch), limit_s=60))
    await asyncio.to_thread(begun.wait, 30)
    clock.now += 10_000
    assert at(vitals) == {"ledger": "commit_batch", "write": "waiting for the ledger"}
    assert vitals.judged().ailing == (Ailing("ledger", "commit_batch", 10_000.0),)
    released.set()
    await task
    clock.now += 10_000
    assert (vitals.judged().ok, at(vitals)) == (True, {"ledger": "waiting for calls"})
    ledger.close()


def test_the_limits_grow_and_shrink_with_the_interval_of_the_watchdog() -> None:
    assert patience(Notifier()) == 1.0
    assert patience(Notifier(watchdog_s=INTERVAL_S * 3)) == 3.0


# The watchdog


async def hanging(vitals: Vitals, part: str) -> Callable[[], None]:
    never = asyncio.Event()
    task = asyncio.create_task(vitals.watched(part, never.wait(), limit_s=600))
    await turn()

    def end() -> None:
        never.set()
        task.cancel()

    return end


def looks(watchdog: Watchdog, clock: Clock, seconds: float) -> list[bool]:
    """Look every 5 s for so long."""
    found = []
    for _ in range(round(seconds / 5)):
        clock.now += 5
        found.append(watchdog.look().ok)
    return found


async def test_what_ails_and_what_recovers_is_logged_once(vitals: Vitals, clock: Clock) -> None:
    watchdog = Watchdog(vitals, Notifier(), clock)
    end = await hanging(vitals, "keep")
    with capture_logs() as logs:
        assert all(looks(watchdog, clock, 600))
        assert not any(looks(watchdog, clock, 60))
        end()
        await turn()
        assert all(looks(watchdog, clock, 60))
    assert [(one["event"], one["part"], one["what"]) for one in logs] == [
        ("health.ailing", "keep", "working"),
        ("health.recovered", "keep", "working"),
    ]


async def test_after_the_whole_machine_stood_still_nobody_is_blamed_before_he_had_his_turn(vitals: Vitals, clock: Clock) -> None:
    watchdog = Watchdog(vitals, Notifier(), clock)
    end = await hanging(vitals, "keep")
    assert all(looks(watchdog, clock, 30))
    clock.now += 3600  # a suspended virtual machine
    assert watchdog.look().ok
    clock.now += 5
    assert not watchdog.look().ok  # one that still does not get on
    end()


async def test_pings_end_with_the_health_and_begin_again_with_it(tmp_path: Path) -> None:
    with Manager(str(tmp_path / "notify")) as manager:
        notifier = Notifier(manager.address, watchdog_s=0.06)
        clock = Clock()
        vitals = Vitals(clock=clock)
        task = asyncio.create_task(Watchdog(vitals, notifier).run())
        await asyncio.to_thread(manager.wait_for, lambda word: word == {"WATCHDOG": "1"}, after=3)
        end = await hanging(vitals, "keep")
        clock.now += 601
        await asyncio.sleep(0.2)  # what was on its way has come
        before = len(manager.words)
        await asyncio.sleep(0.3)
        assert len(manager.words) == before
        end()
        await asyncio.to_thread(manager.wait_for, lambda word: word == {"WATCHDOG": "1"}, after=before)
        task.cancel()


async def test_a_start_has_time_as_long_as_it_gets_on(tmp_path: Path) -> None:
    with Manager(str(tmp_path / "notify")) as manager:
        notifier = Notifier(manager.address, watchdog_s=0.06)
        clock = Clock()
        vitals = Vitals(clock=clock)
        async with Watchdog(vitals, notifier).starting():
            await asyncio.to_thread(manager.wait_for, lambda word: word == {"EXTEND_TIMEOUT_USEC": "60000000"}, after=2)
            end = await hanging(vitals, "recover")
            clock.now += 601
            await asyncio.sleep(0.2)
            before = len(manager.words)
            await asyncio.sleep(0.3)
            assert len(manager.words) == before
            end()
