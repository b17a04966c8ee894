"""Releases that wait: for whom, for how long, and what newer ones do to them. The publisher is a double; the ledger is real."""

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from azaion_daemon.errors import DiskFullError, OutsideError, StorageError
from azaion_daemon.outbox import BeforeSwap, Outbox, Tries, pause_after_start_s, pause_s, settled, shown
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.manifesting import SerialUsedError
from azaion_daemon.publish.platform import LoginRefusedError, PlatformError
from azaion_daemon.publish.record import Published
from azaion_daemon.sections import PublishSettings
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Job, Model, Release
from azaion_daemon.training.states import JobState

SETTINGS = PublishSettings(model_key=SecretStr("key"))
NOON = 1_790_000_000.0


def published(serial: int, sha256: str) -> Published:
    return Published(serial, sha256, "p", "c", 1, 1, "downloaded", datetime(2026, 4, 1, tzinfo=UTC))


class Scripted:
    """A publisher that fails as it is told, and waits where it is told."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.calls: list[int] = []
        self.done: list[int] = []
        self.begun, self.may_swap, self.swapping, self.may_end = (asyncio.Event() for _ in range(4))
        self.may_swap.set()
        self.may_end.set()
        self.tidying: list[str] = []
        self.may_tidy = asyncio.Event()
        self.may_tidy.set()

    async def publish(self, model: Path, serial: int, facts: ReleaseFacts, *, sha256: str, before_swap: BeforeSwap) -> Published:
        self.calls.append(serial)
        self.begun.set()
        await self.may_swap.wait()
        if self.failures:
            raise self.failures.pop(0)
        await before_swap()
        self.swapping.set()
        await self.may_end.wait()
        self.done.append(serial)
        return published(serial, sha256)

    async def abort_uploads(self) -> None:
        self.tidying.append("begun")
        await self.may_tidy.wait()
        self.tidying.append("done")


class Site:
    def __init__(self, root: Path) -> None:
        Ledger.create(root / "ledger.db")
        self.now = NOON
        self.ledger = LedgerThread(Ledger(root / "ledger.db", clock=lambda: self.now))
        self.publisher = Scripted()
        self.outbox = self.new_outbox()

    def new_outbox(self, settings: PublishSettings = SETTINGS) -> Outbox:
        return Outbox(
            settings, self.ledger, self.publisher, facts=lambda _: ReleaseFacts(), clock=lambda: self.now, chance=random.Random(1)
        )

    async def trained(self, name: str) -> str:
        """A job whose model is accepted and ordered."""
        sha256, ledger = name * 64, self.ledger.ledger
        await self.ledger(ledger.put_job, Job(name, JobState.RELEASING, "because", self.now, self.now, judged=True))
        await self.ledger(ledger.put_current_model, Model(sha256, name, None, {}, f"/{name}.onnx", current=True, created=self.now))
        await self.outbox.order(sha256)
        self.now += 1
        return sha256

    async def releases(self) -> list[tuple[int, str]]:
        return [(release.serial, release.state) for release in await self.ledger(self.ledger.ledger.releases)]

    async def newest(self) -> Release:
        return (await self.ledger(self.ledger.ledger.releases))[-1]

    async def job(self, name: str) -> Job:
        return next(job for job in await self.ledger(self.ledger.ledger.jobs) if job.id == name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        task: asyncio.Task[None] = asyncio.ensure_future(self.outbox.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - the double has no event for everything
                await asyncio.sleep(0.01)

    async def until_why(self, why: str) -> Release:
        async with asyncio.timeout(20):
            while why not in ((release := await self.newest()).why or ""):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return release

    async def until_job(self, name: str, state: JobState) -> None:
        async with asyncio.timeout(20):
            while (await self.job(name)).state != state:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    made.ledger.close()


async def test_a_model_whose_last_release_was_given_up_is_ordered_again(site: Site) -> None:
    """As an index rebuild finds it, of a model that is not the current one."""
    site.ledger.ledger.serials.restore([Release(7, "a" * 64, "superseded", NOON, NOON)])
    await site.trained("a")
    await site.outbox.order("a" * 64)
    assert await site.releases() == [(7, "superseded"), (8, "waiting")]


async def test_what_is_ordered_is_published_and_its_job_released(site: Site) -> None:
    await site.trained("a")
    async with site.running():
        await site.until(lambda: site.publisher.done)
        await site.until_job("a", JobState.RELEASED)
    assert await site.releases() == [(1, "published")]
    assert (site.outbox.published, site.outbox.failures) == (1, 0)


async def test_what_a_killed_run_was_uploading_is_aborted_once_at_the_start_when_no_release_waits(site: Site) -> None:
    async with site.running():
        await site.until(lambda: site.publisher.tidying == ["begun", "done"])
        await site.trained("a")
        await site.until(lambda: site.publisher.done)
        await site.until_job("a", JobState.RELEASED)
    assert site.publisher.tidying == ["begun", "done"]


async def test_a_release_that_waits_at_the_start_aborts_them_itself(site: Site) -> None:
    await site.trained("a")
    async with site.running():
        await site.until(lambda: site.publisher.done)
        await site.until_job("a", JobState.RELEASED)
    assert site.publisher.tidying == []


async def test_a_release_without_a_model_key_does_not_keep_them(site: Site) -> None:
    site.outbox = site.new_outbox(PublishSettings())
    await site.trained("a")
    async with site.running():
        await site.until(lambda: site.publisher.tidying == ["begun", "done"])
        await site.until_why("AZAION_MODEL_KEY")


async def test_an_order_does_not_wait_for_aborting_what_is_left(site: Site) -> None:
    site.publisher.may_tidy.clear()
    async with site.running():
        await site.until(lambda: site.publisher.tidying == ["begun"])
        await site.trained("a")
        await site.until(lambda: site.publisher.done)
    assert site.publisher.tidying == ["begun"]


async def test_a_failure_says_why_how_often_and_when_again(site: Site) -> None:
    site.publisher.failures = [OutsideError("the store is away")]
    await site.trained("a")
    async with site.running():
        release = await site.until_why("the store is away")
    tries = Tries.of(release)
    assert tries.attempts == 1
    assert tries.next_try is not None
    assert 2 < tries.next_try - NOON < 7
    assert shown(release, None)["next_try"] == tries.next_try
    assert (site.outbox.published, site.outbox.failures) == (0, 1)


async def test_the_pause_is_no_shorter_than_the_platform_asks_for(site: Site) -> None:
    site.publisher.failures = [PlatformError("busy", retry_after_s=5000)]
    await site.trained("a")
    async with site.running():
        release = await site.until_why("busy")
    assert (Tries.of(release).next_try or 0) >= NOON + 5000


async def test_a_restart_goes_on_counting_and_does_not_try_at_once(site: Site) -> None:
    site.publisher.failures = [OutsideError("away")]
    await site.trained("a")
    async with site.running():
        await site.until_why("away")
    site.outbox = site.new_outbox()
    async with site.running():
        await asyncio.sleep(0.2)
        assert site.publisher.calls == [1]
        site.publisher.failures = [OutsideError("still away")]
        site.outbox.reconfigure(SETTINGS)  # an operator asks
        release = await site.until_why("still away")
    assert Tries.of(release).attempts == 2


async def test_a_refused_login_waits_for_an_operator(site: Site) -> None:
    site.publisher.failures = [LoginRefusedError("wrong password")]
    await site.trained("a")
    async with site.running():
        release = await site.until_why("wrong password")
        assert Tries.of(release).next_try is None
        site.outbox.reconfigure(SETTINGS)
        await site.until(lambda: site.publisher.done)
    assert site.publisher.calls == [1, 1]


async def test_a_reload_during_an_attempt_that_is_refused_for_what_was_before_has_it_tried_again_at_once(site: Site) -> None:
    site.publisher.may_swap.clear()
    site.publisher.failures = [LoginRefusedError("the old password")]
    await site.trained("a")
    async with site.running():
        await site.publisher.begun.wait()
        site.outbox.reconfigure(SETTINGS)  # the credentials are not its own
        await asyncio.sleep(0.1)  # it is heard while the attempt goes on
        site.publisher.may_swap.set()
        await site.until(lambda: site.publisher.done)
    assert site.publisher.calls == [1, 1]


async def test_without_a_model_key_it_waits_and_a_reload_brings_one(site: Site) -> None:
    site.outbox = site.new_outbox(PublishSettings())
    await site.trained("a")
    async with site.running():
        await site.until_why("AZAION_MODEL_KEY")
        assert site.publisher.calls == []
        site.outbox.reconfigure(SETTINGS)
        await site.until(lambda: site.publisher.done)


async def test_a_newer_release_takes_the_place_of_one_that_waits_and_its_job_says_so(site: Site) -> None:
    site.publisher.failures = [OutsideError("away")]
    await site.trained("a")
    async with site.running():
        await site.until_why("away")
        await site.trained("b")
        await site.until_job("b", JobState.RELEASED)
    assert (site.publisher.done, await site.releases()) == ([2], [(1, "superseded"), (2, "published")])
    job = await site.job("a")
    assert (job.state, job.why) == (JobState.CANCELLED, "release 1 of it was superseded by 2 before it was published")


async def test_a_newer_release_ends_an_attempt_that_consumers_see_nothing_of(site: Site) -> None:
    site.publisher.may_swap.clear()
    await site.trained("a")
    async with site.running():
        await site.publisher.begun.wait()
        await site.trained("b")
        await site.until(lambda: 2 in site.publisher.calls)
        site.publisher.may_swap.set()
        await site.until(lambda: site.publisher.done)
    assert site.publisher.done == [2]


async def test_an_attempt_that_fails_while_it_is_given_up_is_no_stray_error(site: Site) -> None:
    async def fail(*_: object, **__: object) -> Published:
        site.publisher.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OutsideError("the store is away just now") from None
        raise AssertionError

    strays: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))
    site.publisher.publish = fail  # type: ignore[method-assign]
    await site.trained("a")
    async with site.running():
        await site.publisher.begun.wait()
    gc.collect()
    await asyncio.sleep(0)
    assert strays == []


async def test_an_attempt_that_is_being_swapped_in_is_finished_before_the_newer_one_begins(site: Site) -> None:
    site.publisher.may_end.clear()
    await site.trained("a")
    async with site.running():
        await site.publisher.swapping.wait()
        await site.trained("b")
        await asyncio.sleep(0.1)
        assert site.publisher.calls == [1]
        site.publisher.may_end.set()
        await site.until(lambda: len(site.publisher.done) == 2)
        await site.until_job("b", JobState.RELEASED)
    assert site.publisher.done == [1, 2]
    assert (await site.job("a")).state == JobState.RELEASED
    assert (await site.releases())[0] == (1, "published")


async def test_a_failure_of_one_that_was_superseded_meanwhile_does_not_bring_it_back(site: Site) -> None:
    await site.trained("a")
    await site.trained("b")
    assert not await site.ledger(site.ledger.ledger.postpone_release, 1, "away", details={})
    assert await site.releases() == [(1, "superseded"), (2, "waiting")]


async def test_other_settings_begin_an_attempt_anew(site: Site) -> None:
    site.publisher.may_swap.clear()
    await site.trained("a")
    async with site.running():
        await site.publisher.begun.wait()
        site.outbox.reconfigure(PublishSettings(model_key=SecretStr("rotated")))
        await site.until(lambda: len(site.publisher.calls) == 2)
        site.publisher.may_swap.set()
        await site.until(lambda: site.publisher.done)


async def test_why_a_release_waits_is_said_at_once_when_it_changes_and_else_ever_more_rarely(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azaion_daemon.outbox.pause_s", lambda *_: 0.0)
    away, refused = OutsideError("away"), OutsideError("refused")
    site.publisher.failures = [away, away, away, refused, away]
    await site.trained("a")
    with capture_logs() as logs:
        async with site.running():
            await site.until(lambda: site.publisher.done)
    told = [(entry["why"], entry["repeated"]) for entry in logs if entry["event"] == "release.waiting"]
    assert told == [("away", 1), ("away", 2), ("refused", 1), ("away", 4)]


async def test_a_serial_that_was_published_before_is_raised(site: Site) -> None:
    site.publisher.failures = [SerialUsedError(1, 7, "the object store has 7")]
    await site.trained("a")
    async with site.running():
        await site.until(lambda: site.publisher.done)
    assert site.publisher.done == [8]


async def test_a_disk_that_fails_ends_the_daemon_and_a_full_one_does_not(site: Site) -> None:
    site.publisher.failures = [DiskFullError("no space")]
    await site.trained("a")
    async with site.running() as task:
        await site.until_why("no space")
        site.publisher.failures = [StorageError("an I/O error")]
        site.outbox.reconfigure(SETTINGS)
        await site.until(task.done)
    assert isinstance(task.exception(), StorageError)


async def test_a_model_that_the_ledger_lost_waits_with_a_word(site: Site) -> None:
    async with site.running():
        await site.outbox.order("f" * 64)
        await site.until_why("not in the ledger")


async def test_the_same_reason_again_is_one_audit_entry(site: Site) -> None:
    await site.trained("a")
    postpone = site.ledger.ledger.postpone_release
    for attempts in range(3):
        assert await site.ledger(postpone, 1, "away", details={"attempts": attempts, "next_try": None})
    count = "SELECT count(*) FROM audit WHERE subject='release 1' AND why='away'"
    assert site.ledger.ledger._db.execute(count).fetchone() == (1,)


def test_pauses_grow_to_an_hour() -> None:
    chance = random.Random(1)
    for attempts in range(1, 2000, 7):
        most = min(5 * 2.0 ** min(attempts - 1, 16), 3600)
        assert most / 2 <= pause_s(attempts, 0, chance) <= most


@pytest.mark.parametrize(("next_try", "expected"), [(None, 0), (NOON - 5, 0), (NOON + 5, 5), (NOON + 1e9, 60)])
def test_after_a_start_a_pause_is_kept_but_never_a_long_one(next_try: float | None, expected: float) -> None:
    assert pause_after_start_s(Tries(3, next_try), NOON) == expected


def test_a_job_that_was_published_before_its_state_was_recorded_is_released_later() -> None:
    job = Job("a", JobState.RELEASING, "because", 1, 1)
    models = [Model("f", "a", None, {}, "/a.onnx", current=True, created=1)]
    releases = [Release(1, "f", "published", 1, 1), Release(2, "f", "superseded", 1, 1), Release(3, "e", "waiting", 1, 1)]
    assert [one.state for one in settled([job], models, releases, 5)] == [JobState.RELEASED]
    assert settled([job], models, [Release(1, "f", "waiting", 1, 1)], 5) == []
    assert settled([job], models, [], 5) == []


def test_two_jobs_that_made_the_same_model_are_released_with_it() -> None:
    result = {"onnx": {"sha256": "f"}}
    jobs = [Job(name, JobState.RELEASING, "because", 1, 1, result=result) for name in ("a", "b")]
    models = [Model("f", "a", None, {}, "/a.onnx", current=True, created=1)]
    assert [one.id for one in settled(jobs, models, [Release(1, "f", "published", 1, 1)], 5)] == ["a", "b"]


async def test_what_was_superseded_last_is_ordered_anew(site: Site) -> None:
    ledger = site.ledger.ledger
    await site.ledger(ledger.serials.restore, [Release(7, "a" * 64, "superseded", 1, 1)])  # as after index rebuild
    await site.outbox.order("a" * 64)
    assert await site.releases() == [(7, "superseded"), (8, "waiting")]
