"""What is done about a release that did not verify after it was swapped in: the one before it is put back."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from azaion_daemon.errors import ReleaseError
from azaion_daemon.logs import get_logger
from azaion_daemon.publish.cdn import NoSuchObjectError
from azaion_daemon.publish.cipher import BLOCK_BYTES
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import BigPart, small_part
from azaion_daemon.publish.parts import Parts
from azaion_daemon.publish.record import ReleaseRecord, ReleaseRecords

log = get_logger(__name__)


class Restorer:
    """Puts releases back. Doing it twice is the same as once.

    Raises:
        ReleaseError: It cannot be done; the message says what consumers see then.
        OutsideError: A store is away; the next attempt finishes it.
        StorageError: A record or the model cannot be read or written.
    """

    def __init__(self, parts: Parts, records: ReleaseRecords) -> None:
        self._parts = parts
        self._records = records

    async def finish_others(self, serial: int) -> None:
        """Undo what releases before `serial` have left that were cut short between their swap and its verification, and are damaged."""
        for record in await asyncio.to_thread(self._records.all):
            if record.serial >= serial or record.published is not None or record.swapped is None:
                continue
            why = record.condemned or await self._fault(record)
            if why is not None and await self.put_back(record, why):
                continue
            await asyncio.to_thread(self._records.save, replace(record, swapped=None, condemned=None))

    async def put_back(self, failed: ReleaseRecord, why: str) -> bool:
        """Let consumers have the release before `failed`, verified, and forget the failed one: a next attempt begins anew.

        False when they have something else already: what another publisher has put there is a whole model, and stays.
        """
        if not await self._is_current(failed):
            return False
        if failed.condemned is None:
            failed = replace(failed, condemned=why)
            await asyncio.to_thread(self._records.save, failed)  # so that it is finished after a crash
        before = [record for record in await asyncio.to_thread(self._records.all) if record.published is not None]
        previous = max((record for record in before if record.serial < failed.serial), key=lambda one: one.serial, default=None)
        if previous is None:
            removed = await self._parts.cdn.remove(PartNames.current(self._parts.settings.name).big)
            log.error("release.taken_back", serial=failed.serial, why=why, removed=removed)
        else:
            await self._restore(previous)
            log.error("release.put_back", serial=previous.serial, failed=failed.serial, why=why)
        await asyncio.to_thread(self._records.forget, failed.serial)
        return True

    async def _is_current(self, record: ReleaseRecord) -> bool:
        """Whether the current `.big` is still the object that this release has put there, whatever is in it."""
        try:
            etag = (await self._parts.cdn.look(PartNames.current(self._parts.settings.name).big)).etag
        except NoSuchObjectError:
            return False
        return etag == record.swapped

    async def _fault(self, record: ReleaseRecord) -> str | None:
        """What is wrong with what consumers see, as this release."""
        try:
            await self._parts.consume(PartNames.current(self._parts.settings.name).big, record)
        except ReleaseError as error:
            return str(error)
        return None

    async def _restore(self, previous: ReleaseRecord) -> None:
        """The swap backwards: first `.big`, since it is what consumers must not have, then `.small`."""
        names = PartNames.current(self._parts.settings.name)
        key = self._parts.key
        if previous.small != small_part(key, previous.small[:BLOCK_BYTES]):
            previous = replace(previous, small=small_part(key), ciphertext_sha256=None)  # the model key was changed since
            await self._upload(names.big, previous)
        else:
            await self._copy_or_upload(names.big, previous)
        await self._parts.consume(names.big, previous)
        await self._parts.put_small(names.small, previous.small)

    async def _copy_or_upload(self, name: str, previous: ReleaseRecord) -> None:
        versioned = PartNames.versioned(self._parts.settings.name, previous.serial).big
        with suppress(ReleaseError):  # the stored version is gone or damaged: the model itself is left
            if await self._parts.cdn.copy(versioned, name) is not None:
                await self._parts.consume(name, previous)
                return
        await self._upload(name, previous)

    async def _upload(self, name: str, previous: ReleaseRecord) -> None:
        if previous.model is None:
            raise ReleaseError(self._stuck(previous, "where its model lies is not known"))
        try:
            model = Path(previous.model)
            with await asyncio.to_thread(
                BigPart, model, self._parts.key, previous.small, expected_sha256=previous.ciphertext_sha256
            ) as big:
                await self._parts.cdn.upload(name, big)
        except ReleaseError as error:
            raise ReleaseError(self._stuck(previous, str(error))) from error

    @staticmethod
    def _stuck(previous: ReleaseRecord, why: str) -> str:
        return (
            f"release {previous.serial} cannot be put back in the place of one that does not verify: {why} Consumers get what does not "
            "verify until another release is published: train again, or roll back to an older model."
        )


def superfluous(records: list[ReleaseRecord], keep: int) -> list[ReleaseRecord]:
    """The releases whose versioned parts nobody needs: older than the newest published one, and not among the newest `keep` of those.

    `keep` is at least 2: what the manifest names, and what would be put back.
    """
    published = [record.serial for record in records if record.published is not None]
    kept = set(published[-keep:])
    newest = max(published, default=0)
    return [record for record in records if record.serial < newest and record.serial not in kept and not record.removed]
