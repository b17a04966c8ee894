"""The platform's REST API, as far as the daemon needs it: log in, fetch, upload, list, check.

A call that may be repeated is repeated a few times when the network, or a server that is busy or starting, is the cause. A refused login is
not: blind retries lock the account. So a client whose credentials were refused stays refused; changed settings take a new client.
"""

import asyncio
import random
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from azaion_daemon.errors import OperatorError, OutsideError
from azaion_daemon.logs import get_logger
from azaion_daemon.publish import answers
from azaion_daemon.publish.cipher import CipherError, decrypt
from azaion_daemon.publish.hardware import hardware_string
from azaion_daemon.publish.keys import aes_key, api_key
from azaion_daemon.settings import ApiSettings

_LOGIN = "/login"
_NOT_ALLOWED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.LOCKED,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}

log = get_logger(__name__)


class PlatformError(OutsideError):
    """The platform did not do what was asked. `retry_after_s` is the wait that it asked for, 0 without one."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LoginRefusedError(PlatformError):
    """The credentials are refused. Trying again does not help and may lock the account."""


class NoSuchResourceError(PlatformError):
    """The platform holds no file of that name."""


class NotServedError(PlatformError):
    """This server does not have the endpoint: newer ones hand out no resources."""


@dataclass(frozen=True)
class RetryRule:
    """How often and after which waits (seconds) a call is repeated: capped exponential, with jitter."""

    attempts: int = 5
    first_s: float = 0.5
    most_s: float = 30.0

    def wait_s(self, attempt: int, asked_s: float) -> float:
        """The wait after a failed attempt, counted from 1; at least what the server asked for."""
        grown = min(self.most_s, self.first_s * 2 ** (attempt - 1))
        return max(asked_s, random.uniform(grown / 2, grown))  # noqa: S311 - spreads load, guards nothing


class PlatformClient:
    """A session at the platform: it logs in when first needed and keeps its token until shortly before it ends.

    Every call raises PlatformError or one of its subclasses when the platform is away or refuses, OperatorError when `api.ca_file` is
    of no use, StorageError when the kept hardware string cannot be read or written.
    """

    def __init__(self, settings: ApiSettings, kept_hardware: Path, *, retry: RetryRule = RetryRule()) -> None:
        self._settings = settings
        self._kept_hardware = kept_hardware
        self._retry = retry
        self._http: httpx.AsyncClient | None = None
        self._token = ""
        self._token_ends_at = 0.0  # monotonic
        self._login = asyncio.Lock()
        self._refusal = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def hardware(self) -> str:
        """The hardware string that this machine shows the platform."""
        return await hardware_string(self._settings.hardware, self._kept_hardware)

    async def current_user(self) -> dict[str, Any]:
        """The account that is logged in, as the platform describes it."""
        answer = await self._call("GET", "/users/current")
        match _document(answer):
            case dict() as user:
                return user
            case _:
                raise self._unreadable(answer)

    async def check_hardware(self) -> None:
        """Ask whether the account may work from this machine; an error if not."""
        await self._call("POST", "/resources/check", json={"hardware": await self.hardware()})

    async def get_resource(self, folder: str, name: str) -> bytes:
        """Fetch and decrypt a file.

        Raises:
            NoSuchResourceError: There is none of that name.
            NotServedError: This server hands out no files.
        """
        password, hardware = self._settings.password.get_secret_value(), await self.hardware()
        body = {"password": password, "hardware": hardware, "fileName": name}
        answer = await self._call("POST", _path("/resources/get", folder), json=body)
        try:
            return decrypt(answer.content, aes_key(api_key(self._settings.email, password, hardware)))
        except CipherError as error:
            raise PlatformError(
                f"{self._name} sent {name} encrypted for another account, password or machine. "
                "Check AZAION_API_EMAIL, AZAION_API_PASSWORD and api.hardware."
            ) from error

    async def upload(self, folder: str, name: str, content: bytes) -> None:
        """Put a file in the place of one with the same name. It is held in memory: for small ones.

        The server deletes the old file first, so for a moment, or after a failure, there is none.
        """
        await self._call("POST", _path("/resources", folder), files={"data": (name, content)})

    async def list(self, folder: str) -> list[str]:
        """The names of the files in a folder."""
        answer = await self._call("GET", _path("/resources/list", folder))
        if (names := answers.names(_document(answer))) is None:
            raise self._unreadable(answer)
        return names

    @property
    def _name(self) -> str:
        return f"The platform at {self._settings.url.host}"

    async def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """A call with a token; a token that is refused is replaced once."""
        token = await self._valid_token()
        answer = await self._send(method, path, token, **request)
        if answer.status_code in _NOT_ALLOWED:
            token = await self._valid_token(refused=token)
            answer = await self._send(method, path, token, **request)
        try:
            self._check(answer, path)
        except LoginRefusedError as error:
            self._refusal = str(error)
            raise
        return answer

    async def _valid_token(self, refused: str | None = None) -> str:
        async with self._login:
            if self._refusal:
                raise LoginRefusedError(self._refusal)
            if not self._token or self._token == refused or time.monotonic() >= self._token_ends_at:
                try:
                    await self._log_in()
                except LoginRefusedError as error:
                    self._refusal = str(error)
                    raise
            return self._token

    async def _log_in(self) -> None:
        body = {"email": self._settings.email, "password": self._settings.password.get_secret_value()}
        answer = await self._send("POST", _LOGIN, "", json=body)
        self._check(answer, _LOGIN)
        token = answers.token(_document(answer))
        if token is None:
            raise self._unreadable(answer)
        self._token = token
        self._token_ends_at = time.monotonic() + answers.usable_s(token, now=time.time())
        log.info("platform.login", email=self._settings.email)

    async def _send(self, method: str, path: str, token: str, **request: Any) -> httpx.Response:
        """One request, repeated while the cause may pass. The answer may still be a refusal."""
        http = self._client()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        attempt = 1
        while True:
            cause: httpx.RequestError | None = None
            asked_s, hopeless = 0.0, False
            try:
                answer = await http.request(method, path, headers=headers, **request)
            except httpx.RequestError as error:
                cause, why = error, str(error) or type(error).__name__
            else:
                if answer.status_code not in _PASSING:
                    return answer
                asked_s = answers.retry_after_s(answer.headers.get("Retry-After"), _document(answer))
                why = f"HTTP {answer.status_code} {answer.reason_phrase}"
                hopeless = answer.status_code == HTTPStatus.LOCKED and not asked_s  # each try may prolong the lock
            if hopeless or attempt >= self._retry.attempts or asked_s > self._retry.most_s:
                after = f" It asks to wait {asked_s:.0f} s." if asked_s else ""
                message = f"{self._name} does not answer {path}: {why}.{after} Try again later."
                raise PlatformError(message, retry_after_s=asked_s) from cause
            wait_s = self._retry.wait_s(attempt, asked_s)
            log.warning("platform.retry", call=f"{method} {path}", why=why, attempt=attempt, retry_in_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)
            attempt += 1

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            verify: ssl.SSLContext | bool = True
            if self._settings.ca_file is not None:
                try:
                    verify = ssl.create_default_context(cafile=self._settings.ca_file)
                except OSError as error:
                    raise OperatorError(f"api.ca_file {self._settings.ca_file} is not a readable file of certificates: {error}") from error
            self._http = httpx.AsyncClient(base_url=str(self._settings.url), timeout=self._settings.timeout_s, verify=verify)
        return self._http

    def _check(self, answer: httpx.Response, path: str) -> None:
        """Raise what stands for an answer that is no success."""
        if answer.is_success:
            return
        status = answer.status_code
        code = answers.error_code(_document(answer))
        if status == HTTPStatus.CONFLICT and code is not None:
            message = f"{self._name} refuses {path}: {answers.sentence(code, self._settings.email)}."
            if code in answers.LOGIN_CODES:
                raise LoginRefusedError(message)
            raise NoSuchResourceError(message) if code in answers.FILE_CODES else PlatformError(message)
        if status in _NOT_ALLOWED and path == _LOGIN:
            raise LoginRefusedError(f"{self._name} refuses the login of {self._settings.email}. Correct AZAION_API_PASSWORD, then reload.")
        if status in _NOT_ALLOWED:
            raise PlatformError(
                f"{self._name} does not allow {self._settings.email} to use {path}, even after a new login. "
                "Ask an administrator of the platform for the right."
            )
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            raise NotServedError(f"{self._name} has no {path}. Check AZAION_API_URL and which generation the server is.")
        raise PlatformError(
            f"{self._name} answers {path} with HTTP {status} {answer.reason_phrase}. Check AZAION_API_URL; the server's log says more."
        )

    def _unreadable(self, answer: httpx.Response) -> PlatformError:
        return PlatformError(f"{self._name} answers {answer.url.path} with something else than its contract says. Check AZAION_API_URL.")


def _document(answer: httpx.Response) -> Any:
    """The JSON of an answer, or None where there is none."""
    try:
        return answer.json()
    except ValueError:
        return None


def _path(endpoint: str, folder: str) -> str:
    folder = folder.strip("/")
    return f"{endpoint}/{quote(folder)}" if folder else endpoint
