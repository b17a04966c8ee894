"""A platform that means ill, or a proxy that does: how much of its answers is read, and where a request goes."""

import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import HttpUrl, SecretStr

from azaion_daemon.health import Vitals
from azaion_daemon.publish.platform import PlatformClient, PlatformError, RetryRule
from azaion_daemon.sections import ApiSettings

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
ONCE = RetryRule(attempts=1)
_BOMB = gzip.compress(bytes(32 << 20), 1)


class Hostile:
    """Answers a login as the platform does, and everything else as a test says. `seen` are the requests, with what they carried."""

    def __init__(self) -> None:
        self.answer: Answer
        self.seen: list[tuple[str, bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path, await request.read()))
        return web.json_response({"token": "t"}) if request.path == "/login" else await self.answer(request)


@pytest.fixture
async def hostile() -> Hostile:
    return Hostile()


@pytest.fixture
async def url(hostile: Hostile) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", hostile.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def client(url: str, tmp_path: Path) -> AsyncIterator[PlatformClient]:
    settings = ApiSettings(url=HttpUrl(url), email="u@x.io", password=SecretStr("hush"), hardware="h", timeout_s=20)
    async with PlatformClient(settings, tmp_path / "hardware.txt", retry=ONCE) as made:
        yield made


async def test_a_slow_platform_is_waited_for_by_name(hostile: Hostile, client: PlatformClient) -> None:
    vitals = Vitals(patience=1e-9)  # no step may take any time
    seen: list[tuple[bool, str]] = []

    async def slow(_: web.Request) -> web.StreamResponse:
        seen.append((vitals.judged().ok, vitals.document()["parts"]["publish"]["what"]))
        return web.json_response([])

    hostile.answer = slow
    await vitals.watched("publish", client.list("models"))
    assert seen == [(True, "waiting for the platform's answer")]


async def test_an_answer_without_end_is_given_up(hostile: Hostile, client: PlatformClient) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 20))

    hostile.answer = endless
    with pytest.raises(PlatformError, match="longer than 67108864 bytes"):
        await client.get_resource("", "cdn.yaml")


@pytest.mark.parametrize("packing", ["gzip", "br", "zstd", "deflate"])
async def test_a_packed_answer_is_not_unpacked(hostile: Hostile, client: PlatformClient, packing: str) -> None:
    async def packed(_: web.Request) -> web.StreamResponse:
        return web.Response(body=_BOMB, headers={"Content-Encoding": packing})

    hostile.answer = packed
    tracemalloc.start()
    with pytest.raises(PlatformError, match=rf"packed \({packing}\)"):
        await client.list("models")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_so_a_password_goes_nowhere_else(
    hostile: Hostile, client: PlatformClient, url: str, status: int
) -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": f"{url}/elsewhere"})

    hostile.answer = elsewhere
    with pytest.raises(PlatformError, match=f"HTTP {status}"):
        await client.get_resource("", "cdn.yaml")
    assert [path for path, _ in hostile.seen] == ["/login", "/resources/get"]


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b'{"a":' * 1_000_000, b"\xff" * 100, b""])
async def test_what_is_no_listing_is_an_error_and_no_more(hostile: Hostile, client: PlatformClient, body: bytes) -> None:
    async def nonsense(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    hostile.answer = nonsense
    with pytest.raises(PlatformError, match="something else than its contract"):
        await client.list("models")
