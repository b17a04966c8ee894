"""The CDN: an S3-compatible store that one user writes and another reads.

aiobotocore is imported when a client is opened, since it takes some 35 MB that an idle daemon does not need. The checksums of newer
botocore are sent only where a call demands them: several stores refuse them, and what was uploaded is compared by its own SHA-256.
"""

import asyncio
import functools
import importlib
import io
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from azaion_daemon.errors import OperatorError, OutsideError, ReleaseError
from azaion_daemon.health import beat
from azaion_daemon.publish.credentials import CdnCredentials
from azaion_daemon.publish.uploads import Upload, UploadJournal, told_time

PART_BYTES = 7 << 20  # S3 takes no less than 5 MiB; three of these in flight keep within 64 MB with aiobotocore itself
PARTS_IN_FLIGHT = 3
_CHUNK_BYTES = 1 << 20
_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 120  # a store that copies a large object is silent for a while
_ATTEMPTS = 4
_ABORT_TIMEOUT_S = 10.0

_FORBIDDEN = 403
_NOT_FOUND = 404
_NOT_ALLOWED = {_FORBIDDEN, _NOT_FOUND, 405, 501}  # what one may not read some stores call not there
_CLOCKS = {"RequestTimeTooSkewed", "RequestExpired"}


class CdnRefusedError(OutsideError):
    """The store does not accept the access key, or does not allow it what was asked."""


class NoSuchObjectError(ReleaseError):
    """The bucket, or the object in it, is not there."""


class ClockError(OutsideError):
    """The store's clock and ours are too far apart for signed requests."""


@dataclass(frozen=True)
class Stored:
    """An object as the store tells of it. The ETag says whether it is still the same one, not what is in it."""

    size: int
    etag: str


class Source(Protocol):
    """What is uploaded: a binary file, or anything that reads like one. It is read on a thread."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, all of it unless the end is reached; the bytes that it got, 0 at the end."""


@functools.cache
def _session() -> Any:
    """One session of aiobotocore for the process; keys and connections are its clients'.

    It keeps the description of S3 that it has read. Read anew for each release, that took 40 MB more and 130 ms of the event loop.
    """
    return importlib.import_module("aiobotocore.session").get_session()


class CdnClient:
    """A session at one bucket, for `async with`.

    What writes uses the uploader's key, what reads the downloader's. Every call raises CdnRefusedError for a key without the right,
    NoSuchObjectError for what is not there, OutsideError when the store is away or fails, OperatorError for a `ca_file` of no use.
    Multipart uploads are noted in `journal` while they are under way, so that those of a killed process can be aborted. `retried` is called
    for each request that is repeated.
    """

    def __init__(
        self,
        credentials: CdnCredentials,
        bucket: str,
        *,
        region: str,
        ca_file: Path | None = None,
        journal: UploadJournal | None = None,
        retried: Callable[[], None] = lambda: None,
    ) -> None:
        self._credentials = credentials
        self._bucket = bucket
        self._region = region
        self._ca_file = ca_file
        self._journal = journal
        self._retried = retried
        self._open = AsyncExitStack()
        self._uploader: Any = None
        self._downloader: Any = None

    async def __aenter__(self) -> Self:
        session = await asyncio.to_thread(_session)
        keys = self._credentials
        if self._ca_file is not None:
            await asyncio.to_thread(_check_certificates, self._ca_file)
        with self._outside("opening"):
            try:
                self._uploader = await self._client(session, keys.uploader_access_key, keys.uploader_access_secret.get_secret_value())
                self._downloader = await self._client(session, keys.downloader_access_key, keys.downloader_access_secret.get_secret_value())
            except ValueError as error:
                raise ReleaseError(
                    f"{keys.host!r} is not the address of an object store. Correct `host` in the CDN's credentials."
                ) from error
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        await self._open.aclose()

    async def upload(self, key: str, source: Source) -> str:
        """Put an object of any size in constant memory, by multipart upload: it appears whole, at the end, or not at all. Its ETag."""
        with self._outside(f"uploading {key}"):
            begun = await self._uploader.create_multipart_upload(Bucket=self._bucket, Key=key)
            upload = Upload(self._bucket, key, str(begun["UploadId"]))
            try:
                if self._journal is not None:
                    await asyncio.to_thread(self._journal.add, upload)
                parts = await self._upload_parts(upload, source)
                done = await self._uploader.complete_multipart_upload(**upload.named(), MultipartUpload={"Parts": parts})
            except BaseException:
                await self.abort(upload)
                raise
            if self._journal is not None:
                await asyncio.to_thread(self._journal.remove, upload)
            return _etag(done)

    async def put(self, key: str, content: bytes) -> None:
        """Put a small object in one request."""
        with self._outside(f"uploading {key}"):
            await self._uploader.put_object(Bucket=self._bucket, Key=key, Body=io.BytesIO(content), ContentLength=len(content))

    async def copy(self, source_key: str, key: str) -> str | None:
        """Copy an object on the server; its ETag, or None where the store, or the uploader's rights, do not allow it."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - see the module's docstring

        with self._outside(f"copying {source_key} to {key}"):
            try:
                done = await self._uploader.copy_object(
                    Bucket=self._bucket, Key=key, CopySource={"Bucket": self._bucket, "Key": source_key}
                )
            except ClientError as error:
                if _status(error) in _NOT_ALLOWED and _code(error) not in _CLOCKS:
                    return None
                raise
        return _etag(done.get("CopyObjectResult") or {})

    async def remove(self, key: str) -> bool:
        """Remove an object, if it is there; False where the store, or the uploader's rights, do not allow it."""
        with suppress(NoSuchObjectError):
            try:
                with self._outside(f"removing {key}"):
                    await self._uploader.delete_object(Bucket=self._bucket, Key=key)
            except CdnRefusedError:
                return False
        return True

    async def look(self, key: str) -> Stored:
        """What the store tells of an object."""
        with self._outside(f"looking for {key}"):
            answer = await self._downloader.head_object(Bucket=self._bucket, Key=key)
            return Stored(int(answer["ContentLength"]), _etag(answer))

    async def download(self, key: str) -> AsyncGenerator[bytes, None]:
        """An object's content in chunks of at most 1 MiB."""
        with self._outside(f"downloading {key}"):
            answer = await self._downloader.get_object(Bucket=self._bucket, Key=key)
            async with answer["Body"]:
                while chunk := await answer["Body"].read(_CHUNK_BYTES):
                    beat()
                    yield chunk

    async def unfinished_uploads(self, prefix: str) -> list[tuple[Upload, float]] | None:
        """The multipart uploads under way, and their age in seconds by the store's clock; None where the uploader may not list them."""
        found: list[tuple[Upload, float]] = []
        marker: dict[str, str] = {}
        try:
            with self._outside("listing uploads"):
                while True:
                    page = await self._uploader.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **marker)
                    now = told_time(page["ResponseMetadata"]["HTTPHeaders"].get("date"))
                    for left in page.get("Uploads", []):
                        begun: datetime = left["Initiated"]
                        found.append((Upload(self._bucket, left["Key"], left["UploadId"]), (now - begun).total_seconds()))
                    after = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
                    if not page.get("IsTruncated") or after == marker or not after["KeyMarker"]:
                        return found
                    marker = {name: value for name, value in after.items() if value}
        except (CdnRefusedError, NoSuchObjectError):
            return None

    async def abort(self, upload: Upload) -> bool:
        """Give back the space of an upload; whether it is gone. While the store is away it stays in the journal."""
        gone = True
        try:
            with suppress(NoSuchObjectError), self._outside("aborting an upload"):
                async with asyncio.timeout(_ABORT_TIMEOUT_S):
                    await self._uploader.abort_multipart_upload(**upload.named())
        except CdnRefusedError:  # it will be so the next time; or it was completed, and the uploader may not see that
            gone = False
        except OutsideError:
            return False
        if self._journal is not None:
            await asyncio.to_thread(self._journal.remove, upload)
        return gone

    async def _client(self, session: Any, key: str, secret: str) -> Any:
        from aiobotocore.config import AioConfig  # noqa: PLC0415 - see the module's docstring

        config = AioConfig(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            s3={"addressing_style": "path"},
        )
        creating = session.create_client(
            "s3",
            endpoint_url=self._credentials.endpoint,
            region_name=self._region,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            verify=str(self._ca_file) if self._ca_file else None,
            config=config,
        )
        client = await self._open.enter_async_context(creating)
        client.meta.events.register("request-created.s3", self._note_attempt)
        return client

    def _note_attempt(self, request: Any, **_: Any) -> None:
        """The library repeats requests by itself, and counts."""
        if request.context.get("retries", {}).get("attempt", 1) > 1:
            self._retried()

    async def _upload_parts(self, upload: Upload, source: Source) -> list[dict[str, Any]]:
        """Upload all parts, several at a time, and give the list that completes the upload."""
        parts: list[dict[str, Any]] = []
        turn = asyncio.Lock()
        numbers = iter(range(1, 10_001))

        async def work() -> None:
            part = io.BytesIO(bytes(PART_BYTES))  # filled and sent over and over: memory stays as it is, and nothing is copied
            while True:
                async with turn:
                    with part.getbuffer() as buffer:
                        size = await asyncio.to_thread(source.readinto, buffer)
                    if not size:
                        return
                    number = next(numbers)
                part.truncate(size)
                part.seek(0)
                answer = await self._uploader.upload_part(**upload.named(), PartNumber=number, Body=part)
                beat()
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(PARTS_IN_FLIGHT):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others follow from it
        return sorted(parts, key=lambda part: int(part["PartNumber"]))

    @contextmanager
    def _outside(self, doing: str) -> Iterator[None]:
        """Turn what aiobotocore raises into errors for the operator."""
        import aiohttp  # noqa: PLC0415 - see the module's docstring
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
        from botocore.parsers import ResponseParserError  # noqa: PLC0415

        where = f"The object store at {self._credentials.host}, {doing} in bucket {self._bucket}"
        beat()
        try:
            yield
        except ClientError as error:
            raise _explained(where, error) from error
        except (ResponseParserError, KeyError) as error:
            raise OutsideError(f"{where}: what answers there does not speak S3. Check `host` in the CDN's credentials.") from error
        except (BotoCoreError, aiohttp.ClientError, OSError) as error:
            why = str(error) or type(error).__name__
            hint = "publish.cdn_ca_file" if "CERTIFICATE" in why else "its address and the network"
            raise OutsideError(f"{where}: {why}. Check {hint}; try again later.") from error


def _explained(where: str, error: Any) -> OutsideError:
    """What stands for an error that the store answers with."""
    code = _code(error)
    if code in _CLOCKS:
        return ClockError(f"{where}: the clocks differ too much ({code}). Compare this machine's with the time: timedatectl.")
    match _status(error):
        case 403:
            return CdnRefusedError(f"{where}: refused ({code}). Check the access keys in the CDN's credentials and their rights.")
        case 404:
            return NoSuchObjectError(f"{where}: not there ({code}). Check publish.bucket and what is in it.")
        case status:
            return OutsideError(f"{where}: HTTP {status} ({code}). Try again later; the store's log says more.")


def _check_certificates(file: Path) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise OperatorError(f"publish.cdn_ca_file {file} is not a readable file of certificates: {error}") from error


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _etag(answer: Any) -> str:
    return str(answer.get("ETag") or "").strip('"')
