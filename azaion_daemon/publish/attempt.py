"""One attempt at a release, in the order that makes it safe.

The versioned parts come first, are read back, and the model that they hold is run; then `{name}.small`, which goes with any `.big`; then
`{name}.big`, one atomic put, which is the swap; then everything is read and run as a consumer does it; then the signed manifest. A release
that does not verify after the swap is taken back: the one before is put in its place. What a crash cuts short, the next attempt with the
same serial number finishes, or undoes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from pydantic import SecretBytes

from azaion_daemon.errors import OutsideError, ReleaseError, raise_if_disk_failed
from azaion_daemon.logs import get_logger
from azaion_daemon.publish.cdn import CdnClient, CdnRefusedError, NoSuchObjectError
from azaion_daemon.publish.cipher import BLOCK_BYTES
from azaion_daemon.publish.joining import Joined
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.manifesting import ManifestPublisher
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import BigPart, ModelDigests, small_part
from azaion_daemon.publish.parts import Parts
from azaion_daemon.publish.probe import IDENTICAL, Probe
from azaion_daemon.publish.record import Published, ReleaseRecord, ReleaseRecords, SmallVerified
from azaion_daemon.publish.restoring import Restorer, superfluous
from azaion_daemon.publish.uploads import Upload, UploadJournal, dead
from azaion_daemon.store.durable import remove_temporaries, storage

log = get_logger(__name__)


class ReplacedError(ReleaseError):
    """Somebody else has replaced what was just put."""


@dataclass(frozen=True)
class Order:
    """What is to be published. `before_swap` is awaited before anything that consumers see is touched; it may raise to call it off."""

    model: Path
    serial: int
    digests: ModelDigests
    facts: ReleaseFacts
    before_swap: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Surroundings:
    """What attempts have in common on this machine."""

    directory: Path
    records: ReleaseRecords
    journal: UploadJournal
    manifests: ManifestPublisher
    probe: Probe
    now: Callable[[], datetime]
    unlisted: set[str] = field(default_factory=set)
    """The buckets of which it was said that uploads cannot be listed there."""


class Attempt:
    """Publishes one model; see `Publisher.publish` for what it raises."""

    def __init__(self, order: Order, parts: Parts, around: Surroundings) -> None:
        self._order = order
        self._parts = parts
        self._around = around
        self._records = around.records
        self._name = parts.settings.name
        self._restorer = Restorer(parts, around.records)

    async def run(self) -> Published:
        """All steps, or those that an earlier attempt has not done."""
        order = self._order
        await self._clear_up()
        record = await resumable(self._records, order.serial, self._parts.key)
        if record is not None and record.condemned is not None:
            await self._finish(self._restorer.put_back(record, record.condemned))
            await asyncio.to_thread(self._records.forget, order.serial)
            record = None
        if record is not None and record.ciphertext_sha256 is not None:
            record = await self._still_stored(record)
        await self._around.manifests.check_serial(self._parts.cdn, order.serial, record)
        if record is None:
            record = await self._store()
        if record.ciphertext_sha256 is None:
            record = await self._verify_versioned(record)
        await order.before_swap()
        record, small_verified, ran = await self._swap_in(record)
        record = await self._around.manifests.publish(self._parts.cdn, record, order.facts)
        published = self._published(record, small_verified, ran)
        await asyncio.to_thread(self._records.save, replace(record, published=published, swapped=None))
        log.info("release.published", serial=record.serial, model_sha256=record.model_sha256)
        await self._remove_old_versions()
        return published

    async def _clear_up(self) -> None:
        """Remove what a killed process has left, here and in the store, and finish or undo what it has begun."""
        with storage("clearing what a killed process has left"):
            await asyncio.to_thread(remove_temporaries, self._around.directory)
        cdn = self._parts.cdn
        left = await asyncio.to_thread(self._around.journal.load)
        listed = await cdn.unfinished_uploads(Path(self._name).stem)
        bucket = self._parts.settings.bucket
        if listed is None and bucket not in self._around.unlisted:
            self._around.unlisted.add(bucket)
            log.info("cdn.uploads_unlisted", bucket=bucket)
        await abort_all(cdn, {*left, *dead(listed or [], self._name)})
        await self._finish(self._restorer.finish_others(self._order.serial))

    @staticmethod
    async def _finish(undoing: Awaitable[object]) -> None:
        """What cannot be put back must not keep back the release that would take its place."""
        try:
            await undoing
        except ReleaseError as error:
            log.error("release.not_put_back", why=str(error))  # noqa: TRY400 - expected: no traceback

    async def _still_stored(self, record: ReleaseRecord) -> ReleaseRecord | None:
        """A record, if what it says is verified is still there: weeks may have passed, or another bucket or folder is configured by now."""
        names = PartNames.versioned(self._name, record.serial)
        try:
            size: int | None = (await self._parts.cdn.look(names.big)).size
        except (NoSuchObjectError, CdnRefusedError):  # a store may refuse what is not there
            size = None
        if size != record.big_size:
            log.warning("release.part_gone", serial=record.serial, part=names.big)
            await asyncio.to_thread(self._records.forget, record.serial)
            return None
        await self._parts.put_small(names.small, record.small)
        return record

    async def _store(self) -> ReleaseRecord:
        """Encrypt and upload the versioned `.big`. Until it is recorded, nothing refers to it: an attempt cut short begins anew."""
        order, key = self._order, self._parts.key
        small = small_part(key)
        with await asyncio.to_thread(BigPart, order.model, key, small) as big:
            await self._parts.cdn.upload(PartNames.versioned(self._name, order.serial).big, big)
            digests = order.digests
            record = ReleaseRecord(
                order.serial, digests.model, digests.plaintext, big.size, small, model_size=digests.size, model=str(order.model)
            )
        await asyncio.to_thread(self._records.save, record)
        return record

    async def _verify_versioned(self, record: ReleaseRecord) -> ReleaseRecord:
        """Read the versioned parts back and run them, before anything that consumers see is touched. The record with their digests."""
        names = PartNames.versioned(self._name, record.serial)
        await self._parts.put_small(names.small, record.small)
        try:
            joined, _ = await self._consume_and_run(names.big, record)
        except ReleaseError:
            await asyncio.to_thread(self._records.forget, record.serial)  # what is stored is of no use: encrypt and upload anew
            raise
        log.info("release.part_uploaded", serial=record.serial, part=names.small, size=len(record.small))
        log.info("release.part_uploaded", serial=record.serial, part=names.big, size=record.big_size)
        record = replace(record, ciphertext_sha256=joined.ciphertext, big_sha256=joined.big)
        await asyncio.to_thread(self._records.save, record)
        return record

    async def _swap_in(self, record: ReleaseRecord) -> tuple[ReleaseRecord, SmallVerified, str]:
        """Replace what consumers get, and look at it as they do; take it back if that is not what was meant."""
        names = PartNames.current(self._name)
        small_verified = await self._parts.put_small(names.small, record.small)
        record = replace(record, swapped=await self._parts.put_big(record, self._order.model))
        await asyncio.to_thread(self._records.save, record)
        try:
            _, ran = await self._consume_and_run(names.big, record)
        except ReleaseError as error:
            if not await self._restorer.put_back(record, str(error)):
                raise ReplacedError(
                    f"another publisher has replaced {names.big} in the object store just now. Let only one daemon publish under one "
                    "publish.name."
                ) from error
            raise
        log.info("release.verified", serial=record.serial, small_verified=small_verified, ran=ran)
        return record, small_verified, ran

    async def _consume_and_run(self, name: str, record: ReleaseRecord) -> tuple[Joined, str]:
        """Do what a consumer does: download, join, decrypt, compare, run."""
        probe = self._around.probe
        if probe.hindrance is not None:
            return await self._parts.consume(name, record), probe.hindrance
        plaintext = self._around.directory / f".{record.serial}.onnx.tmp"  # a name that is removed at the start, too
        async with _written(plaintext) as write:
            joined = await self._parts.consume(name, record, sink=write)
        try:
            ran = await probe.compare(self._order.model, plaintext)
        finally:
            await asyncio.to_thread(_remove, plaintext)
        if ran != IDENTICAL:
            log.warning("release.not_run", serial=record.serial, part=name, why=ran)
        return joined, ran

    async def _remove_old_versions(self) -> None:
        """Give space back. Nothing depends on it: what fails is tried again after the next release."""
        key: str | None = None
        try:
            records = await asyncio.to_thread(self._records.all)
            for record in superfluous(records, self._parts.settings.keep_versions):
                key = PartNames.versioned(self._name, record.serial).big
                if not await self._parts.cdn.remove(key):
                    log.info("cdn.not_removed", key=key)
                    return
                await asyncio.to_thread(self._records.save, replace(record, removed=True))
                log.info("cdn.removed", key=key)
        except OutsideError as error:
            raise_if_disk_failed(error)
            log.info("cdn.not_removed", key=key, why=str(error))

    def _published(self, record: ReleaseRecord, small_verified: SmallVerified, ran: str) -> Published:
        assert record.ciphertext_sha256 is not None
        return Published(
            serial=record.serial,
            model_sha256=record.model_sha256,
            plaintext_sha256=record.plaintext_sha256,
            ciphertext_sha256=record.ciphertext_sha256,
            big_size=record.big_size,
            small_size=len(record.small),
            small_verified=small_verified,
            published_at=self._around.now(),
            ran=ran,
        )


async def abort_all(cdn: CdnClient, uploads: Iterable[Upload]) -> None:
    """Give back the space of uploads that nobody works on any more; those that cannot be aborted now stay in the journal."""
    for upload in uploads:
        log.info("cdn.upload_aborted", key=upload.key, aborted=await cdn.abort(upload))


async def resumable(records: ReleaseRecords, serial: int, key: SecretBytes) -> ReleaseRecord | None:
    """The record of an earlier attempt that a new one can go on from."""
    record = await asyncio.to_thread(records.load, serial)
    if record is None:
        return None
    rekeyed = record.small != small_part(key, record.small[:BLOCK_BYTES])
    if record.published is None and record.condemned is None and (rekeyed or record.model_size is None):  # or from before manifests
        await asyncio.to_thread(records.forget, serial)
        return None
    return record


def _only_for_us(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@asynccontextmanager
async def _written(path: Path) -> AsyncIterator[Callable[[bytes], object]]:
    """A file that is written piece by piece on threads, and stays if all went well."""
    with storage("writing"):
        file = await asyncio.to_thread(open, path, "wb", 0, opener=_only_for_us)

    def write(piece: bytes) -> None:
        with storage("writing"):
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]

    try:
        yield write
    except BaseException:
        await asyncio.to_thread(_remove, path)
        raise
    finally:
        await asyncio.to_thread(file.close)


def _remove(path: Path) -> None:
    with storage("removing"):
        path.unlink(missing_ok=True)
