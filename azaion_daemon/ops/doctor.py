"""What would make a release fail, found out before one does: from this machine, beside a daemon or before its first start.

Subjects are looked at one after the other, each with a limit of its own. One that fails hides no other; what rests on it is not checked.
Nothing is changed by it but one tiny object, which is put into the CDN's bucket to see whether that may be. Another subject is one more
line in `SUBJECTS`.
"""

import asyncio
import secrets
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

from azaion_daemon.errors import AzaionError, StorageError
from azaion_daemon.logs import logging_to
from azaion_daemon.ops.tables import table
from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.credentials import credentials_source
from azaion_daemon.publish.exchange import Session, exchange
from azaion_daemon.publish.hardware import masked, may_be_kept
from azaion_daemon.publish.platform import LoginRefusedError, NotServedError, PlatformClient, PlatformError, RetryRule
from azaion_daemon.publish.probe import OnnxProbe
from azaion_daemon.publish.refusal import RefusedLogin
from azaion_daemon.publish.release import ONNX_PROBE
from azaion_daemon.publish.signing import SigningKeys
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.root import open_root

LIMIT_S = 15.0
_AS_THE_DAEMON = "Run doctor as the user of the daemon"


class Outcome(StrEnum):
    """What was found out."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a subject, and what to do about it, if there is something to do."""

    outcome: Outcome
    detail: str
    remedy: str = ""

    @classmethod
    def of(cls, error: AzaionError, remedy: str = "") -> "Finding":
        """Something broken: the last sentence of our errors says what to do."""
        said, _, advice = str(error).rstrip(".").rpartition(". ")
        return cls(Outcome.BROKEN, said or advice, remedy or (advice if said else ""))


@dataclass
class Patient:
    """What is looked at, and what one subject leaves for the next."""

    settings: Settings
    layout: Layout
    platform: PlatformClient
    open: AsyncExitStack
    probe: OnnxProbe = ONNX_PROBE
    cdn: CdnClient | None = None
    content: bytes = field(default_factory=lambda: secrets.token_hex(16).encode())

    @property
    def object(self) -> str:
        """What is put into the bucket."""
        return f"{self.settings.publish.name}.doctor"

    @property
    def store(self) -> CdnClient:
        """The CDN, for subjects that need its credentials."""
        assert self.cdn is not None
        return self.cdn


@dataclass(frozen=True)
class Subject:
    """Something to look at: only when what it `needs`, earlier subjects by name, is not broken or unchecked itself."""

    name: str
    look: Callable[[Patient], Awaitable[Finding]]
    needs: tuple[str, ...] = ()


async def _configuration(patient: Patient) -> Finding:
    if patient.settings.publish.model_key is None:
        return Finding(
            Outcome.WARNING,
            "it can be used, but no model key is set: models are trained, releases wait",
            "Set AZAION_MODEL_KEY, then: azaion-daemon config render",
        )
    return Finding(Outcome.OK, "it can be used, and the model key is set")


async def _root(patient: Patient) -> Finding:
    await asyncio.to_thread(open_root, patient.layout)
    return Finding(Outcome.OK, f"{patient.layout.root} is initialised, and this user may write it")


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
    try:
        answer = await exchange(session, "GET", "/users/current")
    except (httpx.RequestError, TimeoutError) as error:
        return _not_connected(session, error)
    finally:
        await session.close()
    return Finding(Outcome.OK, f"{session.name} answers (HTTP {answer.status_code} without a login)")


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
        return Finding(Outcome.UNCHECKED, detail, _AS_THE_DAEMON)
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
            f"{_AS_THE_DAEMON}, after init; or set api.hardware",
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


def subjects(settings: Settings) -> Sequence[Subject]:
    """What is looked at, in this order."""
    from_platform = settings.publish.cdn_credentials_file is None
    return [
        Subject("configuration", _configuration),
        Subject("root", _root),
        Subject("signing key", _signing_key),
        Subject("ONNX Runtime", _runtime),
        Subject("platform", _connection),
        Subject("platform login", _login, needs=("platform",)),
        Subject("platform hardware", _hardware, needs=("platform login",)),
        Subject("CDN credentials", _credentials, needs=("platform hardware",) if from_platform else ()),
        Subject("CDN upload", _upload, needs=("CDN credentials",)),
        Subject("CDN download", _download, needs=("CDN upload",)),
        Subject("CDN removal", _removal, needs=("CDN upload",)),
    ]


async def look(subjects: Sequence[Subject], patient: Patient, *, limit_s: float = LIMIT_S) -> dict[str, Finding]:
    """What was found out about each subject, in their order."""
    found: dict[str, Finding] = {}
    for subject in subjects:
        missing = [need for need in subject.needs if found[need].outcome in {Outcome.BROKEN, Outcome.UNCHECKED}]
        if missing:
            found[subject.name] = Finding(Outcome.UNCHECKED, f"it needs the {', '.join(missing)}")
            continue
        try:
            async with asyncio.timeout(limit_s):
                found[subject.name] = await subject.look(patient)
        except TimeoutError:
            found[subject.name] = Finding(Outcome.BROKEN, f"no answer within {limit_s:g} s", "Check the network and the other side's load")
        except AzaionError as error:
            found[subject.name] = Finding.of(error)
        except OSError as error:
            found[subject.name] = Finding(
                Outcome.BROKEN, f"{error.filename or 'it'} cannot be read: {error.strerror or error}", _AS_THE_DAEMON
            )
    return found


def examine(settings: Settings, layout: Layout) -> dict[str, Any]:
    """Look at everything; `ok` says whether nothing is broken. Secrets are not in it."""

    async def findings() -> dict[str, Finding]:
        once = RetryRule(attempts=1)
        async with PlatformClient(settings.api, layout.hardware, retry=once) as platform, AsyncExitStack() as opened:
            return await look(subjects(settings), Patient(settings, layout, platform, opened))

    with logging_to(sys.stderr, level="warning", style=settings.log.format):
        found = asyncio.run(findings())
    return {
        "ok": all(finding.outcome is not Outcome.BROKEN for finding in found.values()),
        "findings": [
            {"subject": name, "outcome": one.outcome.value, "detail": one.detail, "remedy": one.remedy or None}
            for name, one in found.items()
        ],
    }


def render_doctor(document: dict[str, Any]) -> str:
    """What was found out, for people: a line for each subject, and below it what to do."""
    findings = document["findings"]
    lines = table([[one["outcome"], one["subject"], one["detail"]] for one in findings], right=())
    indent = " " * (max(len(one["outcome"]) for one in findings) + 2)
    told = []
    for line, one in zip(lines, findings, strict=True):
        told += [line, f"{indent}-> {one['remedy']}"] if one["remedy"] else [line]
    outcomes = Counter(one["outcome"] for one in findings)
    end = "Nothing that was checked keeps a release back."
    if outcomes[Outcome.BROKEN]:
        end = "A release would fail or wait."
    elif outcomes[Outcome.WARNING]:
        end = "Nothing that was checked is broken; see what is warned of."
    unchecked = outcomes[Outcome.UNCHECKED]
    return "\n".join([*told, f"{end} {f'{unchecked} could not be checked.' if unchecked else ''}".strip()])
