"""The key that manifests are signed with: Ed25519 (RFC 8032), so that one key and one content have one signature.

Made at the first use in the root's state directory, or taken from a file of the operator's. Consumers are given the public key once and
believe nothing else from then on. So a private key that is torn, unreadable or gone is an error that says what to do, and never replaced.
"""

import base64
import binascii
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from azaion_daemon.errors import OperatorError
from azaion_daemon.store.durable import replace_durably, storage
from azaion_daemon.store.layout import Layout

_RAW_BYTES = 32
_LONGEST_FILE = 16_384
_MAKE_ONE = "openssl genpkey -algorithm ed25519"


class SigningKeyError(OperatorError):
    """The signing key, or a public key, cannot be used."""


@dataclass(frozen=True)
class PublicKey:
    """What consumers verify with. `raw` are the 32 bytes of RFC 8032."""

    raw: bytes

    @cached_property
    def id(self) -> str:
        """SHA-256 of the DER form (SubjectPublicKeyInfo), in hexadecimal."""
        return hashlib.sha256(self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    @cached_property
    def pem(self) -> str:
        """The SubjectPublicKeyInfo as PEM."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    @cached_property
    def base64(self) -> str:
        """The raw bytes, for those who have no use for PEM."""
        return base64.b64encode(self.raw).decode("ascii")

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether a signature was made with the private key, over this message."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    @classmethod
    def parse(cls, content: bytes, *, source: str) -> "PublicKey":
        """Read a public key, as PEM or as the base64 of its 32 bytes; `source` is what the error calls it.

        Raises:
            SigningKeyError: It is none.
        """
        try:
            if b"-----BEGIN" not in content:
                return cls.of(Ed25519PublicKey.from_public_bytes(base64.b64decode(content.strip(), validate=True)))
            key = load_pem_public_key(content)
        except (ValueError, binascii.Error, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise SigningKeyError(f"{source} is not a public Ed25519 key. Give what `azaion-daemon model key` prints.")
        return cls.of(key)

    @classmethod
    def of(cls, key: Ed25519PublicKey) -> "PublicKey":
        """From the library's own object."""
        return cls(key.public_bytes(Encoding.Raw, PublicFormat.Raw))

    @cached_property
    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)


class SigningKey:
    """A private key. Neither its repr nor any error shows it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey.of(key.public_key())

    def __repr__(self) -> str:
        return f"SigningKey({self.public.id[:12]})"

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._key.sign(message)


class SigningKeys:
    """Where the daemon's signing key is. Blocking.

    Raises:
        SigningKeyError: It cannot be used; the message says what to do.
        StorageError: The disk failed, or is full, while a key was made.
    """

    def __init__(self, layout: Layout, file: Path | None) -> None:
        """`file` is the operator's; without one the key is in the state directory."""
        self._state = layout.state
        self._releases = layout.releases
        self._made = layout.signing_key
        self._made_public = layout.signing_public_key
        self._file = file

    @property
    def source(self) -> Path:
        """Where the private key is, or will be."""
        return self._made if self._file is None else self._file

    def load_or_make(self) -> SigningKey:
        """The signing key; made, durably, where there is none yet and no file is configured. Two processes at once make one."""
        if self._file is not None:
            return _read(self._file, "publish.signing_key_file ")
        with self._alone():
            if not self._made.exists():
                self._refuse_lost()
                with storage("making the signing key"):
                    replace_durably(self._made, _pem(Ed25519PrivateKey.generate()), mode=0o600)
            key = _read(self._made, "")
            self._keep_public(key.public)
        return key

    def load(self) -> SigningKey | None:
        """The signing key as it is; nothing is made. None where the first use would make one."""
        if self._file is not None:
            return _read(self._file, "publish.signing_key_file ")
        if not self._made.exists():
            if self._state.is_dir():
                self._refuse_lost()
            return None
        key = _read(self._made, "")
        self._is_kept(key.public)
        return key

    def public(self) -> PublicKey:
        """The public key, also for those who may not read the private one; nothing is made."""
        if self._file is not None:
            return _read(self._file, "publish.signing_key_file ").public
        try:
            content = self._made_public.read_bytes()
        except FileNotFoundError:
            raise SigningKeyError(
                f"{self._made_public} does not exist: no signing key was made yet. Make it, as the user of the daemon, with: "
                "azaion-daemon model key"
            ) from None
        except OSError as error:
            raise SigningKeyError(f"{self._made_public} cannot be read: {error.strerror}. Give it with --public-key.") from error
        return PublicKey.parse(content, source=str(self._made_public))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one that makes a key, or wait until another's is durable."""
        try:
            directory = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SigningKeyError(f"{self._state} cannot be opened: {error.strerror}. Run this as the user of the daemon.") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _refuse_lost(self) -> None:
        if self._made_public.exists():
            raise SigningKeyError(
                f"{self._made} is gone, and consumers trust its public key, {self._made_public}. Restore it from a backup. If it is lost, "
                f"move {self._made_public} away and make another with mode 0600 ({_MAKE_ONE} -out {self._made}); every consumer must be "
                "given its public part before it takes another model."
            )
        if any(_was_signed(record) for record in self._releases.glob("*.json")):
            raise SigningKeyError(
                f"{self._made} and {self._made_public} are gone, but {self._releases} has releases that were signed. Restore both from "
                f"a backup; or make another key with mode 0600 ({_MAKE_ONE} -out {self._made}), and give every consumer its public part."
            )
        owner = self._state.stat().st_uid
        if not os.access(self._state, os.W_OK) or (os.geteuid() == 0 and owner != 0):  # root could, and the daemon could not read it
            raise SigningKeyError(f"{self._made} cannot be made by the user {os.geteuid()}. Run this as the user of the daemon.")

    def _keep_public(self, key: PublicKey) -> None:
        """Beside the private key: it says that there was one, and is what others verify with."""
        if not self._is_kept(key):
            with storage("keeping the public key"):
                replace_durably(self._made_public, key.pem.encode("ascii"))

    def _is_kept(self, key: PublicKey) -> bool:
        """Whether the public key is beside the private one, as we write it; another one there is an error."""
        try:
            content = self._made_public.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SigningKeyError(f"{self._made_public} cannot be read: {error.strerror}. Check its owner and mode.") from error
        if PublicKey.parse(content, source=str(self._made_public)) != key:
            raise SigningKeyError(
                f"{self._made} is not the private key of {self._made_public}: one of them was replaced. Restore the pair from a "
                f"backup, or, to sign with {self._made} from now on, move {self._made_public} away and give consumers the new one."
            )
        return content == key.pem.encode("ascii")


def _was_signed(record: Path) -> bool:
    try:
        document = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("manifest") is not None


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path, what: str) -> SigningKey:
    """Read a private key, as PEM (PKCS#8).

    As ssh does, one that others can read is refused: anyone with an account on the machine, or, of a file of our own, its group. A file of
    another user's, such as root's, may be readable by a group: that is how it is given to us.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            content = file.read(_LONGEST_FILE) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise SigningKeyError(f"{what}{path} cannot be read: {error.strerror}. Check that it is there, its owner and its mode.") from error
    forbidden = 0o077 if found.st_uid == os.geteuid() else 0o007
    if found.st_mode & forbidden and stat.S_ISREG(found.st_mode):
        raise SigningKeyError(
            f"{what}{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}), who could sign with it. If nobody has: "
            f"chmod 600 {path}. If somebody may have, replace it as deploy/README.md says."
        )
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:  # it wants a password
        raise SigningKeyError(f"{what}{path} is protected by a password. The daemon takes a PEM file without one, of mode 0600.") from None
    except (ValueError, UnsupportedAlgorithm):  # what it says may hold a part of the key
        raise SigningKeyError(
            f"{what}{path} is not a private key in PEM (PKCS#8), or is torn. Restore it from a backup. A new one ({_MAKE_ONE}) is worth "
            "nothing before every consumer was given its public key."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"{what}{path} is not an Ed25519 key. Make one with: {_MAKE_ONE}")
    return SigningKey(key)
