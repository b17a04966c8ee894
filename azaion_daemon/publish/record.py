"""What is known of a release: kept in a JSON file while it is under way, so that a restart goes on with the same bytes."""

import base64
import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from azaion_daemon.errors import ReleaseError
from azaion_daemon.store.durable import storage, storage_error, write_json

SmallVerified = Literal["downloaded", "listed"]


class RecordError(ReleaseError):
    """A record that is none. Its serial number was given all the same."""


@dataclass(frozen=True)
class Published:
    """A complete release. Digests are SHA-256 in hexadecimal, sizes in bytes.

    `small_verified` tells whether `.small` was fetched and compared, or only seen in a listing, where the server hands out no files.
    """

    serial: int
    model_sha256: str
    plaintext_sha256: str
    ciphertext_sha256: str
    big_size: int
    small_size: int
    small_verified: SmallVerified
    published_at: datetime
    ran: str | None = None
    """What became of running it: `identical`, or why that could not be found out."""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"published_at": self.published_at.isoformat()}


@dataclass(frozen=True)
class ReleaseRecord:
    """A release whose versioned `.big` is stored. Its bytes follow from the model, the key and `small`.

    `ciphertext_sha256` is None until the versioned parts were read back and found right.
    """

    serial: int
    model_sha256: str
    plaintext_sha256: str
    big_size: int
    small: bytes
    ciphertext_sha256: str | None = None
    published: Published | None = None
    model_size: int | None = None
    big_sha256: str | None = None
    """As `ciphertext_sha256`."""
    manifest: str | None = None
    """The envelope, from before it is first put to the end: what is signed does not change when it is done again."""

    model: str | None = None
    """The model's file, to encrypt it again should it have to be put back."""
    swapped: str | None = None
    """The ETag under which the store has the current `.big` since the swap, until the release is published."""
    condemned: str | None = None
    """Why what consumers see of it must go: what was before is to be put back."""
    removed: bool = False
    """Whether its versioned `.big` was removed from the store."""

    def with_manifest(self, envelope: str) -> "ReleaseRecord":
        """The same, with what was signed."""
        return replace(self, manifest=envelope)


_FIELDS = frozenset(field.name for field in fields(ReleaseRecord))


class ReleaseRecords:
    """The records in a directory, one file a serial number. Blocking.

    Raises:
        RecordError: A file holds something else than a record.
        StorageError: A file cannot be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def serials(self) -> list[int]:
        """The serial numbers that there is a record of, in order."""
        with storage("reading"):
            return sorted(int(path.stem) for path in self._directory.glob("*.json") if path.stem.isascii() and path.stem.isdigit())

    def all(self) -> list[ReleaseRecord]:
        """All records, by serial number."""
        return [record for serial in self.serials() if (record := self.load(serial)) is not None]

    def load(self, serial: int) -> ReleaseRecord | None:
        """The record of a release, or None."""
        try:
            return _record(json.loads(self._path(serial).read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "reading") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(
                f"{self._path(serial)} is no record of a release ({type(error).__name__}: {error}). "
                "Restore it from a backup, or move it away."
            ) from error

    def save(self, record: ReleaseRecord) -> None:
        """Keep a record, durably."""
        document = asdict(record) | {"small": base64.b64encode(record.small).decode("ascii")}
        if record.published is not None:
            document["published"] = record.published.document()
        with storage("writing"):
            write_json(self._path(record.serial), document)

    def forget(self, serial: int) -> None:
        """Remove a record: the next attempt begins anew."""
        with storage("removing"):
            self._path(serial).unlink(missing_ok=True)

    def _path(self, serial: int) -> Path:
        return self._directory / f"{serial}.json"


def _record(document: Any) -> ReleaseRecord:
    document["small"] = base64.b64decode(document["small"])
    if (published := document["published"]) is not None:
        document["published"] = Published(**{**published, "published_at": datetime.fromisoformat(published["published_at"])})
    return ReleaseRecord(**{name: value for name, value in document.items() if name in _FIELDS})  # a later version may know more
