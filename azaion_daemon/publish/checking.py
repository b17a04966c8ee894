"""What is published, as a consumer sees it: the signed manifest, the versioned parts, and those that are swapped."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

from pydantic import SecretBytes

from azaion_daemon.errors import OutsideError
from azaion_daemon.publish.cdn import CdnClient, CdnRefusedError, NoSuchObjectError
from azaion_daemon.publish.cipher import BLOCK_BYTES, CipherError
from azaion_daemon.publish.dsse import EnvelopeError
from azaion_daemon.publish.joining import Joined, Joiner, TooLongError, join
from azaion_daemon.publish.loading import Loaded, Loading, can_load
from azaion_daemon.publish.manifest import Manifest, current_manifest, verify, versioned_manifest
from azaion_daemon.publish.manifesting import fetch_manifest
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import small_part
from azaion_daemon.publish.platform import NoSuchResourceError, NotServedError, PlatformClient, PlatformError
from azaion_daemon.publish.signing import PublicKey
from azaion_daemon.sections import PublishSettings


class Outcome(StrEnum):
    """What a check has found."""

    OK = "ok"
    FAILED = "failed"
    UNCHECKED = "not checked"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `detail` says what was found and, if it is not as it should be, what to do."""

    what: str
    outcome: Outcome
    detail: str


class PublishedChecker:
    """Checks what is published.

    Raises:
        OutsideError: The object store is away or refuses.
    """

    def __init__(
        self,
        settings: PublishSettings,
        cdn: CdnClient,
        platform: PlatformClient,
        keys: Sequence[PublicKey],
        model_key: SecretBytes,
        *,
        last_serial: int = 0,
    ) -> None:
        """`last_serial` is of the newest release that is known to have been published."""
        self._settings = settings
        self._cdn = cdn
        self._platform = platform
        self._keys = keys
        self._model_key = model_key
        self._last_serial = last_serial
        self.manifest: Manifest | None = None
        """Of the published release, once it was verified."""

    async def run(self) -> list[Check]:
        """Check everything that can be."""
        name = self._settings.name
        envelope = await fetch_manifest(self._cdn, current_manifest(name))
        checks = [self._manifest(envelope)]
        manifest = self.manifest
        if manifest is None or envelope is None:
            rest = ["the versioned parts", *self._current_names(), "ONNX Runtime"]
            return [*checks, *(Check(what, Outcome.UNCHECKED, "without a manifest there is nothing to compare with") for what in rest)]
        again = f"Have it published again with: azaion-daemon model rollback {manifest.serial} --reason TEXT"
        checks.append(await self._versioned_manifest(manifest, envelope))
        checks.append(await self._versioned_big(manifest, again))
        _, check = await self._small(manifest, manifest.small.name, again)
        checks.append(check)
        return [*checks, *await self._current(manifest, again)]

    def _current_names(self) -> tuple[str, str]:
        names = PartNames.current(self._settings.name)
        return names.small, names.big

    def _manifest(self, envelope: bytes | None) -> Check:
        what = current_manifest(self._settings.name)
        if envelope is None:
            return Check(
                what,
                Outcome.FAILED,
                f"bucket {self._settings.bucket} has none that the downloader's key may read. The next release puts it; what was published "
                "before this version has none.",
            )
        try:
            manifest = verify(envelope, self._keys)
        except EnvelopeError as error:
            return Check(
                what,
                Outcome.FAILED,
                f"{error}. If the signing key was replaced, give the one from before with --public-key, or publish again; else somebody "
                "has put it there who must not: change the uploader's key.",
            )
        if manifest.name != self._settings.name:
            return Check(what, Outcome.FAILED, f"it is that of {manifest.name}. Check publish.name and publish.bucket.")
        self.manifest = manifest
        if manifest.serial < self._last_serial:
            detail = (
                f"it is that of release {manifest.serial}; release {self._last_serial} was published from here: somebody shows an old one"
            )
            return Check(what, Outcome.FAILED, f"{detail}. Change the uploader's key, then publish again.")
        return Check(what, Outcome.OK, f"release {manifest.serial} of {manifest.created:%Y-%m-%d %H:%M:%SZ}, signed by a trusted key")

    async def _versioned_manifest(self, manifest: Manifest, envelope: bytes) -> Check:
        what = versioned_manifest(manifest.name, manifest.serial)
        if await fetch_manifest(self._cdn, what) == envelope:
            return Check(what, Outcome.OK, "the same")
        return Check(
            what, Outcome.FAILED, f"it is not there, or another than {current_manifest(manifest.name)}: it was removed or replaced."
        )

    async def _versioned_big(self, manifest: Manifest, again: str) -> Check:
        what, joiner = manifest.big.name, self._joiner(manifest, manifest.small.held())
        try:
            wrong = _wrong(await join(self._cdn, what, joiner, most_bytes=manifest.big.size), manifest)
        except (NoSuchObjectError, CdnRefusedError) as error:
            return Check(what, Outcome.FAILED, f"{error} {again}")
        except TooLongError as error:
            return Check(what, Outcome.FAILED, f"{error} It is not what was signed: it was replaced. {again}")
        except CipherError as error:
            wrong = str(error)
        if joiner.big != manifest.big.sha256:
            return Check(what, Outcome.FAILED, f"it is not what was signed: it was replaced. {again}")
        if wrong:
            return Check(what, Outcome.FAILED, f"it is what was signed, and yet {wrong} Is AZAION_MODEL_KEY the one of that time?")
        return Check(what, Outcome.OK, f"{manifest.big.size} bytes as signed; with its .small it decrypts to the model that was signed")

    async def _small(self, manifest: Manifest, what: str, again: str) -> tuple[bytes | None, Check]:
        """A `.small` as the platform hands it out, None where it does not."""
        served = await self._served(what, again)
        if isinstance(served, Check):
            return None, served
        expected = manifest.small.held()
        if served == expected:
            return served, Check(what, Outcome.OK, f"{len(served)} bytes as signed")
        if what != manifest.small.name and served == small_part(self._model_key, served[:BLOCK_BYTES].ljust(BLOCK_BYTES)):
            detail = "it is another release's, which goes with any .big: a release is under way, or was cut short and is finished later"
            return served, Check(what, Outcome.OK, detail)
        return served, Check(what, Outcome.FAILED, f"it has {len(served)} bytes, and is not what was signed: it was replaced. {again}")

    async def _served(self, small: str, again: str) -> bytes | Check:
        """What the platform hands out, or why it does not."""
        folder = self._settings.folder
        try:
            try:
                return await self._platform.get_resource(folder, small)
            except NotServedError:
                listed = small in await self._platform.list(folder)
        except NoSuchResourceError:
            return Check(small, Outcome.FAILED, f"folder {folder} of the platform does not have it. {again}")
        except PlatformError as error:
            return Check(small, Outcome.FAILED, f"it cannot be had: {error}")
        if not listed:
            return Check(small, Outcome.FAILED, f"folder {folder} of the platform does not list it. {again}")
        detail = f"folder {folder} lists it, but this server hands out no files. The manifest has it for those who read that."
        return Check(small, Outcome.UNCHECKED, detail)

    async def _current(self, manifest: Manifest, again: str) -> list[Check]:
        """What those consumers get that read no manifest."""
        small_name, big_name = self._current_names()
        small, small_check = await self._small(manifest, small_name, again)
        with ExitStack() as stack:
            loading = await asyncio.to_thread(lambda: stack.enter_context(Loading())) if can_load() else None
            joiner = Joiner(
                self._model_key,
                manifest.small.held() if small is None else small,
                padding_bytes=manifest.padding_bytes,
                whole=loading.take if loading else None,
            )
            unchecked = Check("ONNX Runtime", Outcome.UNCHECKED, "there is no model to load")
            try:
                joined = await join(self._cdn, big_name, joiner, most_bytes=manifest.big.size)
            except TooLongError:
                return [small_check, Check(big_name, Outcome.FAILED, self._another(manifest, "it is longer than the", again)), unchecked]
            except (NoSuchObjectError, CdnRefusedError, CipherError) as error:
                return [small_check, Check(big_name, Outcome.FAILED, f"{error} {again}"), unchecked]
            loads = _loads(None if loading is None else await asyncio.to_thread(loading.finish), manifest)
        if joined.model != manifest.model.sha256:
            detail = self._another(manifest, f"joined with {small_name} it decrypts to another model than the", again)
            return [small_check, Check(big_name, Outcome.FAILED, detail), loads]
        whence = "the manifest's .small, since the server hands out none," if small is None else small_name
        return [small_check, Check(big_name, Outcome.OK, f"joined with {whence} it decrypts to the model that was signed"), loads]

    @staticmethod
    def _another(manifest: Manifest, what: str, again: str) -> str:
        return f"{what} one of release {manifest.serial}: a release is under way (see: azaion-daemon status), or it was replaced. {again}"

    def _joiner(self, manifest: Manifest, small: bytes) -> Joiner:
        return Joiner(self._model_key, small, padding_bytes=manifest.padding_bytes)


def _wrong(joined: Joined, manifest: Manifest) -> str:
    for what, found, signed in (
        ("the ciphertext", joined.ciphertext, manifest.ciphertext),
        ("the plaintext", joined.plaintext, manifest.plaintext),
        ("the model", joined.model, manifest.model),
    ):
        if found != signed.sha256:
            return f"{what} is another one."
    return ""


def _loads(loaded: Loaded | None, manifest: Manifest) -> Check:
    what = "ONNX Runtime"
    if loaded is None:
        return Check(what, Outcome.UNCHECKED, "it is not installed here; the extra `train` brings it")
    if loaded.error:
        return Check(
            what, Outcome.FAILED, f"the model does not load: {loaded.error}. Roll back: azaion-daemon model rollback --reason TEXT"
        )
    for shape, found in ((manifest.input_shape, loaded.inputs), (manifest.output_shape, loaded.outputs)):
        if shape is not None and tuple(shape) not in found:
            return Check(what, Outcome.FAILED, f"the model has the shapes {found}, the manifest says {shape}. Was it published by hand?")
    return Check(what, Outcome.OK, f"the model loads; input {list(map(list, loaded.inputs))}, output {list(map(list, loaded.outputs))}")


async def verified_manifest(cdn: CdnClient, name: str, serial: int | None, keys: Sequence[PublicKey]) -> Manifest:
    """The manifest of a release, by default of the published one.

    Raises:
        OutsideError: The store is away, has none, or it is not to be believed.
    """
    stored = current_manifest(name) if serial is None else versioned_manifest(name, serial)
    envelope = await fetch_manifest(cdn, stored)
    if envelope is None:
        raise OutsideError(f"{stored} is not in the object store: see `azaion-daemon status` for what was published with a manifest.")
    try:
        manifest = verify(envelope, keys)
    except EnvelopeError as error:
        raise EnvelopeError(f"{stored} is not to be believed: {error}. azaion-daemon model verify says more.") from error
    if manifest.name != name or serial not in {None, manifest.serial}:
        raise EnvelopeError(f"{stored} is the manifest of release {manifest.serial} of {manifest.name}: somebody has put it there.")
    return manifest
