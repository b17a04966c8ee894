"""The signed manifest of a release: what a consumer needs to fetch one version by names that stay, and to know that it got it.

A consumer that reads it never sees a swap: the versioned parts are never replaced, and a serial number that does not grow is refused. It is
an Ed25519 signature over a DSSE envelope (see dsse.py); the payload is this document as JSON. `.small` is in it, since it is
3 KB of encrypted padding and newer servers hand out no files: the manifest and the versioned `.big` are enough.

Fields that this version does not know are passed over, so that later ones can say more; a reader that must not do so is told by another
`version`.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from azaion_daemon.publish.dsse import EnvelopeError, read_json, seal, unseal, unverified
from azaion_daemon.publish.names import MANIFEST_SUFFIX, versioned_name
from azaion_daemon.publish.signing import PublicKey, SigningKey

PAYLOAD_TYPE = "application/vnd.azaion.model-manifest+json"
VERSION: Literal[1] = 1
PADDING_FORMAT: Literal[1] = 1
"""How the plaintext begins; see packing.py."""
_MOST = 1 << 53  # JSON's numbers are whole up to here

Serial = Annotated[int, Field(ge=1, lt=_MOST)]
Size = Annotated[int, Field(ge=0, lt=_MOST)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Component = Annotated[str, Field(pattern=r"^[^/\x00]{1,255}$")]
Shape = tuple[Annotated[int, Field(ge=1, lt=_MOST)], ...]


class ManifestError(EnvelopeError):
    """A manifest that must not be believed, or cannot be understood."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class Content(_Document):
    """Bytes that are known: SHA-256 in hexadecimal, and how many."""

    sha256: Sha256
    size: Size


class Part(Content):
    """An object of a store, under a name that is never given to anything else."""

    name: Component


class SmallPart(Part):
    """The first part, which the manifest brings along."""

    content: str
    """Base64."""

    @classmethod
    def of(cls, name: str, content: bytes) -> Self:
        """A part with what it holds."""
        encoded = base64.b64encode(content).decode("ascii")
        return cls(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content), content=encoded)

    def held(self) -> bytes:
        """The part itself."""
        return base64.b64decode(self.content)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        try:
            content = base64.b64decode(self.content, validate=True)
        except binascii.Error:
            raise ValueError("content: must be base64") from None
        if (len(content), hashlib.sha256(content).hexdigest()) != (self.size, self.sha256):
            raise ValueError("content: must be what sha256 and size say")
        return self


class Manifest(_Document):
    """A release. What is None or empty is not known, as of a model that was there before the daemon."""

    version: Literal[1] = VERSION
    name: Component
    serial: Serial
    created: AwareDatetime
    bucket: str
    """Of the CDN, with `big` in it."""
    folder: str
    """On the platform, with `small` in it."""
    cipher: Literal["AES-256-CBC"] = "AES-256-CBC"
    """The key is the SHA-256 of the model key; 16 bytes IV, then the PKCS#7-padded plaintext."""
    padding_format: Literal[1] = PADDING_FORMAT
    small: SmallPart
    big: Part
    ciphertext: Content
    """Both parts, joined."""
    plaintext: Content
    """What that decrypts to: padding, then the model."""
    model: Content
    """The ONNX alone."""
    dataset_id: str | None = None
    job: str | None = None
    input_shape: Shape | None = None
    output_shape: Shape | None = None
    metrics: dict[str, float] = {}
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.small.size + self.big.size != self.ciphertext.size or not self.model.size <= self.plaintext.size < self.ciphertext.size:
            raise ValueError("the sizes do not add up")
        return self

    @property
    def padding_bytes(self) -> int:
        """How much of the plaintext comes before the model."""
        return self.plaintext.size - self.model.size


@dataclass(frozen=True)
class ReleaseFacts:
    """What is known of a model that is published, beside its bytes."""

    job: str | None = None
    dataset_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    input_shape: Shape | None = None
    output_shape: Shape | None = None


class SeenSerial(NamedTuple):
    """A serial number that was published, and whether the key that signed it is trusted."""

    serial: int
    trusted: bool


def current_manifest(name: str) -> str:
    """The name under which consumers find the manifest of the newest release."""
    return name + MANIFEST_SUFFIX


def versioned_manifest(name: str, serial: int) -> str:
    """The name under which a release's manifest stays."""
    return current_manifest(versioned_name(name, serial))


def sign(manifest: Manifest, key: SigningKey) -> bytes:
    """The envelope as it is stored: the same for the same manifest and key."""
    payload = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return seal(payload.encode(), PAYLOAD_TYPE, key)


def verify(envelope: bytes, keys: Sequence[PublicKey]) -> Manifest:
    """Read a manifest that one of these keys has signed.

    Raises:
        EnvelopeError: It is too large, no envelope, of another type, or not signed by any of them.
        ManifestError: It was signed, but this release of the daemon does not understand it.
    """
    return _parse(unseal(envelope, PAYLOAD_TYPE, keys))


def seen_serial(envelope: bytes, keys: Sequence[PublicKey]) -> SeenSerial | None:
    """The serial number of a manifest, also of one that somebody else has signed, or a later version; None when it is no manifest."""
    try:
        payload, trusted = unseal(envelope, PAYLOAD_TYPE, keys), True
    except EnvelopeError:
        try:
            payload, trusted = unverified(envelope, PAYLOAD_TYPE), False
        except EnvelopeError:
            return None
    try:
        document = read_json(payload)
    except ValueError:
        return None
    match document:
        case {"serial": int(serial)} if 1 <= serial < _MOST:
            return SeenSerial(serial, trusted)
        case _:
            return None


def _parse(payload: bytes) -> Manifest:
    try:
        read_json(payload)  # pydantic's parser lets a key stand twice
        return Manifest.model_validate_json(payload)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ManifestError(f"it is not a manifest of version {VERSION}: {where}: {fault['msg']}") from None
    except ValueError as error:
        raise ManifestError(f"it is not a manifest: {error}") from None
