"""Where the CDN's credentials come from: `cdn.yaml` on the platform, or a local file of the same form."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import aiofiles
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from azaion_daemon.errors import OperatorError, ReleaseError
from azaion_daemon.logs import get_logger
from azaion_daemon.publish.platform import NotServedError, PlatformClient
from azaion_daemon.settings import Settings

_LONGEST = 65_536  # bytes: the platform may send anything, and YAML is parsed slowly

log = get_logger(__name__)


class CdnCredentials(BaseModel):
    """The keys of two users of an S3-compatible store: one writes, one reads. Secrets do not show in its repr."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, coerce_numbers_to_str=True)

    host: str = Field(min_length=1)
    downloader_access_key: str = Field(min_length=1)
    downloader_access_secret: SecretStr = Field(min_length=1)
    uploader_access_key: str = Field(min_length=1)
    uploader_access_secret: SecretStr = Field(min_length=1)

    @field_validator("host")
    @classmethod
    def _of_the_web(cls, host: str) -> str:
        if "@" in host:
            raise ValueError("must not hold a user or a password")
        scheme, separator, _ = host.partition("://")
        if separator and scheme.lower() not in {"http", "https"}:
            raise ValueError("must be the host of an object store, or its http or https address")
        return host

    @property
    def endpoint(self) -> str:
        """The store's URL; a host without a scheme is spoken to over TLS."""
        return self.host if "://" in self.host else f"https://{self.host}"


CredentialsSource = Callable[[], Awaitable[CdnCredentials]]
"""Fetches the credentials as they are now."""


def parse_credentials(content: bytes, *, source: str) -> CdnCredentials:
    """Read a cdn.yaml; `source` is what the error calls it.

    Raises:
        ReleaseError: It is no such file. The message names keys, never values.
    """
    if len(content) > _LONGEST:
        raise ReleaseError(f"{source} has {len(content)} bytes, which is no file of credentials. {_EXPECTED}")
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise ReleaseError(f"{source} is not valid YAML. {_EXPECTED}") from None  # the parser's message would show a secret
    if not isinstance(document, dict):
        raise ReleaseError(f"{source} is not a mapping. {_EXPECTED}")
    try:
        return CdnCredentials.model_validate(document)
    except ValidationError as error:
        keys = sorted({str(fault["loc"][0]) for fault in error.errors(include_url=False, include_input=False)})
        raise ReleaseError(f"{source} lacks a usable {', '.join(keys)}. {_EXPECTED}") from None


_EXPECTED = f"It must hold {', '.join(CdnCredentials.model_fields)}."


def credentials_source(settings: Settings, platform: PlatformClient) -> CredentialsSource:
    """The source that the settings name: `publish.cdn_credentials_file`, else the platform.

    It raises OperatorError for a file that cannot be read, ReleaseError for content of another form, PlatformError as `get_resource`.
    """
    file, folder, name = settings.publish.cdn_credentials_file, settings.api.cdn_folder, settings.api.cdn_file

    async def from_file(path: Path) -> CdnCredentials:
        try:
            async with aiofiles.open(path, "rb") as file:
                content = await file.read(_LONGEST + 1)
        except OSError as error:
            raise OperatorError(f"publish.cdn_credentials_file {path} cannot be read: {error.strerror or error}") from error
        return parse_credentials(content, source=str(path))

    async def from_platform() -> CdnCredentials:
        try:
            content = await platform.get_resource(folder, name)
        except NotServedError as error:
            raise OperatorError(
                f"the platform no longer hands out {name}. Put the CDN's credentials into a local file of that form and name it in "
                "publish.cdn_credentials_file."
            ) from error
        return parse_credentials(content, source=name)

    async def fetch() -> CdnCredentials:
        credentials = await (from_platform() if file is None else from_file(file))
        log.info("cdn.credentials", source=str(file or "platform"), host=credentials.host, uploader=credentials.uploader_access_key)
        return credentials

    return fetch
