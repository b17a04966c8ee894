"""Values of fields as plain, bounded data, and as text that a terminal does not act upon.

A value may be anything, also what an outsider has sent: a line must come out of it all the same, and never one of megabytes.
"""

import math
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from itertools import islice
from typing import Any

LONGEST_TEXT = 4096
"""Characters of one text."""
LONGEST_TRACEBACK = 16_384
_LONGEST_NAME = 100
_A_VALUE = 8
_LONGEST_FIELDS = 32_768
_MOST_ITEMS = 100
_DEEPEST = 5
_MOST_BITS = 256


def tidied(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An event's fields as JSON can hold them: long texts, collections and numbers cut, and said so; bytes only counted."""
    budget = _Budget()
    short_first = sorted(
        fields, key=lambda name: (isinstance(fields[name], Collection) and not isinstance(fields[name], str), name != "event")
    )
    done = {name: budget.plain(fields[name], LONGEST_TRACEBACK if name == "exception" else LONGEST_TEXT) for name in short_first}
    return {name: done[name] for name in fields}


def printable(text: str) -> str:
    """With everything escaped that a terminal would act upon or that hides what is shown."""
    if text.isprintable():
        return text
    return "".join(one if one == "\t" or one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def printable_value(value: Any) -> Any:
    """Plain data with `printable` texts, for a terminal."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {printable(str(name)): printable_value(one) for name, one in value.items()}
        case list():
            return [printable_value(one) for one in value]
        case _:
            return value


class _Budget:
    """What all texts of one event may take together."""

    def __init__(self) -> None:
        self._left = _LONGEST_FIELDS

    def plain(self, value: Any, longest: int, depth: int = 0) -> Any:  # noqa: PLR0911 - one return a kind reads best
        self._left -= _A_VALUE
        match value:
            case None | bool():
                return value
            case _ if self._left <= 0:
                return "…"
            case Enum():
                return self.plain(value.value, longest, depth)
            case int():
                return int(value) if value.bit_length() <= _MOST_BITS else f"<a number of {value.bit_length()} bits>"
            case float():
                return float(value) if math.isfinite(value) else str(value)
            case bytes() | bytearray() | memoryview():
                return f"<{memoryview(value).nbytes} bytes>"
            case dict() | list() | tuple() | set() | frozenset() if depth >= _DEEPEST:
                return f"<{type(value).__name__} of {len(value)}>"
            case dict():
                items = {self._name(name): self.plain(one, longest, depth + 1) for name, one in islice(value.items(), _MOST_ITEMS)}
                return items | _more("…", len(value))
            case list() | tuple() | set() | frozenset():
                ordered = sorted(value, key=_text) if isinstance(value, AbstractSet) else value
                return [self.plain(one, longest, depth + 1) for one in ordered[:_MOST_ITEMS]] + list(_more("…", len(value)).values())
            case _:
                text = _cut(_text(value), min(longest, self._left))
                self._left -= len(text)
                return text

    def _name(self, name: object) -> str:
        text = _cut(_text(name), _LONGEST_NAME)
        self._left -= len(text)
        return text


def _more(name: str, count: int) -> dict[str, str]:
    return {name: f"{count - _MOST_ITEMS} more"} if count > _MOST_ITEMS else {}


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - whatever it is, the line must come out
        return f"<{type(value).__name__}>"


def _cut(text: str, longest: int) -> str:
    """Both ends of a long text: of a traceback the last lines say most."""
    if len(text) <= longest:
        return text
    head = longest // 4
    return f"{text[:head]}… {len(text) - longest} characters left out …{text[len(text) - (longest - head) :]}"
