"""The position of the service that this daemon takes over from: a YAML file with one integer, whose key nobody has written down.

Nor is it known whether that integer is the last message that was done or the next. So the message there is taken again: nothing is lost,
and applying it once more is harmless.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from azaion_daemon.errors import OperatorError

_KEYS = frozenset({"offset", "position", "lastoffset", "streamoffset"})
_LARGEST = 2**63 - 1


def read_offset(path: Path) -> int:
    """The integer in a file: alone, under one of the usual keys, or the only one that there is; also one level deeper.

    Raises:
        OperatorError: It cannot be read, or which integer is meant would have to be guessed.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OperatorError(f"{path} cannot be read: {str(error).splitlines()[0]}. Nothing was made.") from error
    pairs = list(_integers(document))
    usual = [value for key, value in pairs if re.sub(r"[-_ ]", "", key).lower() in _KEYS]
    found = set(usual or [value for _, value in pairs])
    if len(found) != 1:
        what = "holds no integer" if not found else f"holds several integers ({', '.join(map(str, sorted(found)[:5]))})"
        raise OperatorError(f"{path} {what}: which one is the position? Write it as: offset: N. Nothing was made.")
    (offset,) = found
    if not 0 <= offset <= _LARGEST:
        raise OperatorError(f"{path} has the offset {offset}, which no stream has. Nothing was made.")
    return offset


def _integers(document: Any, key: str = "", depth: int = 2) -> Iterator[tuple[str, int]]:
    """The integers of a document with their keys."""
    match document:
        case bool():
            return
        case int():
            yield key, document
        case str() if document.strip().isascii() and document.strip().isdecimal():
            yield key, int(document)
        case dict() if depth:
            for inner, value in document.items():
                yield from _integers(value, str(inner), depth - 1)
