"""Who publishes models: one at a time, with the settings and the credentials of the moment. What an attempt does is in attempt.py."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretBytes

from azaion_daemon.errors import AzaionError, ReleaseError, raise_if_disk_failed
from azaion_daemon.logs import get_logger
from azaion_daemon.publish.attempt import Attempt, Order, Surroundings, abort_all, resumable
from azaion_daemon.publish.cdn import CdnClient, CdnRefusedError
from azaion_daemon.publish.credentials import CdnCredentials, CredentialsSource
from azaion_daemon.publish.keys import aes_key
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.manifesting import ManifestPublisher, check_kept
from azaion_daemon.publish.packing import model_digests
from azaion_daemon.publish.parts import Parts
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.publish.probe import OnnxProbe, Probe
from azaion_daemon.publish.record import Published, ReleaseRecords
from azaion_daemon.publish.uploads import UploadJournal
from azaion_daemon.sections import PublishSettings
from azaion_daemon.store.layout import Layout

log = get_logger(__name__)

NOTHING_KNOWN = ReleaseFacts()
ONNX_PROBE = OnnxProbe()


class ModelKeyMissingError(ReleaseError):
    """There is no model key: releases wait until one is configured."""


async def _whatever_happens() -> None:
    """Nobody calls it off."""


class Publisher:
    """Publishes models, one at a time."""

    def __init__(
        self,
        settings: PublishSettings,
        platform: PlatformClient,
        credentials: CredentialsSource,
        layout: Layout,
        *,
        probe: Probe = ONNX_PROBE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._platform = platform
        self._layout = layout
        self._probe = probe
        self._now = now
        self._turn = asyncio.Lock()
        self.cdn_retries = 0
        """How many of the CDN's requests were repeated since the start."""
        self._records = ReleaseRecords(layout.releases)
        self.reconfigure(settings, credentials)

    def reconfigure(self, settings: PublishSettings, credentials: CredentialsSource) -> None:
        """Publish with other settings from the next call on."""
        self._settings = settings
        self._credentials = credentials
        self._around = Surroundings(
            self._layout.releases,
            self._records,
            UploadJournal(self._layout.uploads),
            ManifestPublisher(settings, self._layout, now=self._now),
            self._probe,
            self._now,
        )

    async def publish(
        self,
        model: Path,
        serial: int,
        facts: ReleaseFacts = NOTHING_KNOWN,
        *,
        sha256: str | None = None,
        before_swap: Callable[[], Awaitable[None]] = _whatever_happens,
    ) -> Published:
        """Publish a model under a serial number, or finish what an earlier call with the same two began; done twice it is the same as once.

        The model must stay as it is until the release is complete; `sha256` is what it must be. Until `before_swap` is awaited a call may
        be cancelled, or called off by what that raises, and consumers see nothing of it.

        Raises:
            ModelKeyMissingError: No model key is configured.
            ModelGoneError: There is no such file.
            SigningKeyError: The key that the manifest is to be signed with cannot be used.
            SerialUsedError: The serial number belongs to another model, or to the past.
            ReleaseError: What is stored does not verify, or what consumers would get does not run as the model does.
            OutsideError: The platform or the CDN is away or refuses; the same call finishes the release later.
            StorageError: The model or the record cannot be read or written.
        """
        async with self._turn:
            settings, around = self._settings, self._around
            if settings.model_key is None:
                raise ModelKeyMissingError("No model key is configured, so releases wait. Set AZAION_MODEL_KEY and reload.")
            key = aes_key(settings.model_key)
            digests = await asyncio.to_thread(model_digests, model)
            if sha256 not in {None, digests.model}:
                raise ReleaseError(f"{model} is not the model that was accepted any more. Restore it from a backup, or train again.")
            await asyncio.to_thread(check_kept, self._records, serial, digests.model)
            record = await resumable(self._records, serial, key)
            if record is not None and record.published is not None:
                return record.published
            log.info("release.started", serial=serial, model=str(model), model_sha256=digests.model, resumed=record is not None)
            return await self._attempt(settings, key, around, Order(model, serial, digests, facts, before_swap))

    async def abort_uploads(self) -> None:
        """Abort what a killed process was uploading, as far as the journal names it; with an empty one nothing is contacted.

        Nothing depends on it: what cannot be aborted now stays in the journal for the next attempt. It may be cancelled.

        Raises:
            StorageError: The disk failed.
        """
        async with self._turn:
            settings, journal = self._settings, self._around.journal
            try:
                if not (left := await asyncio.to_thread(journal.load)):
                    return
                async with self._cdn(await self._credentials(), settings, journal) as cdn:
                    await abort_all(cdn, left)
            except AzaionError as error:
                raise_if_disk_failed(error)
                log.info("cdn.uploads_left", why=str(error))

    def _cdn(self, credentials: CdnCredentials, settings: PublishSettings, journal: UploadJournal) -> CdnClient:
        def retried() -> None:
            self.cdn_retries += 1

        return CdnClient(
            credentials, settings.bucket, region=settings.cdn_region, ca_file=settings.cdn_ca_file, journal=journal, retried=retried
        )

    async def _attempt(self, settings: PublishSettings, key: SecretBytes, around: Surroundings, order: Order) -> Published:
        """Try with the credentials as they are, and once more with fresh ones if these are refused and others are to be had."""

        async def with_credentials(credentials: CdnCredentials) -> Published:
            async with self._cdn(credentials, settings, around.journal) as cdn:
                return await Attempt(order, Parts(cdn, self._platform, settings, key), around).run()

        fetch = self._credentials
        credentials = await fetch()
        try:
            return await with_credentials(credentials)
        except CdnRefusedError:
            renewed = await fetch()
            if renewed == credentials:
                raise
            return await with_credentials(renewed)
