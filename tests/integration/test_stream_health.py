"""What the status tells of a connection, against a real broker: how far behind, how often tried, and not more than needed."""

import asyncio

import pytest
from structlog.testing import capture_logs

from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.processes import ReservedPort
from azaion_daemon.sandbox.tcp_proxy import Proxy
from azaion_daemon.stream import consumer
from azaion_daemon.stream.events import RawMessage
from tests.integration.consuming import Consuming, digests, messages, stream_settings


async def test_a_backlog_is_counted_while_messages_are_old_when_they_come(
    broker: Broker, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_LAGGING_S", 0.5)
    monkeypatch.setattr(consumer, "_BACKLOG_PERIOD_S", 0.5)
    sent = messages(30)
    await Annotator(broker, stream, entry_messages=10).publish(sent)
    await asyncio.sleep(1)  # they grow old
    go_on = asyncio.Event()

    async def slowly(message: RawMessage) -> None:
        if message.offset == 12:
            await go_on.wait()

    with Proxy(broker.port) as proxy:
        async with Consuming(stream_settings(broker, stream, port=proxy.port), deliver=slowly) as consuming:
            health = consuming.consumer.health
            await consuming.until(lambda: health.backlog_messages == 18, "the backlog")
            assert health.behind_s is not None
            assert health.behind_s > 0.9
            go_on.set()
            await consuming.until(lambda: (health.backlog_messages, health.behind_s) == (0, 0.0), "the end")
            asked = len(proxy.subscribed)
            await asyncio.sleep(2)  # several periods: nobody asks any more
            assert len(proxy.subscribed) == asked
        assert consuming.digests == digests(sent)


async def test_who_keeps_up_is_never_asked_about(broker: Broker, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "_BACKLOG_PERIOD_S", 0.1)
    with Proxy(broker.port) as proxy:
        async with Consuming(stream_settings(broker, stream, port=proxy.port)) as consuming:
            await consuming.until_connected()
            await Annotator(broker, stream).publish(messages(5))
            await consuming.until_taken(5)
            await asyncio.sleep(1.5)
            assert consuming.consumer.health.behind_s is not None
            assert consuming.consumer.health.behind_s < 5
        assert len(proxy.subscribed) == 1


async def test_a_broker_that_keeps_messages_back_is_found_out_when_none_has_come_for_long(
    broker: Broker, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_IDLE_S", 0.5)
    monkeypatch.setattr(consumer, "_IDLE_PERIOD_S", 0.5)
    sent = messages(7)
    go_on = asyncio.Event()

    async def hang(message: RawMessage) -> None:
        if message.offset == 4:
            await go_on.wait()

    async with Consuming(stream_settings(broker, stream), deliver=hang) as consuming:
        health = consuming.consumer.health
        await consuming.until_connected()
        await Annotator(broker, stream).publish(sent)  # so fresh that nothing lags behind
        await consuming.until(lambda: health.backlog_messages == 3, "what is kept back")
        go_on.set()
        await consuming.until(lambda: (health.backlog_messages, health.behind_s) == (0, 0.0), "the end")


async def test_failures_that_repeat_do_not_flood_the_log(broker: Broker, stream: str) -> None:
    nobody = ReservedPort()
    with capture_logs() as logs:
        async with Consuming(stream_settings(broker, stream, port=nobody.number)) as consuming:
            health = consuming.consumer.health
            await consuming.until(lambda: health.attempts >= 10, "ten attempts")
            assert health.reconnects == 0
            consuming.consumer.reconfigure(stream_settings(broker, stream))
            await consuming.until_connected()
            assert (health.attempts, health.reconnects) == (0, 0)
    assert [log["repeated"] for log in logs if log["event"] == "stream.disconnected"] == [1, 2, 4, 8]
    assert [log["attempt"] for log in logs if log["event"] == "stream.connecting"] == [1, 2, 3, 5, 9]
    assert sum(log["event"] == "stream.connected" for log in logs) == 1
