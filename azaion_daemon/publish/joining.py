"""What a consumer does with the two parts, without keeping either: join, decrypt, and see what it is."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from pydantic import SecretBytes

from azaion_daemon.errors import ReleaseError
from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.cipher import Decryptor


class TooLongError(ReleaseError):
    """A part has more bytes than it should have: what follows is not worth its download."""


@dataclass(frozen=True)
class Joined:
    """Digests are SHA-256 in hexadecimal. `model` is what follows the padding."""

    big: str
    big_size: int
    ciphertext: str
    plaintext: str
    model: str


class Joiner:
    """Takes a `.big` in pieces of any size, after its `.small`. Blocking: for a thread.

    Raises:
        CipherError: In `finish`, when the end is not that of something encrypted with this key.
    """

    def __init__(
        self,
        key: SecretBytes,
        small: bytes,
        *,
        padding_bytes: int = 0,
        sink: Callable[[bytes], object] | None = None,
        whole: Callable[[bytes], object] | None = None,
    ) -> None:
        """What comes after `padding_bytes` of the plaintext is the model; `sink` is given it piece by piece, and `whole` the plaintext."""
        self._decryptor = Decryptor(key)
        self._big, self._ciphertext, self._plaintext = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._model = hashlib.sha256() if padding_bytes else self._plaintext
        self._padding_left = padding_bytes
        self._sink = sink
        self._whole = whole
        self._size = 0
        self._join(small)

    def take(self, big: bytes) -> None:
        """The next piece of the `.big`."""
        self._big.update(big)
        self._size += len(big)
        self._join(big)

    @property
    def big(self) -> str:
        """The digest of the `.big` so far: also where it does not decrypt."""
        return self._big.hexdigest()

    def finish(self) -> Joined:
        """What it was, after the last piece."""
        self._keep(self._decryptor.finish())
        return Joined(self.big, self._size, self._ciphertext.hexdigest(), self._plaintext.hexdigest(), self._model.hexdigest())

    def _join(self, ciphertext: bytes) -> None:
        self._ciphertext.update(ciphertext)
        self._keep(self._decryptor.update(ciphertext))

    def _keep(self, plaintext: bytes) -> None:
        self._plaintext.update(plaintext)
        if self._whole is not None:
            self._whole(plaintext)
        model = plaintext
        if self._padding_left:
            model = plaintext[self._padding_left :]
            self._padding_left -= min(len(plaintext), self._padding_left)
        if self._model is not self._plaintext:
            self._model.update(model)
        if self._sink is not None:
            self._sink(model)


async def join(cdn: CdnClient, big: str, joiner: Joiner, *, most_bytes: int, progress: Callable[[int], object] = lambda _: None) -> Joined:
    """Join a `.big` of at most so many bytes as it is downloaded; `progress` is told the size of each piece.

    Raises:
        CipherError: It does not decrypt with this key.
        TooLongError, NoSuchObjectError, OutsideError: As `pieces`.
    """
    async with aclosing(pieces(cdn, big, most_bytes)) as chunks:
        async for chunk in chunks:
            await asyncio.to_thread(joiner.take, chunk)
            progress(len(chunk))
    return await asyncio.to_thread(joiner.finish)


async def pieces(cdn: CdnClient, big: str, most_bytes: int) -> AsyncGenerator[bytes, None]:
    """A `.big` in pieces, as far as it may be long.

    Raises:
        TooLongError: It is longer.
        NoSuchObjectError, OutsideError: As `CdnClient.download`.
    """
    size = 0
    async with aclosing(cdn.download(big)) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            if size > most_bytes:
                raise TooLongError(f"{big} has more than {most_bytes} bytes.")
            yield chunk
