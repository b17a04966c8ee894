"""Digests of whole files."""

import hashlib
from pathlib import Path


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:  # noqa: PTH123 - a hot path
        return hashlib.file_digest(file, "sha256").hexdigest()
