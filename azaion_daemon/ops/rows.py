"""A line for people: what it is about, what it says, and how it is meant."""

from dataclasses import dataclass
from enum import Enum


class Mood(Enum):
    """How a line is meant; shown as a colour where there are colours."""

    PLAIN = "plain"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    DIM = "dim"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Row:
    """One line. An empty label goes on with what the line before is about."""

    label: str
    text: str
    mood: Mood = Mood.PLAIN
