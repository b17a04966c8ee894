"""A second consumer that looks at a stream's ends."""

import asyncio
from contextlib import suppress

from rstream import OffsetType, schema
from rstream.client import Client

from azaion_daemon.errors import OutsideError
from azaion_daemon.sections import StreamSettings
from azaion_daemon.stream.resume import StreamEnds
from azaion_daemon.stream.session import SUBSCRIPTION, Session, listener_of, queue_chunks

_EMPTY_AFTER_S = 3.0


async def stream_ends(settings: StreamSettings) -> StreamEnds | None:
    """The first and the last offset of the stream, as its leader has them; None when it is empty.

    Raises:
        OutsideError: They cannot be asked for.
    """
    last = await _chunk_at(settings, OffsetType.LAST)
    first = None if last is None else await _chunk_at(settings, OffsetType.FIRST)
    return None if last is None or first is None else StreamEnds(first.first, last.last)


async def newest_offset(settings: StreamSettings) -> int | None:
    """The last offset of the stream; None when it is empty.

    Raises:
        OutsideError: It cannot be asked for.
    """
    last = await _chunk_at(settings, OffsetType.LAST)
    return None if last is None else last.last


async def _chunk_at(settings: StreamSettings, end: OffsetType) -> StreamEnds | None:
    """The offsets of the chunk at an end; None when none comes though the leader answers: there is none."""
    async with Session(settings) as session:
        client = await session.open(of_leader=True)
        chunks = queue_chunks(client)
        try:
            await client.subscribe(settings.name, SUBSCRIPTION, schema.OffsetSpec.from_params(end, None), initial_credit=1)
            chunk = await _first_chunk(client, chunks)
            if chunk is None:  # a broker that is frozen or gone is not an empty stream; its answer comes after a chunk
                await client.query_leader_and_replicas(settings.name)
                chunk = None if chunks.empty() else chunks.get_nowait()
        except OutsideError:
            raise
        except Exception as error:  # as in Session.open
            raise OutsideError(session.explain(error)) from error
    return None if chunk is None else StreamEnds(chunk.chunk_first_offset, chunk.chunk_first_offset + chunk.num_records - 1)


async def _first_chunk(client: Client, chunks: "asyncio.Queue[schema.Deliver]") -> schema.Deliver | None:
    arriving = asyncio.ensure_future(chunks.get())
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_EMPTY_AFTER_S):
                await asyncio.wait({arriving, listener_of(client)}, return_when=asyncio.FIRST_COMPLETED)
        if arriving.done():
            return arriving.result()
        if listener_of(client).done():
            raise OutsideError("the connection was closed while the stream's ends were looked at")
        return None
    finally:
        arriving.cancel()
