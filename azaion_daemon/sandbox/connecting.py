"""rstream's clients, without what they leave behind: a connection that broke keeps its socket for as long as anything remembers it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import rstream
from rstream.client import Client

T = TypeVar("T", rstream.Producer, rstream.Consumer)


@asynccontextmanager
async def connecting(client: T) -> AsyncIterator[T]:
    """Use a producer or consumer as its own context does, and let go of its sockets however its connections ended."""
    known: set[Client] = set()
    get = client._pool.get  # noqa: SLF001

    async def remember(*arguments: Any, **options: Any) -> Client:
        known.add(connection := await get(*arguments, **options))
        return connection

    setattr(client._pool, "get", remember)  # noqa: SLF001, B010 - a connection that broke is dropped from the pool, socket and all
    try:
        async with client:
            yield client
    finally:
        for connection in known | _connections(client):
            writer = None if connection._conn is None else connection._conn._writer  # noqa: SLF001 - nothing public closes it
            if writer is not None:
                writer.transport.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn


def _connections(client: rstream.Producer | rstream.Consumer) -> set[Client]:
    return {connection for pool in client._pool._clients.values() for connection in pool}  # noqa: SLF001
