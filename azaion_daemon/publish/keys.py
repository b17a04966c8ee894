"""The platform's key formulas: who may open what.

H(s) is the base64 of the SHA-384 of the UTF-8 text, 64 characters. Every key string becomes an AES key by SHA-256.
"""

import base64
import hashlib


def hardware_hash(hardware: str) -> str:
    """What the platform keeps of a machine: H("Azaion_" + hardware + "_%$$$)0_")."""
    return _digest(f"Azaion_{hardware}_%$$$)0_")


def api_key(email: str, password: str, hardware: str) -> str:
    """The key string that opens what the platform hands out: bound to the account and to the machine."""
    return _digest(f"{email}-{password}-{hardware_hash(hardware)}-#%@AzaionKey@%#---")


def aes_key(key: str) -> bytes:
    """The 32 raw bytes for AES-256 that a key string stands for."""
    return hashlib.sha256(key.encode()).digest()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha384(text.encode()).digest()).decode("ascii")
