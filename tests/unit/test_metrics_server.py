"""Who hands metrics out: bounded against clients of every kind, and never the end of the daemon."""

import asyncio
import contextlib
import http.client
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from structlog.testing import capture_logs

from azaion_daemon.metrics.server import MetricsServer
from tests.unit.test_metrics import full_status


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def serving(
    port: int, *, patience_s: float = 20.0, status: dict[str, Any] | None = None, host: str = "127.0.0.1"
) -> Iterator[MetricsServer]:
    server = MetricsServer(host, port, patience_s=patience_s, retry_s=0.05)
    if status is not None:
        server.take(status)
    server.start()
    try:
        yield server
    finally:
        server.close()


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read().decode()


def said(port: int, sent: bytes) -> bytes:
    """Everything that is answered until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(sent)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(65536):
                answer += more
        return answer


def test_before_the_first_status_it_says_that_nothing_is_known(port: int) -> None:
    with serving(port) as server:
        until(lambda: server.problem is None)
        assert get(port)[0] == 503


def test_each_status_is_what_is_read_from_then_on(port: int) -> None:
    with serving(port, status=full_status()) as server:
        until(lambda: server.problem is None)
        status, type_, text = get(port)
        assert (status, type_) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "\nazaion_stream_position 41.0\n" in text
        changed = full_status()
        changed["stream"]["position"] = 42
        server.take(changed)
        assert "\nazaion_stream_position 42.0\n" in get(port, "/metrics?name[]=x")[2]


def test_only_metrics_are_there_and_only_for_reading(port: int) -> None:
    with serving(port, status=full_status()) as server:
        until(lambda: server.problem is None)
        assert get(port, "/")[0] == 404
        assert get(port, method="POST")[0] == 405
        assert get(port, method="HEAD")[::2] == (200, "")


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\xff\n\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n", b"x" * 8193]
)
def test_garbage_is_answered_shortly_and_hung_up_on(port: int, garbage: bytes) -> None:
    with serving(port, status=full_status()) as server:
        until(lambda: server.problem is None)
        answer = said(port, garbage)
        assert answer.startswith(b"HTTP/1.1 400 ") or (len(garbage) > 8000 and not answer)  # hung up before all was read
        assert b"azaion" not in answer
        assert get(port)[0] == 200


def test_a_request_without_an_end_is_hung_up_on(port: int) -> None:
    with serving(port, status=full_status()) as server:
        until(lambda: server.problem is None)
        with contextlib.suppress(OSError):
            assert b"azaion" not in said(port, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 1_000_000)
        assert get(port)[0] == 200


def test_clients_that_say_nothing_are_hung_up_on_and_the_others_get_their_turn(port: int) -> None:
    with serving(port, patience_s=0.3, status=full_status()) as server:
        until(lambda: server.problem is None)
        silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(24)]
        try:
            silent[0].sendall(b"GET /metr")  # and no more
            assert get(port)[0] == 200
            assert [client.recv(1) for client in silent] == [b""] * 24
        finally:
            for client in silent:
                client.close()


class Counting(dict[str, Any]):
    """A status that knows how often it was looked at."""

    looks = 0

    def __getitem__(self, key: str) -> Any:
        self.looks += key == "version"
        return super().__getitem__(key)


def test_a_storm_of_scrapes_is_answered_from_one_rendering_and_leaves_the_loop_alone(port: int) -> None:
    status = Counting(full_status())

    async def storm() -> tuple[int, int]:
        with ThreadPoolExecutor(8) as clients:
            loop = asyncio.get_running_loop()
            asked = [loop.run_in_executor(clients, get, port) for _ in range(200)]
            turns = 0
            while not all(one.done() for one in asked):
                await asyncio.sleep(0.001)
                turns += 1
            return sum(one.result()[0] == 200 for one in asked), turns

    with serving(port, status=status) as server:
        until(lambda: server.problem is None)
        answered, turns = asyncio.run(storm())
    assert (answered, status.looks) == (200, 1)
    assert turns > 5, "the daemon's loop went on"


def test_an_address_that_is_taken_is_said_once_and_had_when_it_is_free(port: int) -> None:
    with capture_logs() as logs, socket.create_server(("127.0.0.1", port)) as taken, serving(port, status=full_status()) as server:
        until(lambda: "in use" in (server.problem or ""))
        time.sleep(0.2)  # several tries
        taken.close()
        until(lambda: server.problem is None)
        assert get(port)[0] == 200
    assert [line["event"] for line in logs] == ["metrics.failed", "metrics.listening"]


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_said(port: int, host: str) -> None:
    with capture_logs() as logs, serving(port, host=host) as server:
        until(lambda: server.problem not in {None, "it is not begun"})
    assert [line["event"] for line in logs] == ["metrics.failed"]


@pytest.mark.parametrize(("host", "public"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_an_address_that_others_reach_is_warned_of(port: int, host: str, public: bool) -> None:  # noqa: FBT001 - a parameter of the test
    with capture_logs() as logs, serving(port, host=host, status=full_status()) as server:
        until(lambda: server.problem is None)
        assert get(port)[0] == 200
    assert ("metrics.public" in [line["event"] for line in logs]) is public


def test_a_fault_of_ours_is_said_and_looks_like_none(port: int) -> None:
    with capture_logs() as logs, serving(port, status={"version": "0"}) as server:
        until(lambda: server.problem is None)
        assert get(port)[0] == 500
    assert "metrics.crashed" in [line["event"] for line in logs]


def test_one_that_was_just_begun_ends_at_once(port: int) -> None:
    server = MetricsServer("127.0.0.1", port)
    server.start()
    server.close()
    assert not server._thread.is_alive()
