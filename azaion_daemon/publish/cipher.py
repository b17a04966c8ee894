"""AES-256-CBC as the platform lays it out: 16 random bytes (the IV), then the PKCS#7-padded ciphertext. No header, no MAC.

Without a MAC, damage in the middle goes unseen here: whoever decrypts compares a digest as well. A wrong key, a cut or a file that is no
multiple of 16 bytes is noticed at the padding, except for about one wrong key in 256.
"""

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from pydantic import SecretBytes

from azaion_daemon.errors import ReleaseError

BLOCK_BYTES = 16


class CipherError(ReleaseError):
    """Bytes that cannot be decrypted: wrong key, cut short, or never encrypted."""


def ciphertext_size(plaintext_size: int) -> int:
    """The bytes that a plaintext of this size takes: IV, blocks, and always at least one byte of padding."""
    return BLOCK_BYTES + (plaintext_size // BLOCK_BYTES + 1) * BLOCK_BYTES


class Encryptor:
    """Encrypts a stream in pieces of any size. `iv` is the first piece of the ciphertext and is not given out again by `update`."""

    def __init__(self, key: SecretBytes, iv: bytes | None = None) -> None:
        self.iv = os.urandom(BLOCK_BYTES) if iv is None else iv
        self._cipher = Cipher(algorithms.AES(key.get_secret_value()), modes.CBC(self.iv)).encryptor()
        self._size = 0

    def update(self, plaintext: bytes | memoryview) -> bytes:
        """The ciphertext of all whole blocks so far."""
        self._size += len(plaintext)
        return self._cipher.update(plaintext)

    def update_into(self, plaintext: bytes | memoryview, ciphertext: bytearray) -> int:
        """As `update`, into a buffer of at least 15 bytes more than the plaintext. Returns how many bytes are there."""
        self._size += len(plaintext)
        return self._cipher.update_into(plaintext, ciphertext)

    def finish(self) -> bytes:
        """The last block."""
        missing = BLOCK_BYTES - self._size % BLOCK_BYTES
        return self._cipher.update(bytes([missing]) * missing) + self._cipher.finalize()


class Decryptor:
    """Decrypts a stream in pieces of any size; the IV is taken from its beginning.

    Raises:
        CipherError: In `finish`, when the end is not that of something encrypted with this key.
    """

    def __init__(self, key: SecretBytes) -> None:
        self._algorithm = algorithms.AES(key.get_secret_value())
        self._head = b""
        self._decrypt: Callable[[bytes | memoryview], bytes] | None = None
        self._padding = PKCS7(BLOCK_BYTES * 8).unpadder()
        self._size = 0

    def update(self, ciphertext: bytes | memoryview) -> bytes:
        """The plaintext so far, except for what may be padding."""
        self._size += len(ciphertext)
        if self._decrypt is None:
            missing = BLOCK_BYTES - len(self._head)
            self._head += ciphertext[:missing]
            ciphertext = ciphertext[missing:]
            if len(self._head) < BLOCK_BYTES:
                return b""
            self._decrypt = Cipher(self._algorithm, modes.CBC(self._head)).decryptor().update
        return self._padding.update(self._decrypt(ciphertext))

    def finish(self) -> bytes:
        """The rest of the plaintext."""
        if self._size < 2 * BLOCK_BYTES or self._size % BLOCK_BYTES:
            raise CipherError(
                f"these {self._size} bytes are not whole: an encrypted file is a multiple of {BLOCK_BYTES} and at least {2 * BLOCK_BYTES} "
                "bytes long. Fetch it again."
            )
        try:
            return self._padding.finalize()
        except ValueError:
            raise CipherError("these bytes were encrypted with another key, or are damaged. Compare the key on both sides.") from None


def encrypt(plaintext: bytes, key: SecretBytes) -> bytes:
    """Encrypt what fits into memory."""
    encryptor = Encryptor(key)
    return encryptor.iv + encryptor.update(plaintext) + encryptor.finish()


def decrypt(ciphertext: bytes, key: SecretBytes) -> bytes:
    """Decrypt what fits into memory.

    Raises:
        CipherError: Wrong key, cut short, or damaged where the padding shows it.
    """
    decryptor = Decryptor(key)
    return decryptor.update(ciphertext) + decryptor.finish()
