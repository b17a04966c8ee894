"""A release: a model encrypted, stored under versioned names, verified, and swapped in.

The order is what makes it safe. The versioned parts come first and are read back; then `{name}.small`, which goes with any `.big`; then
`{name}.big`, one atomic put, which is the swap; then everything is read as a consumer reads it; then the signed manifest. What a crash
cuts short, the next call with the same serial number finishes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from azaion_daemon.errors import ReleaseError
from azaion_daemon.logs import get_logger
from azaion_daemon.publish.cdn import CdnClient, CdnRefusedError
from azaion_daemon.publish.cipher import BLOCK_BYTES
from azaion_daemon.publish.credentials import CdnCredentials, CredentialsSource
from azaion_daemon.publish.joining import Joined, Joiner, join
from azaion_daemon.publish.keys import aes_key
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.manifesting import ManifestPublisher, check_kept
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import BigPart, ModelDigests, model_digests, small_part
from azaion_daemon.publish.platform import NoSuchResourceError, NotServedError, PlatformClient
from azaion_daemon.publish.record import Published, ReleaseRecord, ReleaseRecords, SmallVerified
from azaion_daemon.settings import PublishSettings
from azaion_daemon.store.layout import Layout

log = get_logger(__name__)


NOTHING_KNOWN = ReleaseFacts()


class ModelKeyMissingError(ReleaseError):
    """There is no model key: releases wait until one is configured."""


class Publisher:
    """Publishes models, one at a time."""

    def __init__(
        self,
        settings: PublishSettings,
        platform: PlatformClient,
        credentials: CredentialsSource,
        layout: Layout,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._platform = platform
        self._credentials = credentials
        self._records = ReleaseRecords(layout.releases)
        self._manifests = ManifestPublisher(settings, layout, now=now)
        self._now = now

    async def publish(self, model: Path, serial: int, facts: ReleaseFacts = NOTHING_KNOWN) -> Published:
        """Publish a model under a serial number, or finish what an earlier call with the same two began; done twice it is the same as once.

        The model must stay as it is until the release is complete.

        Raises:
            ModelKeyMissingError: No model key is configured.
            SigningKeyError: The key that the manifest is to be signed with cannot be used.
            SerialUsedError: The serial number belongs to another model, or to the past.
            ReleaseError: What is stored does not verify.
            OutsideError: The platform or the CDN is away or refuses; the same call finishes the release later.
            StorageError: The model or the record cannot be read or written.
        """
        if self._settings.model_key is None:
            raise ModelKeyMissingError("No model key is configured, so releases wait. Set AZAION_MODEL_KEY and reload.")
        key = aes_key(self._settings.model_key.get_secret_value())
        digests = await asyncio.to_thread(model_digests, model)
        await asyncio.to_thread(check_kept, self._records, serial, digests.model)
        record = await self._resumable(serial, key)
        if record is not None and record.published is not None:
            return record.published
        log.info("release.started", serial=serial, model=str(model), model_sha256=digests.model, resumed=record is not None)
        credentials = await self._credentials()
        try:
            return await self._with_credentials(credentials, model, serial, digests, key, facts)
        except CdnRefusedError:
            renewed = await self._credentials()
            if renewed == credentials:
                raise
            return await self._with_credentials(renewed, model, serial, digests, key, facts)

    async def _resumable(self, serial: int, key: bytes) -> ReleaseRecord | None:
        """The record of an earlier attempt that this one can go on from."""
        record = await asyncio.to_thread(self._records.load, serial)
        if record is None:
            return None
        rekeyed = record.small != small_part(key, record.small[:BLOCK_BYTES])
        if record.published is None and (rekeyed or record.model_size is None):  # a version before manifests began it
            await asyncio.to_thread(self._records.forget, serial)
            return None
        return record

    async def _with_credentials(
        self, credentials: CdnCredentials, model: Path, serial: int, digests: ModelDigests, key: bytes, facts: ReleaseFacts
    ) -> Published:
        settings = self._settings
        async with CdnClient(credentials, settings.bucket, region=settings.cdn_region, ca_file=settings.cdn_ca_file) as cdn:
            record = await self._resumable(serial, key)
            await self._manifests.check_serial(cdn, serial, record)
            if record is None:
                record = await self._store(cdn, model, serial, digests, key)
            if record.ciphertext_sha256 is None:
                record = await self._verify_versioned(cdn, record, key)
            return await self._swap_in(cdn, record, model, key, facts)

    async def _store(self, cdn: CdnClient, model: Path, serial: int, digests: ModelDigests, key: bytes) -> ReleaseRecord:
        """Encrypt and upload the versioned `.big`. Until it is recorded, nothing refers to it: an attempt cut short begins anew."""
        small = small_part(key)
        with await asyncio.to_thread(BigPart, model, key, small) as big:
            await cdn.upload(PartNames.versioned(self._settings.name, serial).big, big)
            record = ReleaseRecord(serial, digests.model, digests.plaintext, big.size, small, model_size=digests.size)
        await asyncio.to_thread(self._records.save, record)
        return record

    async def _verify_versioned(self, cdn: CdnClient, record: ReleaseRecord, key: bytes) -> ReleaseRecord:
        """Read the versioned parts back before anything that consumers see is touched. The record with their digests."""
        names = PartNames.versioned(self._settings.name, record.serial)
        await self._put_small(names.small, record.small)
        try:
            joined = await self._consume(cdn, names.big, record, key)
        except ReleaseError:
            await asyncio.to_thread(self._records.forget, record.serial)  # what is stored is of no use: encrypt and upload anew
            raise
        log.info("release.part_uploaded", serial=record.serial, part=names.small, size=len(record.small))
        log.info("release.part_uploaded", serial=record.serial, part=names.big, size=record.big_size)
        record = replace(record, ciphertext_sha256=joined.ciphertext, big_sha256=joined.big)
        await asyncio.to_thread(self._records.save, record)
        return record

    async def _swap_in(self, cdn: CdnClient, record: ReleaseRecord, model: Path, key: bytes, facts: ReleaseFacts) -> Published:
        names = PartNames.current(self._settings.name)
        versioned = PartNames.versioned(self._settings.name, record.serial)
        small_verified = await self._put_small(names.small, record.small)
        if not await cdn.copy(versioned.big, names.big):
            with await asyncio.to_thread(BigPart, model, key, record.small, expected_sha256=record.ciphertext_sha256) as big:
                await cdn.upload(names.big, big)
        await self._consume(cdn, names.big, record, key)
        log.info("release.verified", serial=record.serial, small_verified=small_verified)
        record = await self._manifests.publish(cdn, record, facts)
        assert record.ciphertext_sha256 is not None
        published = Published(
            serial=record.serial,
            model_sha256=record.model_sha256,
            plaintext_sha256=record.plaintext_sha256,
            ciphertext_sha256=record.ciphertext_sha256,
            big_size=record.big_size,
            small_size=len(record.small),
            small_verified=small_verified,
            published_at=self._now(),
        )
        await asyncio.to_thread(self._records.save, replace(record, published=published))
        log.info("release.published", serial=record.serial, model_sha256=record.model_sha256)
        return published

    async def _put_small(self, name: str, small: bytes) -> SmallVerified:
        """Upload a `.small` and read it back, or look for it in the listing where the server hands out no files."""
        folder = self._settings.folder
        await self._platform.upload(folder, name, small)
        try:
            served = await self._platform.get_resource(folder, name)
        except NoSuchResourceError as error:
            raise ReleaseError(
                f"{name} was uploaded to folder {folder} of the platform, but is not there. Check publish.folder."
            ) from error
        except NotServedError:
            if name not in await self._platform.list(folder):
                raise ReleaseError(
                    f"{name} was uploaded to the platform, but folder {folder} does not list it. Check publish.folder."
                ) from None
            return "listed"
        if served != small:
            raise ReleaseError(f"the platform hands out another {name} than was uploaded. Is another daemon publishing to folder {folder}?")
        return "downloaded"

    async def _consume(self, cdn: CdnClient, name: str, record: ReleaseRecord, key: bytes) -> Joined:
        """Do what a consumer does: download, join, decrypt. The plaintext must be what was meant.

        Under one key and IV each plaintext has one ciphertext, so that the right plaintext came out says that every byte is right.
        """
        size = await cdn.size(name)
        if size != record.big_size:
            raise ReleaseError(
                f"{name} has {size} bytes in the object store; {record.big_size} were uploaded. The next attempt replaces it."
            )
        joined = await join(cdn, name, Joiner(key, record.small))
        if joined.plaintext != record.plaintext_sha256:
            raise ReleaseError(f"{name} in the object store decrypts to something else than was uploaded. The next attempt replaces it.")
        return joined
