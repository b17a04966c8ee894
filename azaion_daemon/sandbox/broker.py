"""A RabbitMQ broker for streams, with users and permissions as in production.

with Broker(directory) as broker:
    broker.create_stream("azaion-annotations")
    ...  # broker.host, broker.port, broker.consumer, broker.producer
    broker.kill()  # SIGKILL
    broker.start()  # the same data, the same port
"""

import asyncio
import base64
import hashlib
import json
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rstream
from rstream import exceptions as rstream_errors

from azaion_daemon.sandbox.broker_node import Tls, node_for
from azaion_daemon.sandbox.certificates import Authority
from azaion_daemon.sandbox.connecting import connecting
from azaion_daemon.sandbox.processes import LOOPBACK, SandboxError

_ANSWER_TIMEOUT_S = 60.0
_REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Login:
    """A user of the broker."""

    user: str
    password: str = field(repr=False)


class Broker:
    """A private broker that listens on a free loopback port and dies with this process.

    `streams` is the regular expression that the names of its streams match: the consumer may read these and nothing else, the producer
    write them and nothing else. Only `admin` may create and delete. All of them live in `virtual_host`. With `tls` there is a second
    listener on `tls_port`, with a certificate that `authority` has issued.

    Raises:
        SandboxError: It cannot be brought up; the message says what to do.
    """

    host = LOOPBACK

    def __init__(self, directory: Path, *, streams: str = r"azaion-annotations.*", virtual_host: str = "/", tls: Tls | None = None) -> None:
        self.virtual_host = virtual_host
        self.authority = Authority(directory / "tls") if tls is not None else None
        if tls is not None and self.authority is not None:
            self.authority.issue("broker", addresses=tls.certified)
        self.consumer = Login("azaion_receiver", 'stream: #1 "annotations" $HOME')  # a careless renderer breaks it
        self.producer = Login("azaion_producer", secrets.token_urlsafe(12))
        self.admin = Login("sandbox_admin", secrets.token_urlsafe(12))
        only = f"^({streams})$"
        self._definitions = _definitions(
            virtual_host,
            (self.consumer, _Permissions(read=only)),
            (self.producer, _Permissions(write=only)),
            (self.admin, _Permissions(configure=".*", write=".*", read=".*")),
        )
        self._node = node_for(directory, self._definitions, tls)
        self._streams: set[str] = set()

    @property
    def port(self) -> int:
        """The port of the stream protocol; it stays the same over restarts."""
        return self._node.port

    @property
    def tls_port(self) -> int:
        """The port of the stream protocol with TLS."""
        assert self._node.tls_port is not None, "the broker was made without TLS"
        return self._node.tls_port

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._node.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._node.close()

    def start(self) -> None:
        """Start it, on the data of the last time; ready when every stream is (they come up to a second after the broker itself)."""
        self._node.start()
        self._administer(self._see_streams, "answer a login and show its streams", timeout_s=_ANSWER_TIMEOUT_S)

    def stop(self) -> None:
        """Stop it as a service manager does: SIGTERM."""
        self._node.stop(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once: SIGKILL."""
        self._node.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hold its connections without a word: SIGSTOP."""
        self._node.freeze(frozen=True)

    def thaw(self) -> None:
        """Let a frozen broker go on: SIGCONT."""
        self._node.freeze(frozen=False)

    def change_password(self, login: Login, password: str) -> None:
        """Give a user another password, until the next start. Connections that there are stay."""
        self._node.control("change_password", login.user, password)

    def create_stream(self, name: str, max_length_bytes: int | None = None) -> None:
        """Make a stream. Beyond `max_length_bytes` its oldest segments go (at least one segment, cut to the same size, stays)."""
        arguments = {}
        if max_length_bytes is not None:
            segment_bytes = max(max_length_bytes // 4, 1)
            arguments = {"max-length-bytes": str(max_length_bytes), "stream-max-segment-size-bytes": str(segment_bytes)}

        async def create(admin: rstream.Producer) -> None:
            await admin.create_stream(name, arguments=arguments, exists_ok=True)

        self._administer(create, f"create the stream {name}")
        self._streams.add(name)

    def delete_stream(self, name: str) -> None:
        """Remove a stream with all its messages. Nothing when there is none of that name."""

        async def delete(admin: rstream.Producer) -> None:
            await admin.delete_stream(name, missing_ok=True)

        self._administer(delete, f"delete the stream {name}")
        self._streams.discard(name)

    async def _see_streams(self, admin: rstream.Producer) -> None:
        client = await admin.default_client
        for stream in self._streams:
            await client.query_leader_and_replicas(stream)

    def _administer(self, do: Callable[[rstream.Producer], Awaitable[None]], what: str, timeout_s: float = _REQUEST_TIMEOUT_S) -> None:
        """Do something as the admin, trying again while the broker is not ready for it.

        Raises:
            SandboxError: It did not succeed within `timeout_s`.
        """

        async def attempt() -> None:
            login = self.admin
            client = rstream.Producer(self.host, self.port, username=login.user, password=login.password, vhost=self.virtual_host)
            async with asyncio.timeout(_REQUEST_TIMEOUT_S), connecting(client) as admin:
                await do(admin)

        deadline = time.monotonic() + timeout_s
        while True:
            try:
                in_its_own_loop(attempt())
            except (OSError, rstream_errors.ServerError, rstream_errors.ClientError) as error:
                if time.monotonic() > deadline:
                    raise SandboxError(f"RabbitMQ did not {what} within {timeout_s:g} s: {error!r}") from error
                time.sleep(0.1)
            else:
                return


def in_its_own_loop(task: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end from any thread, one with a running event loop too, which stands still for that time."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, task).result()


@dataclass(frozen=True)
class _Permissions:
    configure: str = "^$"
    write: str = "^$"
    read: str = "^$"


def _definitions(virtual_host: str, *users: tuple[Login, _Permissions]) -> str:
    """RabbitMQ's own JSON, imported at every boot: `rabbitmqctl` would take two seconds a call."""
    return json.dumps(
        {
            "vhosts": [{"name": name} for name in sorted({"/", virtual_host})],
            "users": [
                {
                    "name": login.user,
                    "password_hash": _password_hash(login.password),
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": "",
                }
                for login, _ in users
            ],
            "permissions": [
                {
                    "user": login.user,
                    "vhost": virtual_host,
                    "configure": allowed.configure,
                    "write": allowed.write,
                    "read": allowed.read,
                }
                for login, allowed in users
            ],
        }
    )


def _password_hash(password: str) -> str:
    """RabbitMQ's stored form: base64 of a 4-byte salt and the SHA-256 of salt and password."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
