"""What is published of a model: a padded plaintext, encrypted as a stream, cut into `.small` and `.big`.

The two parts lie in two stores and cannot be replaced together, so a consumer may join the parts of two releases. That must still be a
model, and the right one. So the plaintext begins with a protobuf field that says nothing, ModelProto's `doc_string` (field 6, wire type 2)
of 4,096 spaces, followed by the ONNX: protobuf messages concatenate, and of a field given twice the last counts, so a model's own
`doc_string` stays. `.small` lies wholly inside the padding. Joined with that of another release, `.big` decrypts to its own model; only the
16 bytes at the seam come out wrong, inside the padding too.

A release that was begun goes on with the same bytes: they follow from the model, the key and the IV, and the IV is the first 16 bytes of
`.small`. So no encrypted copy of the model is kept on disk.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import SecretBytes

from azaion_daemon.errors import ReleaseError, StorageError
from azaion_daemon.health import beat
from azaion_daemon.publish.cipher import BLOCK_BYTES, Encryptor, ciphertext_size
from azaion_daemon.store.durable import storage


class ModelGoneError(ReleaseError):
    """The model's file is not there any more."""


PADDING = b"\x32\x80\x20" + b" " * 4096  # tag, length as a varint, spaces
SMALL_BYTES = 3072
_SMALL_PERCENT = 20
_LEAST_CIPHERTEXT = SMALL_BYTES * 100 // _SMALL_PERCENT
_CHUNK_BYTES = 128 << 10  # small enough to stay in the processor's cache between reading, encrypting and hashing


def split_size(ciphertext: int) -> int:
    """The bytes of `.small` for a ciphertext of this many bytes: the least of 3,072 and 20 %."""
    return min(SMALL_BYTES, ciphertext * _SMALL_PERCENT // 100)


def padding(model_size: int) -> bytes:
    """What goes before a model of this many bytes.

    A model of less than about 11 KB takes the field several times, so that `.small` has 3,072 bytes in every release and the parts of any
    two fit together.
    """
    repeats = 1
    while ciphertext_size(repeats * len(PADDING) + model_size) < _LEAST_CIPHERTEXT:
        repeats += 1
    return PADDING * repeats


@dataclass(frozen=True)
class ModelDigests:
    """SHA-256 in hexadecimal: of a model, and of the plaintext that it becomes by its padding. `size` is the model's, in bytes."""

    model: str
    plaintext: str
    size: int


def model_digests(model: Path) -> ModelDigests:
    """Read a model for its digests. Blocking.

    Raises:
        ModelGoneError: There is no such file.
        StorageError: It cannot be read.
    """
    chunk = bytearray(_CHUNK_BYTES)
    with _reading(model), model.open("rb", buffering=0) as file:
        model_size = os.fstat(file.fileno()).st_size
        bare, padded = hashlib.sha256(), hashlib.sha256(padding(model_size))
        while size := file.readinto(chunk):
            beat()
            piece = memoryview(chunk)[:size]
            bare.update(piece)
            padded.update(piece)
    return ModelDigests(bare.hexdigest(), padded.hexdigest(), model_size)


@contextmanager
def _reading(model: Path) -> Iterator[None]:
    """A file that somebody has removed is no fault of the disk."""
    try:
        with storage("reading"):
            yield
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise ModelGoneError(f"{model} is gone. Restore it from a backup, or train again: a newer model takes its place.") from error
        raise


def small_part(key: SecretBytes, iv: bytes | None = None) -> bytes:
    """A `.small`: it holds nothing but the IV and encrypted padding, so it is the same for every model under one key and IV."""
    encryptor = Encryptor(key, iv)
    return encryptor.iv + encryptor.update(PADDING[: SMALL_BYTES - BLOCK_BYTES])


class BigPart(io.RawIOBase):
    """The `.big` of a model as a file that is read once, from beginning to end, and encrypted on the way. Blocking.

    `readinto` fills every buffer but the last, to a multiple of 16 bytes. `size` is that of what was read so far.

    Raises:
        ModelGoneError: There is no such file.
        ReleaseError: The model's size changed while it was read, or `.small` and `.big` joined are not what `expected_sha256` says.
        StorageError: The model cannot be read.
    """

    def __init__(self, model: Path, key: SecretBytes, small: bytes, *, expected_sha256: str | None = None) -> None:
        super().__init__()
        self._path = model
        self._encryptor = Encryptor(key, small[:BLOCK_BYTES])
        self._encryptor.update(PADDING[: SMALL_BYTES - BLOCK_BYTES])
        self._expected_sha256 = expected_sha256
        self._digest = hashlib.sha256(small)
        self._plain = memoryview(bytearray(_CHUNK_BYTES))
        self._encrypted = bytearray(_CHUNK_BYTES + BLOCK_BYTES)
        self._ended = False
        self.size = 0
        with _reading(model):
            self._file = model.open("rb")
            model_size = os.fstat(self._file.fileno()).st_size
        head = padding(model_size)
        self._head = head[SMALL_BYTES - BLOCK_BYTES :]
        self._expected_size = ciphertext_size(len(head) + model_size) - SMALL_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.close()

    def readable(self) -> bool:
        """It is only for reading."""
        return True

    def close(self) -> None:
        """Give the model's file back."""
        self._file.close()
        super().close()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # of the buffers that there are, those that we use
        """Fill a buffer with the next ciphertext; 0 at the end."""
        target = memoryview(buffer)[: len(buffer) - len(buffer) % BLOCK_BYTES]
        filled = 0
        while filled < len(target) and not self._ended:
            wanted = min(_CHUNK_BYTES, len(target) - filled)
            got = self._read_plain(self._plain[:wanted])
            size = self._encryptor.update_into(self._plain[:got], self._encrypted)
            if got < wanted:
                last = self._encryptor.finish()
                self._encrypted[size : size + len(last)] = last
                size += len(last)
                self._ended = True
            target[filled : filled + size] = memoryview(self._encrypted)[:size]
            filled += size
        self.size += filled
        if self._expected_sha256 is not None:
            self._digest.update(target[:filled])
        if self._ended:
            self._check()
        return filled

    def _read_plain(self, target: memoryview) -> int:
        """Fill the buffer from the rest of the padding, then from the model."""
        head = min(len(self._head), len(target))
        target[:head] = self._head[:head]
        self._head = self._head[head:]
        with storage("reading"):
            return head + self._file.readinto(target[head:])

    def _check(self) -> None:
        if self.size != self._expected_size or self._expected_sha256 not in {None, self._digest.hexdigest()}:
            raise ReleaseError(f"{self._path} or the model key changed while a release of it was under way. Publish it under a new serial.")
