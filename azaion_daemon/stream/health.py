"""What is known of the connection to the broker, for the status."""

from dataclasses import dataclass


@dataclass
class StreamHealth:
    """Times named `_at` are seconds since the epoch."""

    connected: bool = False
    reconnects: int = 0
    """How often a connection was made after one had been lost."""
    attempts: int = 0
    """How many attempts have been made since the last connection."""
    why: str | None = None
    """Why there is no connection."""
    refused: bool = False
    """Whether the broker refuses the user, the password or the right to read."""
    failures: int = 0
    """How many attempts have failed, or connections were lost, since the start."""
    last_message: float | None = None
    """Monotonic time of the newest message, in seconds."""
    offset: int | None = None
    """The newest offset that was taken."""
    written_at: float | None = None
    """When the broker wrote the chunk of the newest message."""
    taken_at: float | None = None
    newest_offset: int | None = None
    """The last offset of the stream when it was asked for it last."""
    newest_asked_at: float | None = None
    ever_connected: bool = False

    @property
    def lag_s(self) -> float | None:
        """How old the newest message was when it was taken. None before the first."""
        if self.written_at is None or self.taken_at is None:
            return None
        return max(0.0, self.taken_at - self.written_at)

    @property
    def caught_up(self) -> bool:
        """Whether the stream was asked since the newest message was taken, and had nothing after it."""
        if self.newest_offset is None or self.newest_asked_at is None or self.offset is None or self.taken_at is None:
            return False
        return self.newest_offset <= self.offset and self.taken_at <= self.newest_asked_at

    @property
    def backlog_messages(self) -> int | None:
        """How many offsets are still to be taken; None where unknown: the stream is asked only while messages are old when they come."""
        if not self.connected or self.newest_offset is None or self.offset is None:
            return None
        if self.caught_up:
            return 0
        return self.newest_offset - self.offset if self.newest_offset > self.offset else None

    @property
    def behind_s(self) -> float | None:
        """How far the consumer is behind the producers. None while nothing is known."""
        if not self.connected:
            return None
        return 0.0 if self.caught_up else self.lag_s
