"""What the platform's API knows: users, tokens, resources, and the errors that it answers with."""

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

_LOCK_AFTER_FAILURES = 5


class ErrorCode(IntEnum):
    """Business errors: HTTP 409 with `ErrorCode` and `Message`."""

    NO_EMAIL_FOUND = 10
    WRONG_PASSWORD = 30
    USER_DISABLED = 38
    HARDWARE_MISMATCH = 40
    BAD_HARDWARE = 45
    WRONG_RESOURCE_NAME = 50
    NO_FILE = 60


class BusinessError(Exception):
    """Becomes a 409."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class LockedError(Exception):
    """Becomes a 423: too many wrong passwords (newer servers only)."""


class UnauthorizedError(Exception):
    """Becomes a 401."""


@dataclass
class User:
    """Somebody who may log in. `hardware` is registered when it is first seen, and no other is accepted then."""

    email: str
    password: str = field(repr=False)
    hardware: str | None = None
    disabled: bool = False
    failures: int = 0

    def check_password(self, password: str) -> None:
        """Raise BusinessError when it is another one."""
        if self.disabled:
            raise BusinessError(ErrorCode.USER_DISABLED, "User is disabled")
        if password != self.password:
            self.failures += 1
            raise BusinessError(ErrorCode.WRONG_PASSWORD, "Passwords do not match")
        self.failures = 0

    def check_not_locked(self) -> None:
        """Raise LockedError after too many wrong passwords."""
        if self.failures >= _LOCK_AFTER_FAILURES:
            raise LockedError

    def check_hardware(self, hardware: str) -> None:
        """Register it, or raise BusinessError when another one is registered."""
        if not hardware:
            raise BusinessError(ErrorCode.BAD_HARDWARE, "Hardware should be not empty")
        if self.hardware is None:
            self.hardware = hardware
        elif self.hardware != hardware:
            raise BusinessError(ErrorCode.HARDWARE_MISMATCH, "Hardware mismatch! You are not authorized to access this resource")


class Tokens:
    """Bearer tokens: they look like a JWT, and hold for `lifetime_s` from their issue."""

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s = lifetime_s
        self._issued: dict[str, tuple[User, float]] = {}

    def issue(self, user: User) -> str:
        """A new token."""
        head = _part({"alg": "HS256", "typ": "JWT"})
        body = _part({"email": user.email, "exp": int(time.time() + self.lifetime_s)})
        token = f"{head}.{body}.{secrets.token_urlsafe(32)}"
        self._issued[token] = (user, time.monotonic() + self.lifetime_s)
        return token

    def owner(self, authorization: str) -> User:
        """Who sent this Authorization header. Raises UnauthorizedError when it is no token of ours, or an old one."""
        user, expires_at = self._issued.get(authorization.removeprefix("Bearer "), (None, 0.0))
        if user is None or not authorization.startswith("Bearer ") or time.monotonic() >= expires_at:
            raise UnauthorizedError
        return user

    def revoke_all(self) -> None:
        """Every token of the past is refused from now on."""
        self._issued.clear()


def _part(content: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


class Resources:
    """Files in folders one level deep; the root folder is the empty name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, folder: str, name: str) -> Path:
        """Where a resource lies, whether it exists or not. Raises BusinessError for a name that leaves its folder."""
        for part in (folder.strip("/") or "root", name):
            if not part or "/" in part or part in {".", ".."} or "\0" in part:
                raise BusinessError(ErrorCode.WRONG_RESOURCE_NAME, f"Wrong resource name: {part!r}")
        return self._root / folder.strip("/") / name

    def read(self, folder: str, name: str) -> bytes:
        """Raises BusinessError when there is none."""
        try:
            return self.path(folder, name).read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise BusinessError(ErrorCode.NO_FILE, f"No file {name} in {folder or 'the root folder'}") from error

    def write(self, folder: str, name: str, content: bytes) -> None:
        """As the platform does: first the old one goes, then the new one comes. Not atomic."""
        path = self.path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        directory = self.path(folder, "any").parent
        return sorted(entry.name for entry in directory.iterdir() if entry.is_file()) if directory.is_dir() else []
