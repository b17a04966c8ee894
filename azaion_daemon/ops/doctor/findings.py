"""What is looked at, and what was found out about it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from azaion_daemon.errors import AzaionError

P = TypeVar("P")

AS_THE_DAEMON = "Run doctor as the user of the daemon"
LIMIT_S = 15.0


class Outcome(StrEnum):
    """What was found out."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"
    UNCHECKED = "not checked"


class Area(StrEnum):
    """What a subject belongs to; checks can be asked for by it."""

    CONFIGURATION = "configuration"
    ROOT = "root"
    BROKER = "broker"
    TRAINING = "training"
    PUBLISHING = "publishing"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a subject, and what to do about it, if there is something to do."""

    outcome: Outcome
    detail: str
    remedy: str = ""

    @classmethod
    def of(cls, error: AzaionError, remedy: str = "") -> "Finding":
        """Something broken: the last sentence of our errors says what to do."""
        said, _, advice = str(error).rstrip(".").rpartition(". ")
        return cls(Outcome.BROKEN, said or advice, remedy or (advice if said else ""))

    @classmethod
    def ok(cls, detail: str) -> "Finding":
        """Something as it should be."""
        return cls(Outcome.OK, detail)


@dataclass(frozen=True)
class Subject(Generic[P]):
    """Something to look at: only when what it `needs`, other subjects by name, is not broken or unchecked itself.

    It comes `after` others, whatever became of those.
    """

    name: str
    look: Callable[[P], Awaitable[Finding]]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    limit_s: float = LIMIT_S
    area: Area = Area.PUBLISHING
