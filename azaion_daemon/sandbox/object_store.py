"""An object store with an S3 API that checks signatures and rights: OpenStack Swift in one process, without root.

It has one bucket and three users: the owner, an uploader that may write but not read (until `grant_read`), a downloader that may read but
not write. It dies with this process.
"""

import errno
import http.client
import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from azaion_daemon.sandbox import swift_config
from azaion_daemon.sandbox.processes import LOOPBACK, ReservedPort, SandboxError, end, spawn, wait_until

_ACCOUNT = "cdn"
_START_TIMEOUT_S = 30.0
_REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Credentials:
    """An access key of the S3 API."""

    key: str
    secret: str = field(repr=False)


class ObjectStore:
    """A private store on a free loopback port.

    Raises:
        SandboxError: It cannot be brought up; the message says what to do.
    """

    region = swift_config.REGION

    def __init__(self, directory: Path, *, bucket: str = "models") -> None:
        self.bucket = bucket
        self.owner = _credentials("owner")
        self.uploader = _credentials("uploader")
        self.downloader = _credentials("downloader")
        self._uploader_reads = False
        self._directory = directory.absolute()
        self._port = ReservedPort()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The URL of the S3 API; it stays the same over restarts. Buckets are addressed by path."""
        return f"http://{LOOPBACK}:{self._port.number}"

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.stop()
        self._port.release()

    def start(self) -> None:
        """Start it, on the data of the last time; ready when the bucket is there with its rights."""
        log = self._directory / "swift.log"
        self._server = spawn(
            [sys.executable, "-W", "ignore", "-m", "azaion_daemon.sandbox.swift_node", self._directory, str(self._port.number)],
            log=log,
            cwd=self._directory,
            environment=os.environ,
        )
        wait_until(self._healthy, timeout_s=_START_TIMEOUT_S, what="The object store (Swift)", process=self._server, log=log)
        self._set_rights()

    def stop(self) -> None:
        """End it: connections are refused until `start`. What was stored stays."""
        if self._server is not None:
            end(self._server)
            self._server = None

    def grant_read(self, allowed: bool) -> None:  # noqa: FBT001 - a switch
        """Let the uploader read too, which copying on the server needs."""
        self._uploader_reads = allowed
        self._set_rights()

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        probe = self._directory / "users.json"
        probe.touch(mode=0o600)
        users = {"owner": f"{self.owner.secret} .admin", "uploader": self.uploader.secret, "downloader": self.downloader.secret}
        probe.write_text(json.dumps({f"user_{_ACCOUNT}_{name}": line for name, line in users.items()}))
        try:
            os.setxattr(probe, "user.sandbox", b"1")
        except OSError as error:
            if error.errno not in {errno.ENOTSUP, errno.EPERM}:
                raise
            raise SandboxError(
                f"the filesystem of {self._directory} has no extended attributes, which Swift needs. Name a directory on another disk."
            ) from error

    def _healthy(self) -> bool:
        try:
            return self._call("GET", "/healthcheck", {})[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _set_rights(self) -> None:
        """Make the bucket and the one beside it that holds the parts of multipart uploads, and say who may do what.

        To put a part, Swift looks the upload up in that second one, so the uploader reads there.
        """
        user = {"X-Auth-User": self.owner.key, "X-Auth-Key": self.owner.secret}
        _, answer = self._demand("GET", "/auth/v1.0", user)
        path = answer["X-Storage-Url"].removeprefix(self.endpoint)
        uploader, downloader = self.uploader.key, self.downloader.key
        both = f"{uploader},{downloader}"
        for bucket, readers in ((self.bucket, both if self._uploader_reads else downloader), (f"{self.bucket}+segments", both)):
            rights = {"X-Container-Read": readers, "X-Container-Write": uploader}
            self._demand("PUT", f"{path}/{bucket}", {"X-Auth-Token": answer["X-Auth-Token"], **rights})

    def _demand(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, http.client.HTTPMessage]:
        status, answer = self._call(method, path, headers)
        if status >= http.client.BAD_REQUEST:
            raise SandboxError(f"Swift answered {method} {path} with {status}; see {self._directory}/swift.log")
        return status, answer

    def _call(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(LOOPBACK, self._port.number, timeout=_REQUEST_TIMEOUT_S)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            response.read()
            return response.status, response.headers
        finally:
            connection.close()


def _credentials(name: str) -> Credentials:
    return Credentials(f"{_ACCOUNT}:{name}", secrets.token_urlsafe(16))
