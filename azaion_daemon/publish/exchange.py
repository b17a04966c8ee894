"""One request to the platform and its whole answer, over connections that belong to one set of settings."""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from azaion_daemon.errors import OperatorError
from azaion_daemon.health import waiting_for
from azaion_daemon.sections import ApiSettings

_MOST_BYTES = 64 << 20
_TIMEOUTS_A_CALL = 4  # a server that sends a byte now and then never runs into one of httpx's


@dataclass
class Session:
    """What belongs to one set of settings."""

    settings: ApiSettings
    http: httpx.AsyncClient | None = None
    token: SecretStr | None = None
    token_ends_at: float = 0.0  # monotonic
    not_before: float = 0.0  # monotonic
    login: asyncio.Lock = field(default_factory=asyncio.Lock)
    refusal: str = ""
    asked: bool = False  # an operator wants a login to be tried, whatever became of the last one
    calls: int = 0

    @property
    def name(self) -> str:
        """What messages call the other side."""
        return f"The platform at {self.settings.url.host}"

    async def close(self) -> None:
        """Close its connections; the next call would open new ones."""
        if self.http is not None:
            await self.http.aclose()
            self.http = None


def _client(session: Session) -> httpx.AsyncClient:
    if session.http is None:
        settings = session.settings
        verify: ssl.SSLContext | bool = True
        if settings.ca_file is not None:
            try:
                verify = ssl.create_default_context(cafile=settings.ca_file)
            except OSError as error:
                raise OperatorError(f"api.ca_file {settings.ca_file} is not a readable file of certificates: {error}") from error
        session.http = httpx.AsyncClient(
            base_url=str(settings.url),
            timeout=settings.timeout_s,
            verify=verify,
            follow_redirects=False,  # a password goes where the operator says and nowhere else
            headers={"Accept-Encoding": "identity"},
        )
    return session.http


async def exchange(session: Session, method: str, path: str, **request: Any) -> httpx.Response:
    """A request and its whole answer, which is held in memory: one without end is an httpx.RequestError.

    Raises:
        httpx.RequestError: No answer, or half of one.
        TimeoutError: It took too long as a whole.
        OperatorError: `api.ca_file` is of no use.
    """
    with waiting_for("the platform's answer"):  # which has a limit of its own, and operators may raise it above that of a step
        async with (
            asyncio.timeout(_TIMEOUTS_A_CALL * session.settings.timeout_s),
            _client(session).stream(method, path, **request) as answer,
        ):
            if (packed := answer.headers.get("Content-Encoding", "identity")) != "identity":  # a few bytes of it may become gigabytes
                raise httpx.DecodingError(f"the answer is packed ({packed[:20]}), which was not asked for")
            size = 0
            content = []
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > _MOST_BYTES:
                    raise httpx.DecodingError(f"the answer is longer than {_MOST_BYTES} bytes")
                content.append(chunk)
    headers = [(name, value) for name, value in answer.headers.multi_items() if name not in {"content-encoding", "transfer-encoding"}]
    return httpx.Response(answer.status_code, headers=headers, content=b"".join(content), request=answer.request)


def document(answer: httpx.Response) -> Any:
    """The JSON of an answer, or None where there is none."""
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def endpoint(path: str, folder: str) -> str:
    """The path of an endpoint for a folder; the root folder is the empty name."""
    folder = folder.strip("/")
    return f"{path}/{quote(folder)}" if folder else path
