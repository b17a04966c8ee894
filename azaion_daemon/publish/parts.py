"""The two parts of a release in their two stores: put there, and read back as a consumer reads them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretBytes

from azaion_daemon.errors import ReleaseError
from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.joining import Joined, Joiner, join
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import BigPart
from azaion_daemon.publish.platform import NoSuchResourceError, NotServedError, PlatformClient
from azaion_daemon.publish.record import ReleaseRecord, SmallVerified
from azaion_daemon.sections import PublishSettings


class MismatchError(ReleaseError):
    """What is stored is not what was uploaded."""


@dataclass(frozen=True)
class Parts:
    """Both stores, for as long as one attempt takes."""

    cdn: CdnClient
    platform: PlatformClient
    settings: PublishSettings
    key: SecretBytes

    async def put_small(self, name: str, small: bytes) -> SmallVerified:
        """Upload a `.small` and read it back, or look for it in the listing where the server hands out no files."""
        folder = self.settings.folder
        await self.platform.upload(folder, name, small)
        try:
            served = await self.platform.get_resource(folder, name)
        except NoSuchResourceError as error:
            raise ReleaseError(
                f"{name} was uploaded to folder {folder} of the platform, but is not there. Check publish.folder."
            ) from error
        except NotServedError:
            if name not in await self.platform.list(folder):
                raise ReleaseError(
                    f"{name} was uploaded to the platform, but folder {folder} does not list it. Check publish.folder."
                ) from None
            return "listed"
        if served != small:
            raise ReleaseError(f"the platform hands out another {name} than was uploaded. Is another daemon publishing to folder {folder}?")
        return "downloaded"

    async def put_big(self, record: ReleaseRecord, model: Path) -> str:
        """The swap: put the current `.big`, by a copy of the versioned one where that is allowed, else from the model. Its ETag."""
        current = PartNames.current(self.settings.name).big
        copied = await self.cdn.copy(PartNames.versioned(self.settings.name, record.serial).big, current)
        if copied is not None:
            return copied
        with await asyncio.to_thread(BigPart, model, self.key, record.small, expected_sha256=record.ciphertext_sha256) as big:
            return await self.cdn.upload(current, big)

    async def consume(self, name: str, record: ReleaseRecord, sink: Callable[[bytes], object] | None = None) -> Joined:
        """Do what a consumer does: download, join, decrypt. The plaintext must be what was meant; `sink` gets it.

        Under one key and IV each plaintext has one ciphertext, so that the right plaintext came out says that every byte is right.

        Raises:
            ReleaseError: It is not there, has another size, does not decrypt, or is something else.
        """
        size = (await self.cdn.look(name)).size
        if size != record.big_size:
            raise MismatchError(
                f"{name} has {size} bytes in the object store; {record.big_size} were uploaded. The next attempt replaces it."
            )
        joined = await join(self.cdn, name, Joiner(self.key, record.small, sink=sink), most_bytes=size)
        if joined.plaintext != record.plaintext_sha256:
            raise MismatchError(f"{name} in the object store decrypts to something else than was uploaded. The next attempt replaces it.")
        return joined
