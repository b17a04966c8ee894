"""What a release needs: key, ONNX Runtime, the platform and its account, the CDN and the rights there.

Whether the account may upload to publish.folder is not tried: the platform's API can put a file there but not remove one, so the try would
stay for every consumer to see, and to put again what is there has moments in which it is not. That the folder can be listed is looked at.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

from azaion_daemon.errors import StorageError
from azaion_daemon.ops.doctor.findings import AS_THE_DAEMON, Finding, Outcome, Subject
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.credentials import credentials_source
from azaion_daemon.publish.exchange import Session, exchange
from azaion_daemon.publish.hardware import masked, may_be_kept
from azaion_daemon.publish.platform import LoginRefusedError, NotServedError, PlatformError
from azaion_daemon.publish.refusal import RefusedLogin
from azaion_daemon.publish.signing import SigningKeys
from azaion_daemon.settings import Settings


async def _signing_key(patient: Patient) -> Finding:
    keys = SigningKeys(patient.layout, patient.settings.publish.signing_key_file)
    if (key := await asyncio.to_thread(keys.load)) is None:
        return Finding(
            Outcome.WARNING,
            f"there is none yet; the first release makes {keys.source}, and consumers need its public part",
            "Make it now, once there is a root, as the user of the daemon: azaion-daemon model key",
        )
    return Finding(Outcome.OK, f"{keys.source} can be read, by nobody else; key id {key.public.id[:12]}")


async def _runtime(patient: Patient) -> Finding:
    if (why := patient.probe.hindrance) is not None:
        return Finding(
            Outcome.WARNING,
            f"{why}: releases are compared byte by byte, but not run",
            "Install onnxruntime beside the daemon, or onnxruntime-gpu on a server with a GPU",
        )
    return Finding(Outcome.OK, "ONNX Runtime is there, to run what consumers get")


async def _connection(patient: Patient) -> Finding:
    """Any answer will do: who we are is the next subject's."""
    session = Session(patient.settings.api)
    asked = time.time()
    try:
        answer = await exchange(session, "GET", "/users/current")
    except (httpx.RequestError, TimeoutError) as error:
        return _not_connected(session, error)
    finally:
        await session.close()
    patient.clock_ahead_s = _ahead_s(answer.headers.get("date", ""), asked, time.time())
    return Finding(Outcome.OK, f"{session.name} answers (HTTP {answer.status_code} without a login)")


def _ahead_s(date: str, asked: float, answered: float) -> float | None:
    """How far our clock is ahead of one that said `date` between those moments; 0 where the whole seconds of it allow that."""
    try:
        theirs = parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    if theirs + 1 < asked:
        return asked - theirs - 1
    return min(0.0, answered - theirs)


def _not_connected(session: Session, error: Exception) -> Finding:
    causes = list(_causes(error))
    why = str(error) or type(error).__name__
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return Finding(
            Outcome.BROKEN, f"the name {session.settings.url.host} is not known: {why}", "Check AZAION_API_URL and this machine's DNS"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        remedy = "Set api.ca_file if its certificate is signed by an authority of your own; look at this machine's clock: timedatectl"
        return Finding(Outcome.BROKEN, f"no secure connection to {session.settings.url.host}: {why}", remedy)
    return Finding(
        Outcome.BROKEN, f"{session.name} does not answer: {why}", "Check AZAION_API_URL, the network and whether the server runs"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def _login(patient: Patient) -> Finding:
    """As the daemon does it, once. What was refused before is not tried again: that would lock the account."""
    api = patient.settings.api
    try:
        why = await asyncio.to_thread(RefusedLogin(patient.layout.refused_login).load, api)
    except StorageError as error:  # another user's file; it may say that these credentials are refused
        detail = f"whether it was refused before cannot be found out: {Finding.of(error).detail}"
        return Finding(Outcome.UNCHECKED, detail, AS_THE_DAEMON)
    if why is not None:
        found = Finding.of(LoginRefusedError(why))
        return Finding(Outcome.BROKEN, f"{found.detail}. It was refused before, and is not tried again", found.remedy)
    try:
        await patient.platform.current_user()
    except LoginRefusedError as error:
        found = Finding.of(error)
        return Finding(Outcome.BROKEN, f"{found.detail}. Some servers lock an account that is tried often", found.remedy)
    return Finding(Outcome.OK, f"{api.email} is logged in")


async def _hardware(patient: Patient) -> Finding:
    configured, kept = patient.settings.api.hardware, patient.layout.hardware
    if not configured and not await asyncio.to_thread(may_be_kept, kept):
        return Finding(
            Outcome.UNCHECKED,
            f"the string that the account is bound to is computed once and kept in {kept}, which this user cannot do now",
            f"{AS_THE_DAEMON}, after init; or set api.hardware",
        )
    shown = masked(await patient.platform.hardware())
    source = "api.hardware" if configured else f"{kept}, where it was computed once"
    try:
        await patient.platform.check_hardware()
    except NotServedError as error:
        return Finding(Outcome.UNCHECKED, Finding.of(error).detail)
    except PlatformError as error:
        found = Finding.of(error)
        where = f". What was shown is from {source}" if shown in found.detail else ""
        return Finding(Outcome.BROKEN, f"{found.detail}{where}", found.remedy)
    return Finding(Outcome.OK, f"the account may work from this machine: {shown}, from {source}")


async def _folder(patient: Patient) -> Finding:
    folder = patient.settings.publish.folder
    try:
        names = await patient.platform.list(folder)
    except NotServedError as error:
        return Finding(Outcome.UNCHECKED, Finding.of(error).detail)
    small = f"{patient.settings.publish.name}.small"
    known = f"{small} is in it" if small in names else f"{small} is not in it yet"
    return Finding.ok(f"{folder} can be listed, and {known}; whether it may be written to is not tried, since nothing can be removed there")


async def _credentials(patient: Patient) -> Finding:
    publish = patient.settings.publish
    credentials = await credentials_source(patient.settings, patient.platform)()
    client = CdnClient(credentials, publish.bucket, region=publish.cdn_region, ca_file=publish.cdn_ca_file)
    patient.cdn = await patient.open.enter_async_context(client)
    return Finding(Outcome.OK, f"obtained from {publish.cdn_credentials_file or 'the platform'}, for the store at {credentials.host}")


async def _upload(patient: Patient) -> Finding:
    await patient.store.put(patient.object, patient.content)
    return Finding(Outcome.OK, f"the uploader may write to bucket {patient.settings.publish.bucket}; the clocks agree well enough")


async def _download(patient: Patient) -> Finding:
    got = b"".join([chunk async for chunk in patient.store.download(patient.object)])
    if got != patient.content:
        return Finding(
            Outcome.BROKEN,
            f"the store does not give back what was just put as {patient.object}",
            "Look for a cache or proxy before the store, or another doctor at this moment; then run it again",
        )
    return Finding(Outcome.OK, "the downloader may read what the uploader puts")


async def _removal(patient: Patient) -> Finding:
    if await patient.store.remove(patient.object):
        return Finding(Outcome.OK, "the uploader may remove objects")
    return Finding(
        Outcome.WARNING,
        f"the uploader may not remove objects: {patient.object} stays, and so do versioned parts beyond publish.keep_versions",
        "Let it remove them, or have the store's lifecycle rules do it",
    )


def subjects(settings: Settings) -> Sequence[Subject[Patient]]:
    """What is looked at, in this order."""
    from_platform = settings.publish.cdn_credentials_file is None
    return [
        Subject("signing key", _signing_key),
        Subject("ONNX Runtime", _runtime),
        Subject("platform", _connection),
        Subject("platform login", _login, needs=("platform",)),
        Subject("platform hardware", _hardware, needs=("platform login",)),
        Subject("platform folder", _folder, needs=("platform login",)),
        Subject("CDN credentials", _credentials, needs=("platform hardware",) if from_platform else (), after=("platform folder",)),
        Subject("CDN upload", _upload, needs=("CDN credentials",)),
        Subject("CDN download", _download, needs=("CDN upload",)),
        Subject("CDN removal", _removal, needs=("CDN upload",), after=("CDN download",)),
    ]
