"""The platform's key formulas: who may open what.

H(s) is the base64 of the SHA-384 of the UTF-8 text, 64 characters. Every key string becomes an AES key by SHA-256.
"""

import base64
import hashlib

from pydantic import SecretBytes, SecretStr


def hardware_hash(hardware: SecretStr) -> str:
    """What the platform keeps of a machine: H("Azaion_" + hardware + "_%$$$)0_")."""
    return _digest(f"Azaion_{hardware.get_secret_value()}_%$$$)0_")


def api_key(email: str, password: SecretStr, hardware: SecretStr) -> SecretStr:
    """The key string that opens what the platform hands out: bound to the account and to the machine."""
    return SecretStr(_digest(f"{email}-{password.get_secret_value()}-{hardware_hash(hardware)}-#%@AzaionKey@%#---"))


def aes_key(key: SecretStr) -> SecretBytes:
    """The 32 raw bytes for AES-256 that a key string stands for."""
    return SecretBytes(hashlib.sha256(key.get_secret_value().encode()).digest())


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha384(text.encode()).digest()).decode("ascii")
