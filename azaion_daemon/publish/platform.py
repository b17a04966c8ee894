"""The platform's REST API, as far as the daemon needs it: log in, fetch, upload, list, check.

A call that may be repeated is repeated a few times when the network, or a server that is busy or starting, is the cause. A login is so only
where the server surely has not looked at it, and a refused one is not: blind retries lock the account. So credentials that were refused
stay refused, over restarts too, until they change or an operator asks.

Newer servers give a RefreshToken as well. It is not used: a token holds for 15 minutes, so a release of an hour takes four logins, and
another secret that ends by itself would have to be kept for no more than that.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import SecretStr

from azaion_daemon.errors import OutsideError
from azaion_daemon.health import holding, waiting_for
from azaion_daemon.logs import get_logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.publish import answers
from azaion_daemon.publish.cipher import CipherError, decrypt
from azaion_daemon.publish.exchange import Session, document, endpoint, exchange
from azaion_daemon.publish.hardware import hardware_string, masked
from azaion_daemon.publish.keys import aes_key, api_key
from azaion_daemon.publish.refusal import RefusedLogin
from azaion_daemon.sections import ApiSettings

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

_NOT_LOOKED_AT = {  # by the platform itself, so that a login does not count
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_LOCKED_S = 900.0  # when a server does not say for how long an account is locked

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
    of no use, StorageError when the kept hardware string or refusal cannot be read or written.
    """

    def __init__(
        self, settings: ApiSettings, kept_hardware: Path, *, retry: RetryRule = RetryRule(), kept_refusal: Path | None = None
    ) -> None:
        self._session = Session(settings)
        self._retired: list[Session] = []
        self._kept_hardware = kept_hardware
        self._kept_refusal = None if kept_refusal is None else RefusedLogin(kept_refusal)
        self._retry = retry
        self._repeats = Repeats()
        self.retries = 0
        """How many requests were repeated since the start."""

    @property
    def login_refused(self) -> bool:
        """Whether the platform refuses the login, so that nothing is asked of it."""
        return bool(self._session.refusal)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        for session in (self._session, *self._retired):
            await session.close()
        self._retired.clear()

    def reconfigure(self, settings: ApiSettings) -> None:
        """Work with other settings from the next call on; what is under way ends with those that it has.

        The same settings again mean that an operator wants another try: what was refused, or asked for patience, is forgotten. A file of
        certificates is read again, since it may have been renewed.
        """
        if settings == self._session.settings and settings.ca_file is None:
            self._session.refusal, self._session.not_before = "", 0.0
        else:
            self._retired.append(self._session)
            self._session = Session(settings)
        self._session.asked = True

    async def log_in(self) -> None:
        """Have a token, by a login where there is none yet."""
        session = self._session
        session.calls += 1
        try:
            await self._valid_token(session)
        finally:
            session.calls -= 1
            await self._close_retired()

    async def hardware(self) -> SecretStr:
        """The hardware string that this machine shows the platform."""
        return await hardware_string(self._session.settings.hardware, self._kept_hardware)

    async def current_user(self) -> dict[str, Any]:
        """The account that is logged in, as the platform describes it."""
        answer = await self._call("GET", "/users/current")
        match document(answer):
            case dict() as user:
                return user
            case _:
                raise _unreadable(self._session, answer)

    async def check_hardware(self) -> None:
        """Ask whether the account may work from this machine; an error if not."""
        hardware = await self.hardware()
        await self._call("POST", "/resources/check", hardware, json={"hardware": hardware.get_secret_value()})

    async def get_resource(self, folder: str, name: str) -> bytes:
        """Fetch and decrypt a file.

        Raises:
            NoSuchResourceError: There is none of that name.
            NotServedError: This server hands out no files.
        """
        settings, hardware = self._session.settings, await self.hardware()
        body = {"password": settings.password.get_secret_value(), "hardware": hardware.get_secret_value(), "fileName": name}
        answer = await self._call("POST", endpoint("/resources/get", folder), hardware, json=body)
        try:
            return decrypt(answer.content, aes_key(api_key(settings.email, settings.password, hardware)))
        except CipherError as error:
            raise PlatformError(
                f"The platform at {settings.url.host} sent {name} encrypted for another account, password or machine. "
                "Check AZAION_API_EMAIL, AZAION_API_PASSWORD and api.hardware."
            ) from error

    async def upload(self, folder: str, name: str, content: bytes) -> None:
        """Put a file in the place of one with the same name. It is held in memory: for small ones.

        The server deletes the old file first, so for a moment, or after a failure, there is none.
        """
        await self._call("POST", endpoint("/resources", folder), files={"data": (name, content)})

    async def list(self, folder: str) -> list[str]:
        """The names of the files in a folder."""
        answer = await self._call("GET", endpoint("/resources/list", folder))
        if (names := answers.names(document(answer))) is None:
            raise _unreadable(self._session, answer)
        return names

    async def _call(self, method: str, path: str, hardware: SecretStr | None = None, **request: Any) -> httpx.Response:
        """A call with a token; a token that is refused is replaced once. `hardware` is the string that is sent with it."""
        session = self._session
        session.calls += 1
        try:
            token = await self._valid_token(session)
            answer = await self._send(session, method, path, token, **request)
            if answer.status_code in _NOT_ALLOWED:
                token = await self._valid_token(session, refused=token)
                answer = await self._send(session, method, path, token, **request)
            try:
                _check(session, answer, path, hardware="" if hardware is None else masked(hardware))
            except LoginRefusedError as error:
                await self._refused(session, error)
                raise
            return answer
        finally:
            session.calls -= 1
            await self._close_retired()

    async def _close_retired(self) -> None:
        idle = [session for session in self._retired if not session.calls]
        self._retired = [session for session in self._retired if session.calls]
        for session in idle:
            await session.close()

    async def _valid_token(self, session: Session, refused: SecretStr | None = None) -> SecretStr:
        async with holding(session.login, "a login that is under way"):
            if session.refusal:
                raise LoginRefusedError(session.refusal)
            if (left_s := session.not_before - time.monotonic()) > 0:
                message = f"{session.name} asked for patience; it is left alone for another {left_s:.0f} s."
                raise PlatformError(message, retry_after_s=left_s)
            if session.token is None or session.token == refused or time.monotonic() >= session.token_ends_at:
                await self._heed_kept_refusal(session)
                try:
                    await self._log_in(session)
                except LoginRefusedError as error:
                    await self._refused(session, error)
                    raise
            assert session.token is not None
            return session.token

    async def _heed_kept_refusal(self, session: Session) -> None:
        """Do not try what was refused before a restart."""
        if self._kept_refusal is None:
            return
        if session.asked:
            session.asked = False
            await asyncio.to_thread(self._kept_refusal.forget)
        elif session.token is None and (why := await asyncio.to_thread(self._kept_refusal.load, session.settings)):
            session.refusal = why
            raise LoginRefusedError(why)

    async def _refused(self, session: Session, error: LoginRefusedError) -> None:
        session.refusal = str(error)
        if self._kept_refusal is not None:
            await asyncio.to_thread(self._kept_refusal.keep, session.settings, session.refusal)

    async def _log_in(self, session: Session) -> None:
        body = {"email": session.settings.email, "password": session.settings.password.get_secret_value()}
        answer = await self._send(session, "POST", _LOGIN, None, json=body)
        _check(session, answer, _LOGIN)
        token = answers.token(document(answer))
        if token is None:
            raise _unreadable(session, answer)
        session.token = SecretStr(token)
        session.token_ends_at = time.monotonic() + answers.usable_s(token, now=time.time())
        log.info("platform.login", email=session.settings.email)

    async def _send(self, session: Session, method: str, path: str, token: SecretStr | None, **request: Any) -> httpx.Response:
        """One request, repeated while the cause may pass. The answer may still be a refusal."""
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token is not None else {}
        attempt = 1
        while True:
            cause: Exception | None = None
            asked_s, repeatable = 0.0, True
            try:
                answer = await exchange(session, method, path, headers=headers, **request)
            except (httpx.RequestError, TimeoutError) as error:
                cause, why = error, str(error) or f"no answer ({type(error).__name__})"
                repeatable = path != _LOGIN or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            else:
                if answer.status_code not in _PASSING:
                    self._repeats.clear(method, path)
                    return answer
                asked_s = answers.retry_after_s(
                    answer.headers.get("Retry-After"), document(answer), date=answer.headers.get("Date"), now=time.time()
                )
                why = f"HTTP {answer.status_code} {answer.reason_phrase}"
                repeatable = path != _LOGIN or answer.status_code in _NOT_LOOKED_AT
                if answer.status_code == HTTPStatus.LOCKED:  # each try may prolong the lock
                    repeatable, asked_s = False, asked_s or _LOCKED_S
            if not repeatable or attempt >= self._retry.attempts or asked_s > self._retry.most_s:
                session.not_before = time.monotonic() + asked_s
                after = f" It is left alone for {asked_s:.0f} s." if asked_s else ""
                hint = " Set api.ca_file if its certificate is signed by an authority of your own." if "CERTIFICATE" in why else ""
                message = f"{session.name} does not answer {path}: {why}.{after}{hint} Try again later."
                raise PlatformError(message, retry_after_s=asked_s) from cause
            wait_s = self._retry.wait_s(attempt, asked_s)
            if (seen := self._repeats.count(method, path, why)) is not None:
                log.warning(
                    "platform.retry",
                    call=f"{method} {path}",
                    why=why,
                    attempt=attempt,
                    retry_in_s=round(wait_s, 1),
                    repeated=seen.times,
                    for_s=seen.for_s,
                )
            self.retries += 1
            with waiting_for(f"the platform: {why}"):
                await asyncio.sleep(wait_s)
            attempt += 1


def _check(session: Session, answer: httpx.Response, path: str, *, hardware: str = "") -> None:
    """Raise what stands for an answer that is no success. `hardware` is what was sent, masked."""
    if answer.is_success:
        return
    status, email = answer.status_code, session.settings.email
    code = answers.error_code(document(answer))
    if status == HTTPStatus.CONFLICT and code is not None:
        message = f"{session.name} refuses {path}: {answers.sentence(code, email, hardware)}."
        if code in answers.LOGIN_CODES:
            raise LoginRefusedError(message)
        raise NoSuchResourceError(message) if code in answers.FILE_CODES else PlatformError(message)
    if status in _NOT_ALLOWED and path == _LOGIN:
        raise LoginRefusedError(f"{session.name} refuses the login of {email}. Correct AZAION_API_PASSWORD, then reload.")
    if status in _NOT_ALLOWED:
        raise PlatformError(
            f"{session.name} does not allow {email} to use {path}, even after a new login. "
            "Ask an administrator of the platform for the right."
        )
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        raise NotServedError(f"{session.name} has no {path}. Check AZAION_API_URL and which generation the server is.")
    raise PlatformError(
        f"{session.name} answers {path} with HTTP {status} {answer.reason_phrase}. Check AZAION_API_URL; the server's log says more."
    )


def _unreadable(session: Session, answer: httpx.Response) -> PlatformError:
    return PlatformError(f"{session.name} answers {answer.url.path} with something else than its contract says. Check AZAION_API_URL.")
