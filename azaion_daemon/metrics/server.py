"""Who hands the metrics out: a thread with an event loop of its own, so that no scrape touches the daemon's, nor the ledger.

There is one rendering a snapshot, however many ask. So many clients are answered at a time, each within seconds: one that says nothing, or
reads nothing, is hung up on, and the others wait in the kernel's queue. There is no login, so the address should be a local one.

An address that cannot be had is no reason to end the daemon: it is said, and tried again.
"""

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import h11
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from azaion_daemon.logs import get_logger
from azaion_daemon.metrics.exposing import Snapshot, StatusCollector

log = get_logger(__name__)

_CLIENTS = 16
_QUEUED = 16
_PATIENCE_S = 5.0
_RETRY_S = 5.0
_NO_DESCRIPTORS_S = 1.0
_REQUEST_BYTES = 8192
_END_S = 2.0
_TEXT = "text/plain; charset=utf-8"


class _Reply(NamedTuple):
    status: int
    content: bytes
    type: str = _TEXT
    allow: str = ""


class MetricsServer:
    """Answers `GET /metrics` at one address from `start` to `close`."""

    def __init__(self, host: str, port: int, *, patience_s: float = _PATIENCE_S, retry_s: float = _RETRY_S) -> None:
        self._host = host
        self._port = port
        self._patience_s = patience_s
        self._retry_s = retry_s
        self._snapshot: Snapshot | None = None
        self._rendered: tuple[Snapshot, bytes] | None = None
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(lambda: self._snapshot))
        ProcessCollector(registry=self._registry)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self.problem: str | None = "it is not begun"
        """Why nothing can be read; None while all is well."""

    def take(self, document: Mapping[str, Any]) -> None:
        """Hand this status out from now on; nobody may change it any more."""
        self._snapshot = Snapshot(document, time.time())

    def start(self) -> None:
        """Begin, in the background."""
        self._thread.start()

    def close(self) -> None:
        """End; waits for it, but not for long."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_END_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        stopped = asyncio.ensure_future(self._stop.wait())
        while not stopped.done():
            serving = asyncio.ensure_future(self._listen())
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done() and (error := serving.exception()) is not None:
                self._say(error)
                await asyncio.wait({stopped}, timeout=self._retry_s)
            serving.cancel()
            await asyncio.wait({serving})

    def _say(self, error: BaseException) -> None:
        why = str(error) or type(error).__name__
        if why != self.problem:
            log.warning("metrics.failed", listen=f"{self._host}:{self._port}", why=why, retry_in_s=self._retry_s)
        self.problem = why

    async def _listen(self) -> None:
        """Answer at the address until cancelled.

        Raises:
            OSError: It cannot be had.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
        with socket.create_server(address, family=family, backlog=_QUEUED) as listening:
            listening.setblocking(False)
            log.info("metrics.listening", listen=f"{self._host}:{self._port}")
            if not ipaddress.ip_address(address[0]).is_loopback:
                log.warning("metrics.public", listen=f"{self._host}:{self._port}")
            self.problem = None
            room = asyncio.Semaphore(_CLIENTS)
            async with asyncio.TaskGroup() as clients:
                while True:
                    await room.acquire()
                    try:
                        client, _ = await loop.sock_accept(listening)
                    except OSError:  # no descriptor is left, or the client is gone already
                        room.release()
                        await asyncio.sleep(_NO_DESCRIPTORS_S)
                        continue
                    clients.create_task(self._attend(client)).add_done_callback(lambda _: room.release())

    async def _attend(self, client: socket.socket) -> None:
        with client, suppress(OSError, TimeoutError):
            client.setblocking(False)
            async with asyncio.timeout(self._patience_s):
                await self._converse(client)

    async def _converse(self, client: socket.socket) -> None:
        """Read one request and answer it."""
        loop = asyncio.get_running_loop()
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_REQUEST_BYTES)
        event: object = None
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await loop.sock_recv(client, _REQUEST_BYTES))
        except h11.RemoteProtocolError:
            reply = _Reply(400, b"This is no HTTP request.\n")
        else:
            if not isinstance(event, h11.Request):
                return  # it hung up
            reply = self._reply(event)
        headers = [("Content-Type", reply.type), ("Content-Length", str(len(reply.content))), ("Connection", "close")]
        if reply.allow:
            headers.append(("Allow", reply.allow))
        parts: list[h11.Event] = [h11.Response(status_code=reply.status, headers=headers)]
        if not (isinstance(event, h11.Request) and event.method == b"HEAD"):
            parts.append(h11.Data(data=reply.content))
        await loop.sock_sendall(client, b"".join(http.send(part) or b"" for part in (*parts, h11.EndOfMessage())))

    def _reply(self, request: h11.Request) -> _Reply:
        if request.target.partition(b"?")[0] != b"/metrics":
            return _Reply(404, b"See /metrics.\n")
        if request.method not in {b"GET", b"HEAD"}:
            return _Reply(405, b"Only GET and HEAD.\n", allow="GET, HEAD")
        snapshot = self._snapshot
        if snapshot is None:
            return _Reply(503, b"The daemon starts; nothing is known yet.\n")
        if self._rendered is None or self._rendered[0] is not snapshot:
            try:
                self._rendered = snapshot, generate_latest(self._registry)
            except Exception:  # a fault of ours must not look like a healthy daemon, nor end the others' scrapes
                log.exception("metrics.crashed")
                return _Reply(500, b"A fault of the daemon, see its log.\n")
        return _Reply(200, self._rendered[1], CONTENT_TYPE_PLAIN_0_0_4)
