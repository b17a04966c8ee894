"""What tests of releases share: a proxy before both stores, and one publisher's surroundings."""

import io
import random
import re
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web
from pydantic import HttpUrl, SecretStr

from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.credentials import CdnCredentials
from azaion_daemon.publish.packing import PADDING, SMALL_BYTES
from azaion_daemon.publish.platform import PlatformClient, RetryRule
from azaion_daemon.publish.probe import OnnxProbe, Probe
from azaion_daemon.publish.release import Publisher
from azaion_daemon.sandbox import formulas
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.sections import ApiSettings, PublishSettings
from azaion_daemon.store.layout import Layout

NO_PROBE = OnnxProbe(module="no_such_runtime")
"""For models that are none."""
MODEL_KEY = "a model key"


class Front:
    """Stands before the platform and the object store, counts requests, and makes one fail: all of them go through here.

    `on_request` is asked before a request is forwarded, and may answer it, or raise ConnectionError to drop the connection; `on_answer` is
    awaited with the answer before that is given, and may give another.
    """

    def __init__(self, platform: str, store: str) -> None:
        self._backends = {True: store, False: platform}
        self.requests = 0
        self.seen: list[str] = []
        self.keys: list[tuple[str, str]] = []
        """Which access key each request to the store was signed with."""
        self.on_request: Callable[[int], web.Response | None] = lambda _: None
        self.on_answer: Callable[[int, str, web.Response], Awaitable[web.Response]] = _as_it_is

    async def forward(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        number, what = self.requests, f"{request.method} {request.path}"
        self.seen.append(what)
        if found := re.search("Credential=([^/]+)/", request.headers.get("Authorization", "")):
            self.keys.append((request.method, found[1]))
        try:
            failure = self.on_request(number)
        except ConnectionError:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if failure is not None:
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
            return await self.on_answer(number, what, web.Response(status=answer.status, body=content or None, headers=headers))


async def _as_it_is(_: int, __: str, answer: web.Response) -> web.Response:
    return answer


def application(front: Front) -> web.Application:
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", front.forward)
    return application


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
        self.probe: Probe = NO_PROBE
        self.fetched = 0

    async def current_credentials(self) -> CdnCredentials:
        self.fetched += 1
        return self.credentials

    def api(self) -> ApiSettings:
        return ApiSettings(url=HttpUrl(self.url), email=self.user.email, password=SecretStr(self.user.password), hardware="h")

    def client(self) -> PlatformClient:
        return PlatformClient(self.api(), self.layout.hardware, retry=RetryRule(attempts=3, first_s=0.01, most_s=0.05))

    def publisher(self, client: PlatformClient) -> Publisher:
        return Publisher(self.settings, client, self.current_credentials, self.layout, probe=self.probe)

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
