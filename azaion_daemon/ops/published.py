"""What operators ask of what is published: the key, whether it is as it should be, one of it as a file, an older one again."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import SecretBytes

from azaion_daemon.errors import DiskFullError, OperatorError, ReleaseError, StorageError
from azaion_daemon.logs import logging_to
from azaion_daemon.ops.requests import ask, checked_reason
from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.checking import Outcome, PublishedChecker, verified_manifest
from azaion_daemon.publish.cipher import CipherError
from azaion_daemon.publish.credentials import credentials_source
from azaion_daemon.publish.joining import Joiner, TooLongError, join, pieces
from azaion_daemon.publish.keys import aes_key
from azaion_daemon.publish.manifest import Manifest
from azaion_daemon.publish.names import versioned_name
from azaion_daemon.publish.platform import LoginRefusedError, PlatformClient
from azaion_daemon.publish.refusal import RefusedLogin
from azaion_daemon.publish.rollback import published_release, release_before
from azaion_daemon.publish.signing import PublicKey, SigningKeyError, SigningKeys
from azaion_daemon.sections import PublishSettings
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import replacing, storage
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Release
from azaion_daemon.store.root import identify_root

Progress = Callable[[int, int], object]
"""Is told how many bytes are done, and of how many."""

_WAIT_S = 600.0
_SECRET_MODE = 0o600


def key_document(settings: Settings, layout: Layout) -> dict[str, Any]:
    """The public key for consumers; a signing key is made where there is none and no file is configured.

    Raises:
        OperatorError: The root or the key cannot be used.
        StorageError: The disk failed or is full.
    """
    keys = SigningKeys(layout, settings.publish.signing_key_file)
    if settings.publish.signing_key_file is None:
        identify_root(layout)
    key = keys.load_or_make().public
    return {"algorithm": "Ed25519", "key_id": key.id, "base64": key.base64, "pem": key.pem, "private_key": str(keys.source)}


def verify_published(settings: Settings, layout: Layout, public_key: Path | None) -> dict[str, Any]:
    """Check what is published as a consumer would; `ok` says whether nothing failed.

    Raises:
        OperatorError: The model key or a key to verify with is missing.
        OutsideError: The object store is away or refuses.
    """
    keys, model_key = [_public_key(settings, layout, public_key)], _model_key(settings.publish)
    last_serial = max((release.serial for release in _releases(layout) if release.state == "published"), default=0)

    async def check() -> dict[str, Any]:
        async with _outside(settings, layout) as (cdn, platform):
            checker = PublishedChecker(settings.publish, cdn, platform, keys, model_key, last_serial=last_serial)
            checks = await checker.run()
        return {
            "ok": all(check.outcome is not Outcome.FAILED for check in checks),
            "serial": None if checker.manifest is None else checker.manifest.serial,
            "checks": [{**asdict(check), "outcome": check.outcome.value} for check in checks],
            "manifest": None if checker.manifest is None else checker.manifest.model_dump(mode="json"),
        }

    with logging_to(sys.stderr, level="warning", style=settings.log.format):
        return asyncio.run(check())


def render_verify(document: dict[str, Any]) -> str:
    """What a check has found, for people."""
    width = max(len(check["what"]) for check in document["checks"])
    lines = [f"{check['outcome']:<11}  {check['what']:<{width}}  {check['detail']}" for check in document["checks"]]
    failed = sum(check["outcome"] == Outcome.FAILED for check in document["checks"])
    unchecked = sum(check["outcome"] == Outcome.UNCHECKED for check in document["checks"])
    end = "What is published is not as it should be." if failed else "What is published is as it was signed."
    return "\n".join([*lines, f"{end} {f'{unchecked} could not be checked.' if unchecked else ''}".strip()])


@dataclass(frozen=True)
class Fetched:
    """A release that was written to a file."""

    file: str
    serial: int
    sha256: str
    size: int


def fetch_published(
    settings: Settings,
    layout: Layout,
    serial: int | None,
    *,
    output: Path | None,
    encrypted: bool,
    public_key: Path | None,
    progress: Progress,
) -> Fetched:
    """Download a release by its signed manifest, by default the published one, and write its model, or with `encrypted` its ciphertext.

    The file is there whole or not at all, and only its owner may read it.

    Raises:
        OperatorError: A key is missing, or the file cannot be written.
        OutsideError: The store is away, has no such release, or what it has is not what was signed.
        StorageError: The disk failed or is full; nothing is left of it.
    """
    keys = [_public_key(settings, layout, public_key)]
    key = None if encrypted else _model_key(settings.publish)

    async def fetch() -> Fetched:
        async with _outside(settings, layout) as (cdn, _):
            manifest = await verified_manifest(cdn, settings.publish.name, serial, keys)
            name = versioned_name(manifest.name, manifest.serial) + (".encrypted" if encrypted else "")
            file = Path(name) if output is None else output
            with _new_file(file) as target:
                write = _counting(target.write, (manifest.ciphertext if encrypted else manifest.model).size, progress)
                if key is None:
                    await _fetch_ciphertext(cdn, manifest, write)
                else:
                    await _fetch_model(cdn, manifest, key, write)
            content = manifest.ciphertext if encrypted else manifest.model
            return Fetched(str(file), manifest.serial, content.sha256, content.size)

    with logging_to(sys.stderr, level="warning", style=settings.log.format):
        return asyncio.run(fetch())


@contextmanager
def _new_file(file: Path) -> Iterator[BinaryIO]:
    """A file that only its owner may read, whole or not there."""
    directory = file.absolute().parent
    if not os.access(directory, os.W_OK | os.X_OK) or not directory.is_dir():
        raise OperatorError(f"{directory} is not a directory that can be written. Name another with --output.")
    try:
        with storage("writing"), replacing(file.absolute(), mode=_SECRET_MODE) as target:
            yield target
    except DiskFullError as error:
        raise DiskFullError(
            f"there is no space for {file}, and nothing was written. Free some, or name another place with --output."
        ) from error


async def _fetch_model(cdn: CdnClient, manifest: Manifest, key: SecretBytes, write: Callable[[bytes], object]) -> None:
    joiner = Joiner(key, manifest.small.held(), padding_bytes=manifest.padding_bytes, sink=write)
    try:
        model = (await join(cdn, manifest.big.name, joiner, most_bytes=manifest.big.size)).model
    except TooLongError as error:
        raise _not_signed(manifest) from error
    except CipherError:
        model = None
    if joiner.big != manifest.big.sha256:
        raise _not_signed(manifest)
    if model != manifest.model.sha256:
        raise OperatorError(
            f"release {manifest.serial} was encrypted with another model key. Set AZAION_MODEL_KEY to the one of that time."
        )


async def _fetch_ciphertext(cdn: CdnClient, manifest: Manifest, write: Callable[[bytes], object]) -> None:
    digest = hashlib.sha256(manifest.small.held())
    await asyncio.to_thread(write, manifest.small.held())
    try:
        async with aclosing(pieces(cdn, manifest.big.name, manifest.big.size)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                await asyncio.to_thread(write, chunk)
    except TooLongError as error:
        raise _not_signed(manifest) from error
    if digest.hexdigest() != manifest.ciphertext.sha256:
        raise _not_signed(manifest)


def _not_signed(manifest: Manifest) -> ReleaseError:
    return ReleaseError(
        f"{manifest.big.name} in the object store is not what was signed: it was replaced or is damaged. Nothing was written."
    )


def _counting(write: Callable[[bytes], object], total: int, progress: Progress) -> Callable[[bytes], object]:
    done = 0

    def counted(content: bytes) -> None:
        nonlocal done
        write(content)
        done += len(content)
        progress(min(done, total), total)

    return counted


def roll_back(layout: Layout, serial: int | None, reason: str) -> str:
    """Ask for an older release to be published again, by default the one before the present one; what will become of it, as a sentence.

    Raises:
        OperatorError: There is none, its model is not kept, the request cannot be left or is not answered, or the reason is too long.
    """
    reason = checked_reason(reason)
    identify_root(layout)
    releases = _releases(layout)
    chosen = release_before(releases) if serial is None else published_release(releases, serial)
    answer = ask(layout, "rollback", {"serial": chosen.serial, "reason": reason}, wait_s=_WAIT_S)
    what = f"the model of release {chosen.serial} ({chosen.model_sha256[:12]})"
    if answer is None:
        return f"No daemon is running; its next start publishes {what} again."
    if not answer["ok"]:
        raise OperatorError(answer["error"])
    release = answer["release"]
    waited = ", ".join(str(one) for one in release["superseded"])
    instead = f" Release {waited}, which waited, is not published any more." if waited else ""
    return f"The current model is now {what}; it is published as release {release['serial']}.{instead} See: azaion-daemon status"


def _releases(layout: Layout) -> list[Release]:
    """What the ledger knows; nothing where there is no ledger, as on a machine that only verifies."""
    if not layout.ledger.exists():
        return []
    with closing(Ledger(layout.ledger, read_only=True)) as ledger:
        return ledger.releases()


def _public_key(settings: Settings, layout: Layout, file: Path | None) -> PublicKey:
    """The key to verify with: the one that was given, else our own."""
    if file is None:
        return SigningKeys(layout, settings.publish.signing_key_file).public()
    try:
        return PublicKey.parse(file.read_bytes(), source=str(file))
    except OSError as error:
        raise SigningKeyError(
            f"{file} cannot be read: {error.strerror}. Give a file with what `azaion-daemon model key` prints."
        ) from error


def _model_key(settings: PublishSettings) -> SecretBytes:
    if settings.model_key is None:
        raise OperatorError("there is no model key, so nothing can be decrypted. Set AZAION_MODEL_KEY, then: azaion-daemon config render")
    return aes_key(settings.model_key)


@asynccontextmanager
async def _outside(settings: Settings, layout: Layout) -> AsyncIterator[tuple[CdnClient, PlatformClient]]:
    """The object store and the platform, opened as the daemon does."""
    publish = settings.publish
    with suppress(OSError, StorageError):  # whoever may not read it has not been told of it
        if why := await asyncio.to_thread(RefusedLogin(layout.refused_login).load, settings.api):
            raise LoginRefusedError(why)  # a command, run again and again, locks an account as well as a daemon does
    async with PlatformClient(settings.api, layout.hardware) as platform:
        credentials = await credentials_source(settings, platform)()
        async with CdnClient(credentials, publish.bucket, region=publish.cdn_region, ca_file=publish.cdn_ca_file) as cdn:
            yield cdn, platform
