"""The broker: reached, logged in to and asked for the ends of the stream as the consumer does, by a connection of its own.

It consumes nothing, and a daemon that reads the same stream does not notice it.
"""

import asyncio
import ssl

from azaion_daemon.errors import AzaionError
from azaion_daemon.ops.doctor.findings import AS_THE_DAEMON, Area, Finding, Outcome, Subject
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.ops.reading import reading
from azaion_daemon.store.records import Position
from azaion_daemon.stream.probe import stream_ends
from azaion_daemon.stream.resume import StreamEnds
from azaion_daemon.stream.tls import tls_context

_CONNECT_S = 10.0


async def _broker(patient: Patient) -> Finding:
    settings = patient.settings.stream
    where = f"{settings.host}:{settings.port}"
    context = await asyncio.to_thread(tls_context, settings)
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(settings.host, settings.port, ssl=context)
    except TimeoutError:
        return Finding(Outcome.BROKEN, f"{where} does not answer within {_CONNECT_S:g} s", "Check RABBITMQ_HOST, RABBITMQ_PORT, firewalls")
    except ssl.SSLError as error:
        remedy = "Check stream.ca_file, the port (the one for TLS?), and this machine's clock: timedatectl"
        return Finding(Outcome.BROKEN, f"no TLS connection to {where}: {error.reason or error}", remedy)
    except ConnectionError as error:
        if settings.tls and not isinstance(error, ConnectionRefusedError):
            remedy = "Is it the plain port? Then name the TLS port in RABBITMQ_PORT, or unset stream.tls"
            return Finding(Outcome.BROKEN, f"no TLS connection to {where}: it ended the connection", remedy)
        return _away(where, error)
    except OSError as error:
        return _away(where, error)
    writer.transport.abort()
    version = writer.get_extra_info("ssl_object")
    return Finding.ok(f"{where} accepts connections{f', with {version.version()}' if version else ''}")


def _away(where: str, error: OSError) -> Finding:
    remedy = "Check RABBITMQ_HOST and RABBITMQ_PORT, this machine's DNS, and whether the broker runs with its stream plugin"
    return Finding(Outcome.BROKEN, f"no connection to {where}: {error.strerror or str(error) or type(error).__name__}", remedy)


async def _stream(patient: Patient) -> Finding:
    try:
        ends = await stream_ends(patient.settings.stream)
    except AzaionError as error:
        return Finding(Outcome.BROKEN, str(error).rstrip("."), "What must be mended at the broker or in .env is named above")
    position: Position | None = None
    unknown = ""
    try:
        position = await asyncio.to_thread(_position, patient)
    except (AzaionError, OSError):
        unknown = "the ledger's position is not known here"
    return judge_position(ends, position, unknown=unknown)


def _position(patient: Patient) -> Position | None:
    if not patient.layout.ledger.exists():
        return None
    with reading(patient.layout) as ledger:
        return ledger.position(patient.settings.stream.name)


def judge_position(ends: StreamEnds | None, position: Position | None, *, unknown: str = "") -> Finding:
    """Whether consumption can go on where it ended, given the stream's ends; None: it is empty, or nothing was consumed."""
    held = "is empty" if ends is None else f"has offsets {ends.first:,} to {ends.last:,}"
    if unknown:
        return Finding(Outcome.UNCHECKED, f"the user may read the stream, which {held}, but {unknown}", AS_THE_DAEMON)
    if position is None:
        return Finding.ok(f"the user may read the stream, which {held}; nothing of it is consumed yet")
    at = f"the stream {held}, and the ledger is at offset {position.offset:,}"
    if ends is None or position.offset > ends.last:
        return Finding(
            Outcome.BROKEN,
            f"{at}, which it does not have: it was deleted and made anew, or is another one",
            "Check RABBITMQ_QUEUE_NAME; what stream.on_mismatch does is told in the guide",
        )
    if position.offset < ends.first:
        return Finding(
            Outcome.BROKEN,
            f"{at}: what lies between was removed by the stream's retention before it was consumed",
            "Give the stream a longer retention; to go on without it: stream.on_mismatch: continue",
        )
    return Finding.ok(f"{at}: {ends.last - position.offset:,} behind its end")


SUBJECTS = (
    Subject("broker", _broker, area=Area.BROKER),
    Subject("stream", _stream, needs=("broker",), area=Area.BROKER, limit_s=45.0),
)
