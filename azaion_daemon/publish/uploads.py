"""Multipart uploads that a killed process has left in the store: their parts take space, and no listing of objects shows them.

What this root has begun it knows from a journal, so those are aborted whatever their age, and without a right to list. A process killed
between the store's answer and its note in the journal leaves one that only a listing shows. Another site may be uploading to the same
bucket at this moment, so of those that are merely listed only what is older than a day is taken for dead.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePath

from azaion_daemon.store.durable import storage, storage_error, write_json

DEAD_AFTER_S = 86_400.0


@dataclass(frozen=True)
class Upload:
    """A multipart upload under way."""

    bucket: str
    key: str
    upload_id: str

    def named(self) -> dict[str, str]:
        """As the parameters of a call."""
        return {"Bucket": self.bucket, "Key": self.key, "UploadId": self.upload_id}


class UploadJournal:
    """The uploads that are under way, in a file that is not there when there are none. Blocking.

    Raises:
        StorageError: The file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Upload]:
        """All of them, those of an earlier process too."""
        try:
            return [Upload(**entry) for entry in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, "reading") from error
        except (ValueError, TypeError):  # nothing that we wrote
            return []

    def add(self, upload: Upload) -> None:
        """Note one, durably, before anything is sent."""
        self._save([*self.load(), upload])

    def remove(self, upload: Upload) -> None:
        """Strike one out: it is complete or aborted."""
        before = self.load()
        if upload in before:
            self._save([other for other in before if other != upload])

    def _save(self, uploads: list[Upload]) -> None:
        with storage("writing"):
            if uploads:
                write_json(self._path, [asdict(upload) for upload in uploads])
            else:
                self._path.unlink(missing_ok=True)


def dead(listed: list[tuple[Upload, float]], name: str) -> list[Upload]:
    """Of uploads and their ages in seconds those of `name`, current or versioned, that nobody works on any more."""
    path = PurePath(name)
    ours = re.compile(rf"(?:{re.escape(name)}|{re.escape(path.stem)}-[0-9]+{re.escape(path.suffix)})\.big")
    return [upload for upload, age_s in listed if age_s > DEAD_AFTER_S and ours.fullmatch(upload.key)]


def told_time(date: str | None) -> datetime:
    """What time it is by a `Date` header; by our own clock without one."""
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        return datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
