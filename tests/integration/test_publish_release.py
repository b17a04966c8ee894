"""Releases against a real object store and the platform's double: what consumers see, whatever fails on the way."""

import asyncio
import hashlib
import io
import random
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from blockbuster import BlockBuster
from pydantic import HttpUrl, SecretStr

from azaion_daemon.errors import AzaionError, OutsideError, ReleaseError
from azaion_daemon.publish.cdn import CdnClient, CdnRefusedError
from azaion_daemon.publish.credentials import CdnCredentials, parse_credentials
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import PADDING, SMALL_BYTES
from azaion_daemon.publish.platform import LoginRefusedError, PlatformClient, RetryRule
from azaion_daemon.publish.record import ReleaseRecords
from azaion_daemon.publish.release import ModelKeyMissingError, Publisher
from azaion_daemon.sandbox import formulas
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.settings import ApiSettings, PublishSettings
from azaion_daemon.store.layout import Layout

MODEL_KEY = "a model key"


class Front:
    """Stands before the platform and the object store, counts requests, and makes one fail: all of them go through here, in order."""

    def __init__(self, platform: str, store: str) -> None:
        self._backends = {True: store, False: platform}
        self.requests = 0
        self.seen: list[str] = []
        self.on_request: Callable[[int], web.Response | None] = lambda _: None

    async def forward(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.seen.append(f"{request.method} {request.path}")
        if (failure := self.on_request(self.requests)) is not None:
            return failure
        base = self._backends[request.path.startswith("/models")]
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, base + request.raw_path, headers=request.headers, data=io.BytesIO(await request.read())
            ) as answer,
        ):
            content = await answer.read()
            headers = {name: value for name, value in answer.headers.items() if name not in {"Transfer-Encoding", "Content-Length"}}
            if request.method == "HEAD" and answer.ok:
                headers["Content-Length"] = answer.headers["Content-Length"]
            return web.Response(status=answer.status, body=content or None, headers=headers)


@pytest.fixture
async def front(platform_api: PlatformApi, object_store: ObjectStore) -> AsyncIterator[tuple[str, Front]]:
    behind = Front(platform_api.url, object_store.endpoint)
    server = web.AppRunner(_application(behind), access_log=None, shutdown_timeout=0.1)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    port = server.addresses[0][1]
    yield f"http://127.0.0.1:{port}", behind
    await server.cleanup()


def _application(front: Front) -> web.Application:
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", front.forward)
    return application


@pytest.fixture
def uploader_reads(object_store: ObjectStore, request: pytest.FixtureRequest) -> Iterator[bool]:
    allowed = bool(getattr(request, "param", False))
    object_store.grant_read(allowed)
    yield allowed
    object_store.grant_read(False)


class World:
    """One publisher's surroundings, and a consumer to look at what came out."""

    def __init__(self, root: Path, platform_api: PlatformApi, user: User, store: ObjectStore, url: str) -> None:
        self.root, self.platform_api, self.user, self.store, self.url = root, platform_api, user, store, url
        self.layout = Layout(root)
        self.layout.releases.mkdir(parents=True)
        self.name = f"azaion{uuid.uuid4().hex[:8]}.onnx"
        self.settings = PublishSettings(model_key=SecretStr(MODEL_KEY), name=self.name)
        self.credentials = CdnCredentials(
            host=url,
            downloader_access_key=store.downloader.key,
            downloader_access_secret=SecretStr(store.downloader.secret),
            uploader_access_key=store.uploader.key,
            uploader_access_secret=SecretStr(store.uploader.secret),
        )
        self.fetched = 0

    async def current_credentials(self) -> CdnCredentials:
        self.fetched += 1
        return self.credentials

    def client(self) -> PlatformClient:
        api = ApiSettings(url=HttpUrl(self.url), email=self.user.email, password=SecretStr(self.user.password), hardware="h")
        return PlatformClient(api, self.layout.hardware, retry=RetryRule(attempts=3, first_s=0.01, most_s=0.05))

    def publisher(self, client: PlatformClient) -> Publisher:
        return Publisher(self.settings, client, self.current_credentials, self.layout)

    async def publish(self, model: Path, serial: int):  # type: ignore[no-untyped-def] # noqa: ANN201
        async with self.client() as client:
            return await self.publisher(client).publish(model, serial)

    def model(self, serial: int, size: int = 50_000) -> Path:
        path = self.root / f"model-{serial}.onnx"
        path.write_bytes(random.Random(serial).randbytes(size + serial))
        return path

    async def big(self, name: str | None = None) -> bytes:
        direct = self.credentials.model_copy(update={"host": self.store.endpoint})
        async with CdnClient(direct, "models", region=self.store.region) as cdn:
            return b"".join([chunk async for chunk in cdn.download(name or f"{self.name}.big")])

    async def consumed(self) -> bytes:
        """The model that a consumer gets now. The padding is looked at: only the seam may be wrong."""
        plaintext = formulas.decrypt(self.platform_api.resource("models", f"{self.name}.small") + await self.big(), MODEL_KEY)
        head, model = plaintext[: len(PADDING)], plaintext[len(PADDING) :]
        seam = slice(SMALL_BYTES - 16, SMALL_BYTES)
        assert head[: seam.start] + PADDING[seam] + head[seam.stop :] == PADDING
        return model


@pytest.fixture
def world(
    tmp_path: Path,
    platform_api: PlatformApi,
    platform_user: User,
    object_store: ObjectStore,
    front: tuple[str, Front],
    uploader_reads: bool,  # noqa: FBT001 - a fixture
) -> World:
    return World(tmp_path, platform_api, platform_user, object_store, front[0])


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


@pytest.mark.parametrize("way", ["refused", "cancelled"])
@pytest.mark.parametrize("uploader_reads", [False, True], indirect=True)
async def test_an_end_at_any_request_leaves_a_whole_model_and_is_finished_later(world: World, front: tuple[str, Front], way: str) -> None:
    proxy = front[1]
    await world.publish(world.model(1), 1)
    old, serial = world.model(1).read_bytes(), 1
    swapped_late = False
    while True:
        serial += 1
        model = world.model(serial)
        proxy.seen.clear()
        attempt = asyncio.ensure_future(world.publish(model, serial))
        fail_at = proxy.requests + serial - 1

        def end(number: int, attempt: "asyncio.Future[object]" = attempt, fail_at: int = fail_at) -> web.Response | None:
            if number < fail_at:
                return None
            if way == "cancelled":
                attempt.cancel()
            return web.Response(status=400)

        proxy.on_request = end
        failed = (await asyncio.gather(attempt, return_exceptions=True))[0]
        proxy.on_request = lambda _: None
        if not isinstance(failed, BaseException):
            break
        assert isinstance(failed, AzaionError if way == "refused" else asyncio.CancelledError), proxy.seen
        now = await world.consumed()
        assert now in {old, model.read_bytes()}, proxy.seen
        swapped_late |= now != old
        await world.publish(model, serial)
        old = model.read_bytes()
        assert await world.consumed() == old
    assert swapped_late
    assert serial > 12  # there are that many requests to fail at


async def test_a_dropped_connection_or_two_do_not_matter(world: World, front: tuple[str, Front]) -> None:
    dropped: dict[str, int] = {}

    def drop(_: int) -> web.Response | None:
        request = front[1].seen[-1]
        if request.startswith(("PUT", "GET", "POST /resources")) and dropped.setdefault(request, 0) < 1:
            dropped[request] += 1
            return web.Response(status=503)
        return None

    front[1].on_request = drop
    await world.publish(world.model(1), 1)
    assert len(dropped) >= 5
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
        await Publisher(world.settings, client, rotating, world.layout).publish(world.model(1), 1)
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
        assert await cdn.size(f"{world.name}.file") == model.stat().st_size
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
        assert not await cdn.copy(f"{world.name}.a", f"{world.name}.b")
        object_store.grant_read(True)
        assert await cdn.copy(f"{world.name}.a", f"{world.name}.b")
        assert await world.big(f"{world.name}.b") == b"content"

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
            await cdn.size(f"{world.name}.big")

    @pytest.mark.parametrize("uploader_reads", [True], indirect=True)
    async def test_what_a_killed_upload_left_is_removed_by_the_next(self, cdn: CdnClient, world: World, front: tuple[str, Front]) -> None:
        front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1].startswith(("PUT", "DELETE")) else None
        with world.model(1).open("rb") as file, pytest.raises(OutsideError):
            await cdn.upload(f"{world.name}.big", file)
        front[1].on_request = lambda _: None
        front[1].seen.clear()
        with world.model(1).open("rb") as file:
            await cdn.upload(f"{world.name}.big", file)
        assert f"DELETE /models/{world.name}.big" in front[1].seen
        assert await world.big() == world.model(1).read_bytes()

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
