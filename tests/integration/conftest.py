"""What tests of releases are given: both stores behind a proxy, and a publisher's surroundings."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from tests.integration.publishing import Front, World, application


@pytest.fixture
async def front(platform_api: PlatformApi, object_store: ObjectStore) -> AsyncIterator[tuple[str, Front]]:
    behind = Front(platform_api.url, object_store.endpoint)
    server = web.AppRunner(application(behind), access_log=None, shutdown_timeout=0.1)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    port = server.addresses[0][1]
    yield f"http://127.0.0.1:{port}", behind
    await server.cleanup()


@pytest.fixture
def uploader_reads(object_store: ObjectStore, request: pytest.FixtureRequest) -> Iterator[bool]:
    allowed = bool(getattr(request, "param", False))
    object_store.grant_read(allowed)
    yield allowed
    object_store.grant_read(False)


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
