"""The connections of one attempt to read the stream, and how they are let go.

Of rstream 1.1.1 only the protocol is used (its `Client`), since its `Consumer` is not enough for a daemon: an exception while a chunk is
handled makes it skip the rest for good, its recovery is off by default, gives up silently when on, subscribes at the beginning when it
lost an offset and forgets the credit, and a subscription that failed once is believed to stand. What `Client` itself gets wrong is
answered here and in `subscription`:

- It never notices a frozen broker, and its own way to close waits for the answer of a peer that may be dead. So every client is known here
  from its birth, and letting go aborts the sockets before anything is awaited.
- A connection that is closed during the login shows as a request without an answer, 10 s later. So the login races with the listener.
- Big messages are three to five times slower with the 256 bytes that it reads at a time.
- At `debug` it logs whole frames, images included.
"""

import asyncio
import logging
import random
import ssl
from types import TracebackType
from typing import Self

import rstream.connection
from rstream import schema
from rstream.client import Addr, Client
from rstream.exceptions import AccessRefused, AuthenticationFailure, StreamDoesNotExist, StreamNotAvailable, VirtualHostAccessFailure

from azaion_daemon.errors import OutsideError
from azaion_daemon.sections import StreamSettings
from azaion_daemon.stream.gunzip import unpack_with_isal
from azaion_daemon.stream.tls import tls_context

rstream.connection.CHUNK_SIZE = 1 << 20
unpack_with_isal()

logging.getLogger("rstream").setLevel(logging.WARNING)

SUBSCRIPTION = 0
"""Of the one subscription that a connection has: two on one connection get each other's frames."""

_REQUEST_TIMEOUT_S = 30.0
_LET_GO_TIMEOUT_S = 2.0
_LAST_ANSWER_S = 0.1
_FRAME_MAX = 1 << 20
_WRONG_NAME = {62, 63, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, EMAIL, IP_ADDRESS


def is_refusal(error: OutsideError) -> bool:
    """Whether a connection failed since the broker refuses the user, the password or the right to read."""
    return isinstance(error.__cause__, AuthenticationFailure | AccessRefused | VirtualHostAccessFailure)


class Session:
    """The connections that belong together. Leaving the context lets all of them go, within seconds, whatever the peer does."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._clients: list[Client] = []
        self._address = Addr(settings.host, settings.port)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        await self._let_go()

    async def open(self, *, of_leader: bool = False) -> Client:
        """A connection to a node that has the stream; to its leader when nothing but the newest state will do.

        Raises:
            OutsideError: There is none; the message says why in a sentence for the operator.
            ConfigError: A file for TLS cannot be used.
        """
        context = await asyncio.to_thread(tls_context, self._settings)
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                locator = await self._connect(Addr(self._settings.host, self._settings.port), context)
                leader, replicas = await locator.query_leader_and_replicas(self._settings.name)
                node = leader if of_leader or not replicas else random.choice(replicas)  # noqa: S311 - spreads load
                return await self._connect(Addr(node.host, node.port), context)
        except OutsideError:
            raise
        except Exception as error:  # the library raises anything, from KeyError to its own families
            raise OutsideError(self.explain(error)) from error

    async def _connect(self, address: Addr, context: ssl.SSLContext | None) -> Client:
        self._address = address
        client = Client(
            address.host,
            address.port,
            ssl_context=context,
            frame_max=_FRAME_MAX,
            heartbeat=self._settings.heartbeat_s,
            connection_name="azaion-daemon",
            connection_closed_handler=lambda _: None,  # without one it logs a traceback
        )
        self._clients.append(client)
        await client.start()
        listener = listener_of(client)
        login = asyncio.create_task(
            client.authenticate(self._settings.virtual_host, self._settings.user, self._settings.password.get_secret_value())
        )
        try:
            await asyncio.wait({login, listener}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({login}, timeout=_LAST_ANSWER_S)  # an answer that came just before the end is the reason for it
            if not login.done():
                raise OutsideError(self._closed_during_login(client))
            await login
        finally:
            login.cancel()
        return client

    def _closed_during_login(self, client: Client) -> str:
        if (failure := read_failure(client)) is not None:
            return self.explain(failure)
        settings = self._settings
        port = "a plain port, one that demands a client certificate," if settings.tls else "a TLS port (stream.tls),"
        return (
            f"{self._where()} closed the connection during the login: it is {port} or no stream listener (the AMQP port?), or it does not "
            f"let the user {settings.user} with this password into the virtual host {settings.virtual_host}"
        )

    def explain(self, error: Exception) -> str:  # noqa: PLR0911 - one return a cause reads best
        """What a failure means for the operator."""
        where, settings = self._where(), self._settings
        match error:
            case AuthenticationFailure():
                return f"{where} refuses the user {settings.user} or its password (RABBITMQ_USER, RABBITMQ_PASSWORD)"
            case StreamDoesNotExist():
                return f"the stream {settings.name} does not exist at {where}; it is waited for (RABBITMQ_QUEUE_NAME)"
            case StreamNotAvailable():
                return f"the stream {settings.name} is not available at {where} for now"
            case AccessRefused():
                return f"{where} does not let the user {settings.user} read the stream {settings.name}"
            case VirtualHostAccessFailure():
                return f"{where} does not let the user {settings.user} into the virtual host {settings.virtual_host}"
            case ssl.SSLError():
                return _explain_tls(where, error)
            case TimeoutError():
                return f"{where} does not answer: no stream listener there, wrong credentials, or the broker is overloaded or frozen" + (
                    "" if settings.tls else "; a TLS port needs stream.tls"
                )
            case ConnectionError() if settings.tls:
                return f"no TLS connection to {where}: {_text(error)}. Is it the plain port? Then use the TLS port, or unset stream.tls"
            case _:
                return f"no connection to {where}: {_text(error)}"

    def _where(self) -> str:
        """The address that is spoken with, and how it came about when it is not the one of the settings."""
        configured = Addr(self._settings.host, self._settings.port)
        name = f"{self._address.host}:{self._address.port}"
        return name if self._address == configured else f"{name} (advertised by {configured.host}:{configured.port})"

    async def _let_go(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        for client in self._clients:
            client._is_not_closed = False  # noqa: SLF001 - nothing is written any more
            writer = None if client._conn is None else client._conn._writer  # noqa: SLF001
            if writer is not None:
                writer.transport.abort()
            tasks += client._tasks.values()  # noqa: SLF001
        self._clients.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LET_GO_TIMEOUT_S)


def _explain_tls(where: str, error: ssl.SSLError) -> str:
    match error:
        case ssl.SSLCertVerificationError(verify_code=code) if code in _WRONG_NAME:
            return (
                f"the certificate of {where} is for another name: {error.verify_message} It must name stream.host and every address that "
                "the broker advertises (advertised_host and advertised_tls_host in its rabbitmq.conf): connections go on to that one"
            )
        case ssl.SSLCertVerificationError():
            return f"the certificate of {where} is not trusted: {error.verify_message}. Is stream.ca_file the CA that has signed it?"
        case ssl.SSLError() if any(word in (error.reason or "") for word in ("CERTIFICATE", "UNKNOWN_CA")):
            return (
                f"{where} refuses the client certificate, or demands one ({error.reason}): stream.client_cert_file, stream.client_key_file"
            )
        case _:
            return f"{where} does not speak TLS ({error.reason}): is it the plain port? Then use the TLS port, or unset stream.tls"


def queue_chunks(client: Client) -> "asyncio.Queue[schema.Deliver]":
    """Let the chunks of the subscription wait in a queue. To be called before subscribing."""
    client.add_handler(schema.Deliver, _never_called, name=str(SUBSCRIPTION))  # the library queues what has a handler
    return client._frames[SUBSCRIPTION]  # noqa: SLF001


def _never_called(_: schema.Deliver) -> None: ...


def listener_of(client: Client) -> "asyncio.Task[None]":
    """The task that reads a connection. When it has ended nothing comes any more, though the client still says that it is alive."""
    return client._tasks["listener"]  # noqa: SLF001


def received(client: Client) -> bytearray:
    """What has come of a frame that is not complete yet."""
    assert client._conn is not None  # noqa: SLF001
    return client._conn._buffer  # noqa: SLF001


def read_failure(client: Client) -> Exception | None:
    """Why a connection cannot be read any more, which the library keeps for itself."""
    reader = None if client._conn is None else client._conn._reader  # noqa: SLF001
    return None if reader is None else reader.exception()


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
