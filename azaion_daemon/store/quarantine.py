"""Messages that could not be decoded or applied, kept whole: `{position}.amqp` beside `{position}.json` with the reason.

They are named by their position (the offset, as long as a root has consumed one stream only), so that quarantining a message again after a
crash changes nothing.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from azaion_daemon.store.durable import fsync_directory, replace_durably, write_json


@dataclass(frozen=True, slots=True)
class QuarantinedMessage:
    """What the JSON beside a quarantined message says. `time` is in seconds since the epoch."""

    stream: str
    offset: int
    time: float
    reason: str
    sha256: str
    bytes: int
    base: int = 0

    @property
    def position(self) -> int:
        """What it is named by."""
        return self.base + self.offset


class Quarantine:
    """The quarantine directory of one root."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, *, stream: str, offset: int, data: bytes, reason: str, now: float, base: int = 0) -> None:
        """Keep a message durably.

        Raises:
            OSError: It cannot be written. The message must not be skipped then.
        """
        entry = QuarantinedMessage(stream, offset, now, reason, hashlib.sha256(data).hexdigest(), len(data), base)
        replace_durably(self._directory / f"{entry.position}.amqp", data)
        write_json(self._directory / f"{entry.position}.json", asdict(entry))

    def get(self, position: int) -> tuple[QuarantinedMessage, bytes] | None:
        """A message and what is known of it; None when there is none of that position."""
        try:
            entry = QuarantinedMessage(**json.loads((self._directory / f"{position}.json").read_text()))
            return entry, (self._directory / f"{position}.amqp").read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, position: int) -> None:
        """Let a message go that was applied after all."""
        (self._directory / f"{position}.json").unlink()
        (self._directory / f"{position}.amqp").unlink()
        fsync_directory(self._directory)

    def remove_halves(self) -> None:
        """Remove what a crash has left: a payload without its JSON.

        Its message is not lost. Either the crash came before the transaction that passes it, and it is still in the stream; or it was
        applied and on its way out of here.
        """
        for path in self._directory.glob("*.amqp"):
            if not path.with_suffix(".json").exists():
                path.unlink()

    def count(self) -> int:
        """How many messages lie here."""
        return sum(1 for _ in self._directory.glob("*.json"))

    def entries(self) -> list[QuarantinedMessage]:
        """All of them, in the order of the stream."""
        found = []
        for path in self._directory.glob("*.json"):
            with suppress(FileNotFoundError):  # it was let go meanwhile
                found.append(QuarantinedMessage(**json.loads(path.read_text())))
        return sorted(found, key=lambda entry: entry.position)
