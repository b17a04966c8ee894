"""Where consumption goes on, and what it means when the message that was consumed last is not there: decisions without effects.

An offset alone proves nothing, since the broker silently moves it to what it has. So the daemon resumes *at* its position: the first
message must be the one that is known, by its digest, and is then dropped.
"""

from dataclasses import dataclass, replace
from typing import Literal

from rstream import OffsetType

from azaion_daemon.sections import StreamSettings
from azaion_daemon.store.records import Position


@dataclass(frozen=True, slots=True)
class Resume:
    """What the ledger knows of its streams."""

    position: Position | None
    """How far this stream has been consumed."""
    last_position: int | None
    """The newest position of all streams."""

    def beyond_other_streams(self) -> "Resume":
        """With a base that lets positions go on growing, also when another stream was consumed after this one."""
        if self.position is None or self.last_position is None or self.last_position <= self.position.position:
            return self
        return replace(self, position=replace(self.position, base=self.last_position - self.position.offset))


@dataclass(frozen=True, slots=True)
class StreamEnds:
    """The first and the last offset of a stream that is not empty."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class At:
    """At a position whose message must come first, which proves that the stream is the same."""

    position: Position


@dataclass(frozen=True, slots=True)
class Unverified:
    """After a position that was imported: nobody here has seen the message there, so only the stream's ends can contradict it."""

    position: Position


@dataclass(frozen=True, slots=True)
class After:
    """After an offset that is taken for granted."""

    offset: int
    base: int


@dataclass(frozen=True, slots=True)
class Begin:
    """With a stream of which nothing was consumed."""

    offset_type: OffsetType
    offset: int | None = None


Start = At | Unverified | After | Begin


@dataclass(frozen=True, slots=True)
class Found:
    """What came instead of the message at a position. `offset` is None when nothing came."""

    offset: int | None
    described: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The message at the position is not there.

    `truncated`: retention has removed it, and the stream is the same. `anew`: the stream was deleted and made anew. Which of them it is,
    is a guess: a new stream that has itself lost its first messages looks like a truncated one.
    """

    kind: Literal["truncated", "anew"]
    described: str
    missing: int = 0
    """Of a truncated stream: how many offsets between the position and the first message are gone."""


def first_start(resume: Resume, settings: StreamSettings) -> Start:
    """Where to begin when the daemon starts. `end` and offsets are still to be compared with the stream's ends."""
    position = resume.position
    if position is not None:
        return At(position) if position.digest else Unverified(position)
    match settings.start_from:
        case "beginning":
            return Begin(OffsetType.FIRST)
        case "end":
            return Begin(OffsetType.NEXT)
        case int(offset):
            return Begin(OffsetType.OFFSET, offset)
        case moment:
            return Begin(OffsetType.TIMESTAMP, int(moment.timestamp() * 1000))


def start_after_mismatch(mismatch: Mismatch, position: Position) -> Start:
    """Where `stream.on_mismatch: continue` goes on."""
    if mismatch.kind == "truncated":
        return After(position.offset, position.base)
    return Begin(OffsetType.FIRST)


def subscribed_offset(start: Start) -> tuple[OffsetType, int | None]:
    """What the broker is asked for."""
    match start:
        case At(position):
            return OffsetType.OFFSET, position.offset
        case Unverified(position):
            return OffsetType.OFFSET, position.offset + 1
        case After(offset):
            return OffsetType.OFFSET, offset + 1
        case Begin(offset_type, offset):
            return offset_type, offset


def base_of(last_position: int | None, first_offset: int) -> int:
    """The base under which a stream's positions follow everything that was consumed before it."""
    return 0 if last_position is None else max(0, last_position + 1 - first_offset)


def judge(position: Position, found: Found, ends: StreamEnds | None) -> Mismatch | None:
    """What it means that `found` came instead of the message at `position`; None when it may still come: the stream is empty or stuck."""
    if found.offset is not None and found.offset <= position.offset:
        return Mismatch("anew", f"it has {found.described}")
    if ends is None:
        return None
    return contradiction(position, ends) or (None if found.offset is None else Mismatch("anew", f"it has {found.described}"))


def contradiction(position: Position, ends: StreamEnds) -> Mismatch | None:
    """Why a stream with these ends cannot go on after `position`; None when it can."""
    if ends.last < position.offset:
        return Mismatch("anew", f"it ends at offset {ends.last}")
    oldest_expected = position.offset if position.digest else position.offset + 1
    if ends.first > oldest_expected:
        missing = ends.first - position.offset - 1
        return Mismatch("truncated", f"it begins at offset {ends.first}, so {missing} offsets that were never consumed are gone", missing)
    return None
