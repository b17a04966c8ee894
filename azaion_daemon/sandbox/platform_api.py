"""The platform's REST API on a thread of its own: it speaks the wire format, encrypts for real, and fails on request.

Every switch may be set while it runs, from any thread.
"""

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from aiohttp import web

from azaion_daemon.sandbox import formulas
from azaion_daemon.sandbox.platform_state import BusinessError, ErrorCode, LockedError, Resources, Tokens, UnauthorizedError, User
from azaion_daemon.sandbox.processes import LOOPBACK, ReservedPort, SandboxError

_START_TIMEOUT_S = 10.0
_MAX_UPLOAD_BYTES = 256 << 20
_RETRY_AFTER = {423: 60, 429: 1, 503: 1}  # seconds


@dataclass
class _Failure:
    path_prefix: str
    status: int
    left: int


class PlatformApi:
    """The platform for one or more users on a free loopback port.

    `generation` "new" answers as newer servers do: other names for the token, no resources to get, accounts that lock. `calls` counts
    requests by method and endpoint, as "POST /resources/get"; folders are left out.

    Raises:
        SandboxError: It does not start.
    """

    def __init__(self, directory: Path, *users: User, token_lifetime_s: float = 3600.0, generation: Literal["old", "new"] = "old") -> None:
        self.users = {user.email: user for user in users}
        self.tokens = Tokens(token_lifetime_s)
        self.resources = Resources(directory)
        self.generation: Literal["old", "new"] = generation
        self.calls: Counter[str] = Counter()
        self._delay_s = 0.0
        self._failures: list[_Failure] = []
        self._port = ReservedPort()
        self._server: _ServerThread | None = None

    @property
    def url(self) -> str:
        """Where it listens; it stays the same when it was down."""
        return f"http://{LOOPBACK}:{self._port.number}"

    def __enter__(self) -> Self:
        self.down = False
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.down = True
        self._port.release()

    @property
    def down(self) -> bool:
        """Whether connections are refused."""
        return self._server is None

    @down.setter
    def down(self, down: bool) -> None:
        if self._server is not None and down:
            self._server.stop()
            self._server = None
        elif self._server is None and not down:
            self._server = _ServerThread(self._application, self._port.number)

    def fail_next(self, path_prefix: str, status: int, times: int = 1) -> None:
        """Answer the next `times` requests whose path begins so with an HTTP status, without looking at them."""
        self._failures.append(_Failure(path_prefix, status, times))

    def slow(self, seconds: float) -> None:
        """Wait this long before every answer; 0 for none."""
        self._delay_s = seconds

    def resource(self, folder: str, name: str) -> bytes:
        """What was uploaded, as it came. Raises BusinessError when there is none."""
        return self.resources.read(folder, name)

    def serve_cdn(self, *, host: str, downloader: tuple[str, str], uploader: tuple[str, str]) -> None:
        """Put cdn.yaml into the root folder; the pairs are access key and secret."""
        lines = {
            "host": host,
            "downloader_access_key": downloader[0],
            "downloader_access_secret": downloader[1],
            "uploader_access_key": uploader[0],
            "uploader_access_secret": uploader[1],
        }
        self.resources.write("", "cdn.yaml", "".join(f'{key}: "{value}"\n' for key, value in lines.items()).encode())

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_MAX_UPLOAD_BYTES, middlewares=[self._answer])
        application.add_routes(
            [
                web.post("/login", self._login),
                web.get("/users/current", self._current_user),
                web.post("/resources/check", self._check),
                web.get("/resources/list{folder:(/.*)?}", self._list),
                web.post("/resources/get{folder:(/.*)?}", self._get),
                web.post("/resources{folder:(/.*)?}", self._upload),
            ]
        )
        return application

    @web.middleware
    async def _answer(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """What every endpoint has in common: counting, the switches, errors as answers."""
        resource = request.match_info.route.resource
        endpoint = resource.canonical.removesuffix("{folder}") if resource else request.path
        self.calls[f"{request.method} {endpoint}"] += 1
        await asyncio.sleep(self._delay_s)
        if (failure := self._due_failure(request.path)) is not None:
            return _retry_later(failure)
        try:
            return await handler(request)
        except BusinessError as error:
            return web.json_response({"ErrorCode": int(error.code), "Message": error.message}, status=409)
        except LockedError:
            return _retry_later(423)
        except UnauthorizedError:
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})

    def _due_failure(self, path: str) -> int | None:
        for failure in self._failures:
            if failure.left > 0 and path.startswith(failure.path_prefix):
                failure.left -= 1
                return failure.status
        return None

    async def _login(self, request: web.Request) -> web.Response:
        body = await request.json()
        user = self.users.get(body["email"])
        if user is None:
            raise BusinessError(ErrorCode.NO_EMAIL_FOUND, "No such email found")
        if self.generation == "new":
            user.check_not_locked()
        user.check_password(body["password"])
        token = self.tokens.issue(user)
        if self.generation == "old":
            return web.json_response({"token": token})
        lifetime_s = math.ceil(self.tokens.lifetime_s)
        return web.json_response({"AccessToken": token, "RefreshToken": f"refresh-{token[-16:]}", "Token": token, "ExpiresIn": lifetime_s})

    async def _current_user(self, request: web.Request) -> web.Response:
        user = self._user(request)
        return web.json_response({"Email": user.email, "Role": 1000, "Hardware": user.hardware, "IsEnabled": not user.disabled})

    async def _check(self, request: web.Request) -> web.Response:
        user = self._user(request)
        user.check_hardware((await request.json()).get("hardware") or "")
        return web.Response()

    async def _list(self, request: web.Request) -> web.Response:
        self._user(request)
        return web.json_response(self.resources.names(request.match_info["folder"]))

    async def _get(self, request: web.Request) -> web.Response:
        user = self._user(request)
        if self.generation == "new":
            return web.Response(status=404)
        body = await request.json()
        password, hardware, name = (body.get(key) or "" for key in ("password", "hardware", "fileName"))
        user.check_password(password)
        user.check_hardware(hardware)
        content = self.resources.read(request.match_info["folder"], name)
        return web.Response(body=formulas.encrypt(content, formulas.api_key(user.email, password, hardware)))

    async def _upload(self, request: web.Request) -> web.Response:
        self._user(request)
        if not request.content_type.startswith("multipart/"):
            return web.Response(status=415)
        part = (await request.post()).get("data")
        if not isinstance(part, web.FileField):
            return web.Response(status=400, text="the file part must be named `data`")
        self.resources.write(request.match_info["folder"], part.filename, part.file.read())
        return web.Response()

    def _user(self, request: web.Request) -> User:
        return self.tokens.owner(request.headers.get("Authorization", ""))


def _retry_later(status: int) -> web.Response:
    seconds = _RETRY_AFTER.get(status)
    if seconds is None:
        return web.Response(status=status)
    return web.json_response({"RetryAfterSeconds": seconds}, status=status, headers={"Retry-After": str(seconds)})


class _ServerThread:
    """An application served by an event loop on a thread, from its construction to `stop`."""

    def __init__(self, make_application: Callable[[], web.Application], port: int) -> None:
        self._make_application = make_application
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sandbox-platform-api", daemon=True)
        self._thread.start()
        if not self._started.wait(_START_TIMEOUT_S) or self._error is not None:
            raise SandboxError(f"the platform API does not start on port {port}: {self._error or 'timeout'}. Try again.") from self._error

    def stop(self) -> None:
        """Close every connection and wait for the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = web.AppRunner(self._make_application(), access_log=None, shutdown_timeout=0.1)
        try:
            await server.setup()
            await web.TCPSite(server, LOOPBACK, self._port, reuse_address=True).start()
        except OSError as error:
            self._error = error
        else:
            self._started.set()
            await self._stopping.wait()
        finally:
            self._started.set()
            await server.cleanup()
