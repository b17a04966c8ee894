"""Releases against a real object store and the platform's double: what consumers see, whatever fails on the way."""

import asyncio
import hashlib
import io
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Never

import pytest
from aiohttp import web
from blockbuster import BlockBuster
from pydantic import SecretStr

from azaion_daemon.errors import AzaionError, DiskFullError, OperatorError, OutsideError, ReleaseError
from azaion_daemon.outbox import Outbox
from azaion_daemon.publish.cdn import PARTS_IN_FLIGHT, CdnClient, CdnRefusedError, ClockError
from azaion_daemon.publish.credentials import CdnCredentials, parse_credentials
from azaion_daemon.publish.keys import aes_key
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import PADDING
from azaion_daemon.publish.parts import Parts
from azaion_daemon.publish.platform import LoginRefusedError
from azaion_daemon.publish.probe import IDENTICAL, OnnxProbe
from azaion_daemon.publish.record import RecordError, ReleaseRecords
from azaion_daemon.publish.release import ModelKeyMissingError, Publisher
from azaion_daemon.publish.uploads import Upload, UploadJournal
from azaion_daemon.sandbox import formulas
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.store.ledger import Ledger, LedgerThread
from tests.integration.publishing import MODEL_KEY, NO_PROBE, Front, World
from tests.unit.builders import make_root
from tests.unit.test_publish_packing import model as onnx_model


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("uploader_reads", [False, True], indirect=True)
@pytest.mark.parametrize("generation", ["old", "new"])
async def test_a_release_is_what_consumers_get(world: World, platform_api: PlatformApi, generation: str) -> None:
    platform_api.generation = generation  # type: ignore[assignment]
    model = world.model(1, size=20_000_000)  # several parts

    published = await world.publish(model, 1)

    assert await world.consumed() == model.read_bytes()
    small = platform_api.resource("models", f"{world.name}.small")
    big = await world.big()
    assert (published.small_size, published.big_size) == (len(small), len(big)) == (3072, len(big))
    assert published.model_sha256 == sha256(model.read_bytes())
    assert published.plaintext_sha256 == sha256(PADDING + model.read_bytes())
    assert published.ciphertext_sha256 == sha256(small + big)
    assert published.small_verified == {"old": "downloaded", "new": "listed"}[generation]
    versioned = PartNames.versioned(world.name, 1)
    assert await world.big(versioned.big) == big
    assert platform_api.resource("models", versioned.small) == small


def damage_first_read_after_swap(front: Front, current: str) -> None:
    swapped = damaged = False

    async def flip(_: int, what: str, answer: web.Response) -> web.Response:
        nonlocal swapped, damaged
        if what.startswith(("PUT", "POST")) and what.endswith(current):
            swapped = True
        elif what == f"GET {current}" and swapped and not damaged:
            damaged = True
            assert isinstance(answer.body, bytes)
            answer.body = answer.body[:30_000] + bytes([answer.body[30_000] ^ 1]) + answer.body[30_001:]
        return answer

    front.on_answer = flip


def test_versioned_names_keep_the_suffix() -> None:
    assert PartNames.versioned("azaion.onnx", 7) == PartNames("azaion-7.onnx.big", "azaion-7.onnx.small")
    assert PartNames.current("azaion.onnx") == PartNames("azaion.onnx.big", "azaion.onnx.small")


async def test_publishing_again_changes_nothing(world: World, front: tuple[str, Front]) -> None:
    first = await world.publish(world.model(1), 1)
    front[1].seen.clear()
    assert await world.publish(world.model(1), 1) == first
    assert front[1].seen == []


async def test_a_serial_belongs_to_one_model(world: World) -> None:
    await world.publish(world.model(1), 1)
    with pytest.raises(ReleaseError, match="another model"):
        await world.publish(world.model(2), 1)
    assert await world.consumed() == world.model(1).read_bytes()


async def test_without_a_model_key_nothing_is_asked_of_anyone(world: World, front: tuple[str, Front]) -> None:
    world.settings = world.settings.model_copy(update={"model_key": None})
    with pytest.raises(ModelKeyMissingError, match="AZAION_MODEL_KEY"):
        await world.publish(world.model(1), 1)
    assert front[1].seen == []


@pytest.mark.parametrize("uploader_reads", [True], indirect=True)
async def test_a_cancelled_attempt_is_finished_by_the_next(world: World, front: tuple[str, Front]) -> None:
    await world.publish(world.model(1), 1)
    attempt = asyncio.ensure_future(world.publish(world.model(2), 2))

    def cancel(_: int) -> None:
        if front[1].seen[-1] == f"PUT /models/{world.name}.big":
            attempt.cancel()

    front[1].on_request = cancel
    with pytest.raises(asyncio.CancelledError):
        await attempt
    front[1].on_request = lambda _: None
    assert await world.consumed() in {world.model(1).read_bytes(), world.model(2).read_bytes()}
    await world.publish(world.model(2), 2)
    assert await world.consumed() == world.model(2).read_bytes()


async def test_an_attempt_that_is_called_off_before_the_swap_changes_nothing(world: World) -> None:
    await world.publish(world.model(1), 1)

    async def call_off() -> None:
        raise ReleaseError("superseded")

    async with world.client() as client:
        with pytest.raises(ReleaseError, match="superseded"):
            await world.publisher(client).publish(world.model(2), 2, before_swap=call_off)
    assert await world.consumed() == world.model(1).read_bytes()


async def test_a_model_that_is_not_the_accepted_one_any_more_is_not_published(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(ReleaseError, match="not the model that was accepted"):
            await world.publisher(client).publish(world.model(1), 1, sha256="f" * 64)


@pytest.mark.parametrize("uploader_reads", [False, True], indirect=True)
async def test_an_upload_that_a_killed_process_left_is_aborted_by_the_next_release_also_without_the_right_to_list(
    world: World,
    front: tuple[str, Front],
    uploader_reads: bool,  # noqa: FBT001
) -> None:
    key = await leave_an_upload(world, front)
    await world.publish(world.model(2), 2)  # a newer one
    assert f"DELETE /models/{key}" in front[1].seen
    assert not world.layout.uploads.exists()


async def leave_an_upload(world: World, front: tuple[str, Front]) -> str:
    """As a process that is killed while it uploads: it cannot abort either. The key of it."""
    front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1].startswith(("PUT", "DELETE")) else None
    with pytest.raises(OutsideError):
        await world.publish(world.model(1), 1)
    assert world.layout.uploads.exists()
    front[1].on_request = lambda _: None
    front[1].seen.clear()
    return PartNames.versioned(world.name, 1).big


async def start_outbox(world: World, tmp_path: Path, until: Callable[[], bool]) -> None:
    """A daemon's outbox with a ledger in which no release waits, until something holds."""
    ledger = LedgerThread(Ledger(make_root(tmp_path / "root").ledger))
    async with world.client() as client:
        outbox = Outbox(world.settings, ledger, world.publisher(client), facts=lambda _: ReleaseFacts())
        running: asyncio.Task[Never] = asyncio.create_task(outbox.run())
        async with asyncio.timeout(30):
            while not until():
                assert not running.done()
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await asyncio.to_thread(ledger.close)


@pytest.mark.parametrize("uploader_reads", [True], indirect=True)
async def test_an_upload_that_a_killed_process_left_is_gone_from_the_store_after_the_next_start_though_no_release_waits(
    world: World, front: tuple[str, Front], tmp_path: Path
) -> None:
    key = await leave_an_upload(world, front)
    async with CdnClient(world.credentials, "models", region=world.store.region) as cdn:
        assert [upload.key for upload, _ in await cdn.unfinished_uploads(key) or []] == [key]
        await start_outbox(world, tmp_path, lambda: not world.layout.uploads.exists())
        assert await cdn.unfinished_uploads(key) == []


async def test_a_start_with_nothing_noted_contacts_nobody(world: World, front: tuple[str, Front]) -> None:
    async with world.client() as client:
        await world.publisher(client).abort_uploads()
    assert (front[1].requests, world.fetched) == (0, 0)


@pytest.mark.parametrize("away", ["the store", "whoever has the credentials"])
async def test_a_start_while_the_outside_is_away_leaves_it_to_the_next_release(world: World, front: tuple[str, Front], away: str) -> None:
    key = await leave_an_upload(world, front)

    async def fail() -> CdnCredentials:
        raise OutsideError("away")

    front[1].on_request = lambda _: web.Response(status=400)
    async with world.client() as client:
        publisher = world.publisher(client)
        if away != "the store":
            publisher.reconfigure(world.settings, fail)
        await publisher.abort_uploads()
    assert [upload.key for upload in UploadJournal(world.layout.uploads).load()] == [key]
    front[1].on_request = lambda _: None
    await world.publish(world.model(2), 2)
    assert not world.layout.uploads.exists()


@pytest.mark.parametrize("uploader_reads", [True], indirect=True)  # this store lets nobody remove what he may not see
async def test_old_versions_are_removed_but_those_that_may_be_needed(world: World) -> None:
    world.settings = world.settings.model_copy(update={"keep_versions": 2})
    for serial in range(1, 5):
        await world.publish(world.model(serial), serial)
    stored = []
    for serial in range(1, 5):
        with suppress(ReleaseError):
            await world.big(PartNames.versioned(world.name, serial).big)
            stored.append(serial)
    assert stored == [3, 4]
    assert await world.consumed() == world.model(4).read_bytes()


@pytest.mark.parametrize(
    ("uploader_reads", "stored"), [(True, "there"), (True, "gone"), (False, "not copied"), (False, "rekeyed")], indirect=["uploader_reads"]
)
async def test_the_release_before_is_put_back_from_its_version_or_its_model(
    world: World,
    front: tuple[str, Front],
    stored: str,
) -> None:
    await world.publish(world.model(1), 1)
    if stored == "gone":
        async with CdnClient(world.credentials, "models", region=world.store.region) as cdn:
            assert await cdn.remove(PartNames.versioned(world.name, 1).big)
    if stored == "rekeyed":
        world.settings = world.settings.model_copy(update={"model_key": SecretStr("rotated")})
    damage_first_read_after_swap(front[1], f"/models/{world.name}.big")
    with pytest.raises(ReleaseError, match="decrypts to something else"):
        await world.publish(world.model(2), 2)
    joined = world.platform_api.resource("models", f"{world.name}.small") + await world.big()
    key = "rotated" if stored == "rekeyed" else MODEL_KEY
    assert formulas.decrypt(joined, key) == PADDING + world.model(1).read_bytes()
    assert ReleaseRecords(world.layout.releases).load(2) is None  # the next attempt begins anew


@pytest.mark.parametrize("uploader_reads", [True], indirect=True)
async def test_a_first_release_that_does_not_verify_is_taken_back(world: World, front: tuple[str, Front]) -> None:
    damage_first_read_after_swap(front[1], f"/models/{world.name}.big")
    with pytest.raises(ReleaseError, match="decrypts to something else"):
        await world.publish(world.model(1), 1)
    with pytest.raises(ReleaseError, match="not there"):
        await world.big()
    await world.publish(world.model(1), 1)
    assert await world.consumed() == world.model(1).read_bytes()


async def test_any_flipped_bit_in_what_is_stored_is_found(world: World, front: tuple[str, Front]) -> None:
    front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1].startswith("POST /resources") else None
    with pytest.raises(OutsideError):
        await world.publish(world.model(1), 1)
    front[1].on_request = lambda _: None
    record = ReleaseRecords(world.layout.releases).load(1)
    assert record is not None
    whole = await world.big(PartNames.versioned(world.name, 1).big)
    key = aes_key(SecretStr(MODEL_KEY))
    async with world.client() as client, CdnClient(world.credentials, "models", region=world.store.region) as cdn:
        parts = Parts(cdn, client, world.settings, key)
        for place in (0, 15, 16, 1100, 25_000, len(whole) - 17, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            await cdn.put(f"{world.name}.damaged", bytes(damaged))
            with pytest.raises(ReleaseError):
                await parts.consume(f"{world.name}.damaged", record)
        for content in (whole[:-16], whole[:-1], whole + whole[-16:], b""):
            await cdn.put(f"{world.name}.damaged", content)
            with pytest.raises(ReleaseError, match="bytes in the object store"):
                await parts.consume(f"{world.name}.damaged", record)


async def test_a_model_is_run_before_and_after_the_swap_and_nothing_of_it_stays(world: World) -> None:
    world.probe = OnnxProbe()
    path = world.root / "model.onnx"
    path.write_bytes(onnx_model(1, 16))
    published = await world.publish(path, 1)
    assert published.ran == IDENTICAL
    assert [file.name for file in world.layout.releases.iterdir()] == ["1.json"]


async def test_a_model_that_does_not_run_never_reaches_consumers(world: World) -> None:
    await world.publish(world.model(1), 1)
    world.probe = OnnxProbe()
    with pytest.raises(ReleaseError, match="does not run the model"):
        await world.publish(world.model(2), 2)
    assert await world.consumed() == world.model(1).read_bytes()


async def test_a_release_interrupted_after_its_big_part_goes_on_with_the_same_bytes(world: World, front: tuple[str, Front]) -> None:
    front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1].startswith("POST /resources") else None
    with pytest.raises(OutsideError):
        await world.publish(world.model(1), 1)
    versioned = PartNames.versioned(world.name, 1).big
    first = await world.big(versioned)
    front[1].on_request = lambda _: None
    front[1].seen.clear()
    await world.publish(world.model(1), 1)
    assert await world.big(versioned) == first == await world.big()
    assert f"POST /models/{versioned}" not in front[1].seen  # not uploaded a second time


async def cut_short_before_the_swap(world: World, front: Front) -> None:
    """Leave release 1 with its versioned parts stored and verified."""
    uploads = 0

    def fail(_: int) -> web.Response | None:
        nonlocal uploads
        uploads += front.seen[-1].startswith("POST /resources/") and not front.seen[-1].startswith("POST /resources/get")
        return web.Response(status=400) if uploads > 1 else None

    front.on_request = fail
    with pytest.raises(OutsideError):
        await world.publish(world.model(1), 1)
    front.on_request = lambda _: None
    record = ReleaseRecords(world.layout.releases).load(1)
    assert record is not None
    assert record.ciphertext_sha256 is not None


@pytest.mark.parametrize("uploader_reads", [True], indirect=True)  # this store lets nobody remove what he may not see
async def test_a_stored_part_that_is_gone_when_a_release_goes_on_is_uploaded_anew(world: World, front: tuple[str, Front]) -> None:
    await cut_short_before_the_swap(world, front[1])
    versioned = PartNames.versioned(world.name, 1).big
    async with CdnClient(world.credentials, "models", region=world.store.region) as cdn:
        assert await cdn.remove(versioned)
    await world.publish(world.model(1), 1)
    assert await world.big(versioned) == await world.big()
    assert await world.consumed() == world.model(1).read_bytes()


async def test_a_release_goes_on_in_the_folder_that_is_configured_by_now(
    world: World, front: tuple[str, Front], platform_api: PlatformApi
) -> None:
    world.settings = world.settings.model_copy(update={"folder": "elsewhere"})
    await cut_short_before_the_swap(world, front[1])
    world.settings = world.settings.model_copy(update={"folder": "models"})
    await world.publish(world.model(1), 1)
    small = platform_api.resource("models", PartNames.versioned(world.name, 1).small)
    assert small == platform_api.resource("models", f"{world.name}.small")
    assert await world.consumed() == world.model(1).read_bytes()


async def test_a_record_that_cannot_be_read_holds_back_its_own_release_alone(world: World) -> None:
    await world.publish(world.model(1), 1)
    (world.layout.releases / "1.json").write_text("{")
    with pytest.raises(RecordError, match=r"1\.json"):
        await world.publish(world.model(1), 1)
    await world.publish(world.model(2), 2)
    assert await world.consumed() == world.model(2).read_bytes()


async def test_a_new_model_key_between_two_attempts_encrypts_anew(world: World, front: tuple[str, Front]) -> None:
    front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1].startswith("POST /resources") else None
    with pytest.raises(OutsideError):
        await world.publish(world.model(1), 1)
    front[1].on_request = lambda _: None
    world.settings = world.settings.model_copy(update={"model_key": SecretStr("rotated")})
    await world.publish(world.model(1), 1)
    joined = world.platform_api.resource("models", f"{world.name}.small") + await world.big()
    assert formulas.decrypt(joined, "rotated") == PADDING + world.model(1).read_bytes()


async def test_a_stored_part_that_does_not_verify_never_reaches_consumers(world: World, front: tuple[str, Front]) -> None:
    await world.publish(world.model(1), 1)
    versioned = PartNames.versioned(world.name, 2)
    front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1].startswith("POST /resources") else None
    with pytest.raises(OutsideError):
        await world.publish(world.model(2), 2)
    front[1].on_request = lambda _: None
    damaged = bytearray(await world.big(versioned.big))
    damaged[30_000] ^= 1
    async with CdnClient(world.credentials, "models", region=world.store.region) as cdn:
        await cdn.put(versioned.big, bytes(damaged))
    with pytest.raises(ReleaseError, match="decrypts to something else"):
        await world.publish(world.model(2), 2)
    assert await world.consumed() == world.model(1).read_bytes()
    await world.publish(world.model(2), 2)
    assert await world.consumed() == world.model(2).read_bytes()


async def test_credentials_that_were_rotated_are_fetched_once_more(world: World) -> None:
    good = world.credentials

    async def rotating() -> CdnCredentials:
        world.fetched += 1
        return good if world.fetched > 1 else good.model_copy(update={"uploader_access_secret": SecretStr("last quarter's")})

    async with world.client() as client:
        await Publisher(world.settings, client, rotating, world.layout, probe=NO_PROBE).publish(world.model(1), 1)
    assert world.fetched == 2
    assert await world.consumed() == world.model(1).read_bytes()


async def test_credentials_that_stay_refused_are_an_error_that_says_so(world: World) -> None:
    world.credentials = world.credentials.model_copy(update={"uploader_access_secret": SecretStr("wrong")})
    with pytest.raises(CdnRefusedError, match=r"Check the access keys") as caught:
        await world.publish(world.model(1), 1)
    assert "wrong" not in str(caught.value)
    assert world.fetched == 2


async def test_a_wrong_password_costs_one_login(world: World, platform_api: PlatformApi) -> None:
    world.user = replace(world.user, password="wrong")
    async with world.client() as client:
        for _ in range(2):
            with pytest.raises(LoginRefusedError, match="AZAION_API_PASSWORD"):
                await world.publisher(client).publish(world.model(1), 1)
    assert platform_api.calls["POST /login"] == 1


async def test_a_store_that_is_away_is_an_outage_and_not_a_loss(world: World, object_store: ObjectStore) -> None:
    world.credentials = world.credentials.model_copy(update={"host": "http://127.0.0.1:9"})
    with pytest.raises(OutsideError, match=r"127\.0\.0\.1:9"):
        await world.publish(world.model(1), 1)
    world.credentials = world.credentials.model_copy(update={"host": object_store.endpoint})
    await world.publish(world.model(1), 1)
    assert await world.consumed() == world.model(1).read_bytes()


async def test_a_model_that_vanished_is_named(world: World) -> None:
    with pytest.raises(AzaionError, match=r"nothing\.onnx"):
        await world.publish(world.root / "nothing.onnx", 1)


async def test_nothing_is_left_beside_the_record_and_no_secret_is_in_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="azaion_daemon")
    for library in ("httpx", "httpcore", "botocore.credentials", "aiobotocore", "asyncio"):
        caplog.set_level("DEBUG", logger=library)
    published = await world.publish(world.model(1), 1)
    (record,) = world.layout.releases.iterdir()
    kept = ReleaseRecords(world.layout.releases).load(1)
    assert kept is not None
    assert kept.published == published
    for secret in (MODEL_KEY, world.store.uploader.secret, world.store.downloader.secret, world.user.password):
        assert secret not in record.read_text() + caplog.text


async def test_the_event_loop_is_not_blocked_by_reading_or_encrypting(world: World, no_blocking_calls: BlockBuster) -> None:
    for function in no_blocking_calls.functions.values():
        function.can_block_in("/aiobotocore/session.py", "_create_client")  # reads its descriptions of S3: 60 ms once, 3 ms later
    await world.publish(world.model(1, size=14_000_000), 1)


def s3_error(status: int, code: str) -> web.Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>m</Message><RequestId>1</RequestId></Error>'
    return web.Response(status=status, text=body, content_type="application/xml")


class TestCdn:
    """The client alone."""

    @pytest.fixture
    async def cdn(self, world: World) -> AsyncIterator[CdnClient]:
        async with CdnClient(world.credentials, "models", region=world.store.region) as opened:
            yield opened

    async def test_a_file_comes_back_as_it_was(self, cdn: CdnClient, world: World) -> None:
        model = world.model(3, size=13_000_000)
        with model.open("rb") as file:
            await cdn.upload(f"{world.name}.file", file)
        assert (await cdn.look(f"{world.name}.file")).size == model.stat().st_size
        assert b"".join([chunk async for chunk in cdn.download(f"{world.name}.file")]) == model.read_bytes()

    async def test_what_is_not_there_is_named(self, cdn: CdnClient, world: World) -> None:
        with pytest.raises(ReleaseError, match=re.escape(f"downloading {world.name}.none")):
            assert [chunk async for chunk in cdn.download(f"{world.name}.none")] == []

    async def test_a_bucket_that_is_not_there_is_named(self, world: World) -> None:
        async with CdnClient(world.credentials, "models-elsewhere", region=world.store.region) as cdn:
            with pytest.raises(AzaionError, match="models-elsewhere"):
                await cdn.put("a", b"")

    async def test_copying_without_the_right_to_read_says_no(self, cdn: CdnClient, world: World, object_store: ObjectStore) -> None:
        await cdn.put(f"{world.name}.a", b"content")
        assert await cdn.copy(f"{world.name}.a", f"{world.name}.b") is None
        object_store.grant_read(True)
        assert await cdn.copy(f"{world.name}.a", f"{world.name}.b") is not None
        assert await world.big(f"{world.name}.b") == b"content"

    async def test_copying_what_the_uploader_is_not_shown_says_no(self, cdn: CdnClient, front: tuple[str, Front]) -> None:
        front[1].on_request = lambda _: s3_error(404, "NoSuchKey")
        assert await cdn.copy("a", "b") is None

    async def test_an_upload_that_cannot_be_noted_is_aborted(self, world: World, front: tuple[str, Front]) -> None:
        class Full(UploadJournal):
            def add(self, upload: Upload) -> None:
                raise DiskFullError(f"no space to note {upload.key}")

        journal = Full(world.layout.uploads)
        async with CdnClient(world.credentials, "models", region=world.store.region, journal=journal) as cdn:
            with pytest.raises(DiskFullError):
                await cdn.upload(f"{world.name}.big", io.BytesIO(b"content"))
        assert front[1].seen[-1] == f"DELETE /models/{world.name}.big"

    async def test_an_upload_that_fails_is_aborted(self, cdn: CdnClient, world: World, front: tuple[str, Front]) -> None:
        class Breaking:
            def __init__(self) -> None:
                self.calls = 0

            def readinto(self, buffer: memoryview) -> int:
                self.calls += 1
                if self.calls > 2:
                    raise ReleaseError("the model changed")
                return len(buffer)

        with pytest.raises(ReleaseError, match="the model changed"):
            await cdn.upload(f"{world.name}.big", Breaking())
        assert front[1].seen[-1] == f"DELETE /models/{world.name}.big"
        with pytest.raises(ReleaseError):
            await cdn.look(f"{world.name}.big")

    async def test_what_writes_is_signed_by_the_uploader_and_what_reads_by_the_downloader(
        self, cdn: CdnClient, world: World, front: tuple[str, Front], object_store: ObjectStore
    ) -> None:
        object_store.grant_read(True)
        with world.model(1).open("rb") as file:
            await cdn.upload(f"{world.name}.big", file)
        await cdn.copy(f"{world.name}.big", f"{world.name}.copy")
        await cdn.remove(f"{world.name}.copy")
        await cdn.look(f"{world.name}.big")
        assert [chunk async for chunk in cdn.download(f"{world.name}.big")]
        writing = {key for method, key in front[1].keys if method in {"PUT", "POST", "DELETE"}}
        reading = {key for method, key in front[1].keys if method in {"GET", "HEAD"}}
        assert (writing, reading) == ({world.store.uploader.key}, {world.store.downloader.key})

    async def test_a_store_that_is_busy_or_loses_a_connection_is_tried_again(self, world: World, front: tuple[str, Front]) -> None:
        left = ["slow", "reset"]

        def fail(_: int) -> web.Response | None:
            if not front[1].seen[-1].startswith("PUT") or not left:
                return None
            if left.pop() == "reset":
                raise ConnectionError
            return s3_error(503, "SlowDown")

        front[1].on_request = fail
        repeated = []
        async with CdnClient(world.credentials, "models", region=world.store.region, retried=lambda: repeated.append(1)) as cdn:
            with world.model(1).open("rb") as file:
                await cdn.upload(f"{world.name}.big", file)
        assert left == []
        assert repeated  # once at least: what a kept connection has lost is repeated beneath
        assert await world.big() == world.model(1).read_bytes()

    async def test_an_error_in_an_answer_with_status_200_is_an_error(self, cdn: CdnClient, world: World, front: tuple[str, Front]) -> None:
        posts = 0

        def fail(_: int) -> web.Response | None:
            nonlocal posts
            posts += front[1].seen[-1].startswith("POST")
            return s3_error(200, "InternalError") if posts > 1 and front[1].seen[-1].startswith("POST") else None

        front[1].on_request = fail
        with world.model(1).open("rb") as file, pytest.raises(OutsideError, match="InternalError"):
            await cdn.upload(f"{world.name}.big", file)
        front[1].on_request = lambda _: None
        with pytest.raises(ReleaseError, match="not there"):
            await world.big()

    async def test_clocks_that_differ_are_called_that(self, cdn: CdnClient, world: World, front: tuple[str, Front]) -> None:
        front[1].on_request = lambda _: s3_error(403, "RequestTimeTooSkewed")
        with pytest.raises(ClockError, match="timedatectl"):
            await cdn.put("a", b"")
        with pytest.raises(ClockError):
            await cdn.copy("a", "b")

    async def test_what_is_no_object_store_is_an_outage(self, cdn: CdnClient, front: tuple[str, Front]) -> None:
        front[1].on_request = lambda _: web.Response(text="<html>It works!</html>", content_type="text/html")
        with pytest.raises(OutsideError, match="does not speak S3"):
            await cdn.upload("a", io.BytesIO(b"content"))

    async def test_no_more_is_read_than_is_on_its_way(self, cdn: CdnClient, world: World, front: tuple[str, Front]) -> None:
        class Counting:
            given = 0

            def readinto(self, buffer: memoryview) -> int:
                if self.given == 9:
                    return 0
                self.given += 1
                return len(buffer)

        source = Counting()
        most = done = 0

        async def watch(_: int, what: str, answer: web.Response) -> web.Response:
            nonlocal most, done
            if what.startswith("PUT"):
                most = max(most, source.given - done)
                done += 1
            return answer

        front[1].on_answer = watch
        await cdn.upload(f"{world.name}.big", source)
        assert done == 9
        assert most <= PARTS_IN_FLIGHT

    async def test_a_file_of_certificates_that_is_none_is_the_operators_to_mend(self, world: World) -> None:
        with pytest.raises(OperatorError, match=r"publish\.cdn_ca_file"):
            async with CdnClient(world.credentials, "models", region="us-east-1", ca_file=world.root / "none.pem"):
                pass

    async def test_a_host_that_is_none_is_named(self, world: World) -> None:
        wrong = world.credentials.model_copy(update={"host": "http://not a host"})
        with pytest.raises(AzaionError, match="not a host"):
            async with CdnClient(wrong, "models", region="us-east-1"):
                pass


async def test_cdn_yaml_of_the_sandbox_is_read_from_the_platform(
    world: World, platform_api: PlatformApi, object_store: ObjectStore
) -> None:
    up, down = object_store.uploader, object_store.downloader
    platform_api.serve_cdn(host=object_store.endpoint, downloader=(down.key, down.secret), uploader=(up.key, up.secret))
    async with world.client() as client:
        credentials = parse_credentials(await client.get_resource("", "cdn.yaml"), source="cdn.yaml")
    assert credentials.endpoint == object_store.endpoint
