"""A login that was refused stays refused over restarts, until the credentials change or an operator asks to try again.

A daemon that starts again and again must not lock the account. What is kept of the credentials is a salted scrypt digest: enough to
tell whether they are still the same, and of no use to anybody who finds the file.
"""

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path

from azaion_daemon.sections import ApiSettings
from azaion_daemon.store.durable import replace_durably, storage, storage_error

_SALT_BYTES = 16
_COST = {"n": 1 << 14, "r": 8, "p": 1}  # 16 MB and some 50 ms


class RefusedLogin:
    """The last refusal, in a file of mode 0600. Blocking.

    Raises:
        StorageError: The file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, settings: ApiSettings) -> str | None:
        """Why these credentials were refused; None when they were not, as far as is known."""
        try:
            document = json.loads(self._path.read_bytes())
            salt, digest, why = base64.b64decode(document["salt"]), base64.b64decode(document["digest"]), str(document["why"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "reading") from error
        except (ValueError, KeyError, TypeError):  # nothing that we wrote; the next refusal replaces it
            return None
        return why if hmac.compare_digest(digest, _digest(settings, salt)) else None

    def keep(self, settings: ApiSettings, why: str) -> None:
        """Remember that these credentials were refused, and why."""
        salt = os.urandom(_SALT_BYTES)
        values = {"salt": salt, "digest": _digest(settings, salt)}
        document = {"why": why, **{name: base64.b64encode(value).decode("ascii") for name, value in values.items()}}
        with storage("writing"):
            replace_durably(self._path, json.dumps(document).encode() + b"\n", mode=0o600)

    def forget(self) -> None:
        """Let them be tried again."""
        with storage("removing"):
            self._path.unlink(missing_ok=True)


def _digest(settings: ApiSettings, salt: bytes) -> bytes:
    credentials = json.dumps([str(settings.url), settings.email, settings.password.get_secret_value()])
    return hashlib.scrypt(credentials.encode(), salt=salt, dklen=32, **_COST)
