"""What the catalogue says of one event."""

from typing import Literal, NamedTuple

Level = Literal["debug", "info", "warning", "error"]


class Event(NamedTuple):
    """What one event says."""

    level: Level
    meaning: str
    fields: tuple[str, ...] = ()
    """Beside `timestamp`, `level`, `service` and `event`, which every line has."""
    remedy: str = ""
    """What an operator does about it; every warning and error has one, "Nothing ..." where it passes by itself."""
