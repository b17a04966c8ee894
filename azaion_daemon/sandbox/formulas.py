"""The platform's keys and cipher, as its servers and the consumers of models compute them.

Written from the platform's documents alone and on purpose a second time: were the product's own code used here, a mistake in it would
encrypt and decrypt alike, and no test would see it.
"""

import base64
import hashlib
import secrets

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_BLOCK_BYTES = 16


def api_key(email: str, password: str, hardware: str) -> str:
    """The key string that opens what `/resources/get` returns."""
    hardware_hash = _sha384_base64(f"Azaion_{hardware}_%$$$)0_")
    return _sha384_base64(f"{email}-{password}-{hardware_hash}-#%@AzaionKey@%#---")


def encrypt(plaintext: bytes, key: str) -> bytes:
    """16 random bytes, then AES-256-CBC of the PKCS#7-padded plaintext; the AES key is SHA-256 of the key string."""
    start = secrets.token_bytes(_BLOCK_BYTES)
    padder = padding.PKCS7(8 * _BLOCK_BYTES).padder()
    encryptor = Cipher(algorithms.AES256(_aes_key(key)), modes.CBC(start)).encryptor()
    return start + encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()


def decrypt(ciphertext: bytes, key: str) -> bytes:
    """The plaintext. Raises ValueError when it was not encrypted with this key, or is damaged at its end."""
    start, body = ciphertext[:_BLOCK_BYTES], ciphertext[_BLOCK_BYTES:]
    if len(start) < _BLOCK_BYTES or not body or len(body) % _BLOCK_BYTES:
        raise ValueError(f"{len(ciphertext)} bytes are no whole ciphertext")
    decryptor = Cipher(algorithms.AES256(_aes_key(key)), modes.CBC(start)).decryptor()
    unpadder = padding.PKCS7(8 * _BLOCK_BYTES).unpadder()
    return unpadder.update(decryptor.update(body) + decryptor.finalize()) + unpadder.finalize()


def _aes_key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _sha384_base64(text: str) -> str:
    return base64.b64encode(hashlib.sha384(text.encode()).digest()).decode()
