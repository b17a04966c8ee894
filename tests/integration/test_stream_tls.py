"""TLS, client certificates and virtual hosts, on a real broker; and what is said when one side does not speak what the other expects."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from azaion_daemon.errors import ConfigError
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.broker_node import Tls
from azaion_daemon.sandbox.certificates import Authority
from azaion_daemon.sandbox.processes import LOOPBACK
from azaion_daemon.sections import StreamSettings
from azaion_daemon.stream.tls import tls_context
from tests.integration.consuming import Consuming, digests, messages, stream_settings

STREAM = "azaion-annotations"
VIRTUAL_HOST = "annotations"

# A connection that dies while it is made leaves a transport to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Demands a client certificate; its streams are in a virtual host of their own."""
    with Broker(tmp_path_factory.mktemp("strict"), virtual_host=VIRTUAL_HOST, tls=Tls(demands_certificate=True)) as running:
        running.create_stream(STREAM)
        asyncio.run(Annotator(running, STREAM).publish(messages(3)))
        yield running


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Advertises a name that its certificate is not for."""
    with Broker(tmp_path_factory.mktemp("renamed"), tls=Tls(advertised_host="localhost")) as running:
        running.create_stream(STREAM)
        yield running


def tls_settings(broker: Broker, **changes: Any) -> StreamSettings:
    assert broker.authority is not None
    values = {"port": broker.tls_port, "virtual_host": broker.virtual_host, "tls": True, "ca_file": broker.authority.ca_file}
    return stream_settings(broker, STREAM, **{**values, **changes})


def client_files(authority: Authority | None) -> dict[str, Path]:
    assert authority is not None
    certificate, key = authority.issue("daemon", client=True)
    return {"client_cert_file": certificate, "client_key_file": key}


async def test_it_consumes_over_tls_with_a_client_certificate_from_a_virtual_host(strict: Broker, no_blocking_calls: BlockBuster) -> None:
    async with Consuming(tls_settings(strict, **client_files(strict.authority))) as consuming:
        await consuming.until_taken(3)
    assert consuming.digests == digests(messages(3))


async def why(settings: StreamSettings) -> str:
    """Why there is no connection."""
    async with Consuming(settings) as consuming:
        await consuming.until(lambda: consuming.consumer.health.why is not None, "a reason")
        return str(consuming.consumer.health.why)


async def test_a_missing_client_certificate_is_said(strict: Broker) -> None:
    assert "refuses the client certificate, or demands one" in await why(tls_settings(strict))


async def test_a_client_certificate_of_another_authority_is_said(strict: Broker, tmp_path: Path) -> None:
    foreign = client_files(Authority(tmp_path, "Somebody else's CA"))
    assert "refuses the client certificate, or demands one" in await why(tls_settings(strict, **foreign))


async def test_a_broker_of_another_authority_is_not_trusted(strict: Broker, tmp_path: Path) -> None:
    other = Authority(tmp_path, "Somebody else's CA")
    said = await why(tls_settings(strict, ca_file=other.ca_file))
    assert "is not trusted" in said
    assert "stream.ca_file" in said


async def test_without_a_ca_file_the_systems_authorities_count(strict: Broker) -> None:
    assert "is not trusted" in await why(tls_settings(strict, ca_file=None))


async def test_a_certificate_that_does_not_name_the_advertised_address_is_explained(renamed: Broker) -> None:
    said = await why(tls_settings(renamed))
    assert f"localhost:{renamed.tls_port} (advertised by {LOOPBACK}:{renamed.tls_port}) is for another name" in said
    assert "every address that the broker advertises" in said


async def test_a_plain_client_on_the_tls_port_is_told_so_at_once(strict: Broker) -> None:
    settings = stream_settings(strict, STREAM, port=strict.tls_port)
    async with asyncio.timeout(5):
        assert "it is a TLS port (stream.tls)" in await why(settings)


async def test_a_tls_client_on_the_plain_port_is_told_so(strict: Broker) -> None:
    assert "Is it the plain port?" in await why(tls_settings(strict, port=strict.port))


async def test_another_virtual_host_is_refused_with_its_name(strict: Broker) -> None:
    said = await why(tls_settings(strict, virtual_host="/", **client_files(strict.authority)))
    assert "let the user azaion_receiver" in said  # the broker may close the connection before its answer is read
    assert "into the virtual host /" in said


async def test_a_virtual_host_that_does_not_exist_is_refused_with_its_name(strict: Broker) -> None:
    said = await why(tls_settings(strict, virtual_host="nowhere", **client_files(strict.authority)))
    assert "into the virtual host nowhere" in said


@pytest.mark.parametrize(
    ("silent", "said"), [(False, "closed the connection during the login: it is a TLS port"), (True, "does not answer")]
)
async def test_what_is_no_broker_is_told_apart(broker: Broker, *, silent: bool, said: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if silent:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, LOOPBACK, 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert said in await why(stream_settings(broker, STREAM, port=port))


@pytest.mark.parametrize(
    ("ruin", "fault"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (lambda path: path.write_text("nonsense"), "does not hold"),
    ],
    ids=["missing", "nonsense"],
)
@pytest.mark.parametrize("setting", ["ca_file", "client_cert_file", "client_key_file"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, setting: str, ruin: Any, fault: str) -> None:
    authority = Authority(tmp_path)
    files = {"ca_file": authority.ca_file, **client_files(authority)}
    values = {"host": "h", "port": 1, "user": "u", "password": "p", "name": "s", "tls": True, **files}
    settings = StreamSettings.model_validate(values)
    assert tls_context(settings) is not None
    ruin(files[setting])
    with pytest.raises(ConfigError, match=rf"stream\.client_\w+: .*{fault}|stream\.{setting}: .*{fault}"):
        tls_context(settings)
