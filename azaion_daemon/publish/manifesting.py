"""The last step of a release: its signed manifest. And what makes serial numbers only grow: a look at those that were published before.

The ledger gives the next serial, but a ledger may be lost, made anew, or come out of a backup. What was published has witnesses beside it:
the records of releases, and the manifests in the CDN, which our own signature vouches for. A serial that is not above them is not used.
A clock has no say in it.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime

from azaion_daemon.errors import ReleaseError
from azaion_daemon.logs import get_logger
from azaion_daemon.publish.cdn import CdnClient, CdnRefusedError, NoSuchObjectError
from azaion_daemon.publish.dsse import MOST_BYTES, EnvelopeError, seal, unverified
from azaion_daemon.publish.manifest import (
    PAYLOAD_TYPE,
    Content,
    Manifest,
    Part,
    ReleaseFacts,
    SmallPart,
    current_manifest,
    seen_serial,
    sign,
    verify,
    versioned_manifest,
)
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import padding
from azaion_daemon.publish.record import ReleaseRecord, ReleaseRecords
from azaion_daemon.publish.signing import SigningKey, SigningKeys
from azaion_daemon.sections import PublishSettings
from azaion_daemon.store.layout import Layout

log = get_logger(__name__)

_MOST_UNTRUSTED = 1 << 31
"""A manifest that somebody else signed may push the serials up, since nothing is lost by that, but not to where they end."""


class SerialUsedError(ReleaseError):
    """The serial number was published, or passed, before. `highest` is the highest that is known."""

    def __init__(self, serial: int, highest: int, why: str) -> None:
        super().__init__(f"Serial {serial} cannot be published: {why}. Publish under one above {highest}.")
        self.highest = highest
        self.why = why


def check_kept(records: ReleaseRecords, serial: int, model_sha256: str) -> None:
    """Compare a serial number with the releases that this root has a record of. Blocking.

    Raises:
        SerialUsedError: A later one was begun, or this one belongs to another model.
        StorageError: The records cannot be read.
    """
    highest = max(records.serials(), default=0)
    if highest > serial:
        raise SerialUsedError(serial, highest, f"release {highest} was begun before, as its record says")
    record = records.load(serial)
    if record is not None and record.model_sha256 != model_sha256:
        raise SerialUsedError(serial, highest, "it was given to another model")


async def fetch_manifest(cdn: CdnClient, name: str) -> bytes | None:
    """A manifest as it is stored, or as much of it as shows that it is too large; None where there is none.

    A store answers 403 for what is not there, to users who may not list.
    """
    content = bytearray()
    try:
        async with aclosing(cdn.download(name)) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > MOST_BYTES:
                    break
    except (NoSuchObjectError, CdnRefusedError):
        return None
    return bytes(content)


class ManifestPublisher:
    """Signs and stores manifests.

    Raises:
        SigningKeyError: The signing key cannot be used.
        OutsideError: The store is away or refuses; the same call finishes it later.
        StorageError: The key or the record cannot be read or written.
    """

    def __init__(self, settings: PublishSettings, layout: Layout, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings = settings
        self._keys = SigningKeys(layout, settings.signing_key_file)
        self._records = ReleaseRecords(layout.releases)
        self._now = now

    async def check_serial(self, cdn: CdnClient, serial: int, record: ReleaseRecord | None) -> None:
        """Compare a serial number with what was published, before anything is. `record` is that of an earlier attempt.

        Raises:
            SerialUsedError: It was published, or passed.
        """
        key = await asyncio.to_thread(self._keys.load_or_make)
        name = self._settings.name
        for manifest in (current_manifest(name), versioned_manifest(name, serial)):
            envelope = await fetch_manifest(cdn, manifest)
            if envelope is None or _is_of(envelope, record):
                continue
            seen = seen_serial(envelope, [key.public])
            if seen is None or not seen.trusted:
                log.warning("release.manifest_unknown", name=manifest, serial=seen and seen.serial, key=key.public.id)
            if seen is not None and seen.serial >= serial and (seen.trusted or seen.serial < _MOST_UNTRUSTED):
                raise SerialUsedError(serial, seen.serial, f"{manifest} in the object store is of release {seen.serial}")

    async def publish(self, cdn: CdnClient, record: ReleaseRecord, facts: ReleaseFacts) -> ReleaseRecord:
        """Put the manifest of a release that consumers have, under both its names; the record that goes with it.

        What is signed is recorded before it is put, so that doing it again puts the same bytes.
        """
        key = await asyncio.to_thread(self._keys.load_or_make)
        envelope = self._kept(record, key) or sign(self._manifest(record, facts), key)
        if envelope.decode() != record.manifest:
            record = record.with_manifest(envelope.decode())
            await asyncio.to_thread(self._records.save, record)
        name = self._settings.name
        for manifest in (versioned_manifest(name, record.serial), current_manifest(name)):
            await cdn.put(manifest, envelope)
            if await fetch_manifest(cdn, manifest) != envelope:
                raise ReleaseError(
                    f"the object store hands out another {manifest} than was uploaded. Is another daemon publishing to this bucket, or a "
                    "cache before it? The next attempt puts it again."
                )
        log.info("release.manifest", serial=record.serial, name=current_manifest(name), key=key.public.id)
        return record

    def _kept(self, record: ReleaseRecord, key: SigningKey) -> bytes | None:
        """What was signed before for these very bytes; signed once more if the key is another one by now."""
        if record.manifest is None:
            return None
        try:
            payload = unverified(record.manifest.encode(), PAYLOAD_TYPE)
            envelope = seal(payload, PAYLOAD_TYPE, key)
            manifest = verify(envelope, [key.public])
        except EnvelopeError:
            return None
        return envelope if (manifest.serial, manifest.ciphertext.sha256) == (record.serial, record.ciphertext_sha256) else None

    def _manifest(self, record: ReleaseRecord, facts: ReleaseFacts) -> Manifest:
        assert record.ciphertext_sha256 is not None
        assert record.big_sha256 is not None
        assert record.model_size is not None
        names = PartNames.versioned(self._settings.name, record.serial)
        return Manifest(
            name=self._settings.name,
            serial=record.serial,
            created=self._now(),
            bucket=self._settings.bucket,
            folder=self._settings.folder,
            small=SmallPart.of(names.small, record.small),
            big=Part(name=names.big, sha256=record.big_sha256, size=record.big_size),
            ciphertext=Content(sha256=record.ciphertext_sha256, size=len(record.small) + record.big_size),
            plaintext=Content(sha256=record.plaintext_sha256, size=len(padding(record.model_size)) + record.model_size),
            model=Content(sha256=record.model_sha256, size=record.model_size),
            dataset_id=facts.dataset_id,
            job=facts.job,
            input_shape=facts.input_shape,
            output_shape=facts.output_shape,
            metrics=dict(facts.metrics),
            versions=dict(facts.versions),
        )


def _is_of(envelope: bytes, record: ReleaseRecord | None) -> bool:
    """Whether a manifest is what an earlier attempt at this release has put there."""
    if record is None or record.manifest is None:
        return False
    try:
        return unverified(envelope, PAYLOAD_TYPE) == unverified(record.manifest.encode(), PAYLOAD_TYPE)
    except EnvelopeError:
        return False
