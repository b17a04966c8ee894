"""JSON that another version may have written: what is not as expected counts as missing."""

from collections.abc import Mapping
from typing import Any, TypeGuard


def mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; an empty one where there is none."""
    found = document.get(key)
    return found if isinstance(found, Mapping) else {}


def several(found: Any) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def number(value: Any) -> TypeGuard[float]:
    """Whether it is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
