"""New settings for a consumer that runs: one reconnect when the connection depends on them, none otherwise, nothing lost or doubled."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenario import scenario
from azaion_daemon.sandbox.tcp_proxy import Proxy
from tests.harness import Site, expected_tree, ingested
from tests.integration.consuming import Consuming, digests, messages, stream_settings


@pytest.fixture
def rotated(broker: Broker) -> Iterator[str]:
    """A new password of the consumer's user, which the broker knows already; the old one is valid again afterwards."""
    password = "rotated #1 $HOME"
    broker.change_password(broker.consumer, password)
    yield password
    broker.change_password(broker.consumer, broker.consumer.password)


async def test_a_changed_setting_of_the_connection_means_one_reconnect(broker: Broker, stream: str, no_blocking_calls: BlockBuster) -> None:
    sent = messages(40)
    await Annotator(broker, stream).publish(sent[:20])
    with Proxy(broker.port) as other_way:
        async with Consuming(stream_settings(broker, stream)) as consuming:
            await consuming.until_taken(20)
            consuming.consumer.reconfigure(stream_settings(broker, stream, port=other_way.port))
            await Annotator(broker, stream).publish(sent[20:])
            await consuming.until_taken(40)
            assert consuming.consumer.health.reconnects == 1
            assert len(other_way.subscribed) == 1
    assert consuming.digests == digests(sent)


async def test_the_same_settings_again_and_those_for_later_change_nothing(broker: Broker, stream: str) -> None:
    with Proxy(broker.port) as proxy:
        settings = stream_settings(broker, stream, port=proxy.port)
        async with Consuming(settings) as consuming:
            await consuming.until_connected()
            consuming.consumer.reconfigure(stream_settings(broker, stream, port=proxy.port))
            consuming.consumer.reconfigure(settings.model_copy(update={"on_mismatch": "continue", "verify_timeout_s": 9.0}))
            await Annotator(broker, stream).publish(messages(2))
            await consuming.until_taken(2)
        assert proxy.connections == 2
        assert len(proxy.subscribed) == 1


async def test_new_settings_end_a_pause_between_attempts(broker: Broker, stream: str) -> None:
    await Annotator(broker, stream).publish(messages(2))
    with Proxy(broker.port) as proxy:
        proxy.refusing = True
        async with Consuming(stream_settings(broker, stream, port=proxy.port)) as consuming:
            await consuming.until(lambda: consuming.consumer.health.attempts >= 8, "long pauses")
            consuming.consumer.reconfigure(stream_settings(broker, stream))
            changed = time.monotonic()
            await consuming.until_connected()
            assert time.monotonic() - changed < 1
            await consuming.until_taken(2)


def test_a_rotated_password_takes_effect_with_sighup_by_one_reconnect(
    tmp_path: Path, broker: Broker, stream: str, request: pytest.FixtureRequest
) -> None:
    shift = scenario(30, seed=3)
    half = len(shift.messages) // 2
    with Proxy(broker.port) as proxy:
        site = Site(tmp_path, broker, stream)
        site.environment["RABBITMQ_PORT"] = str(proxy.port)
        site.prepare()
        with site.daemon() as daemon:
            site.publish(shift.messages[:half])
            daemon.wait_for_event("ingest.batch")
            site.configure({"RABBITMQ_PASSWORD": request.getfixturevalue("rotated"), "TRAINING_EPOCHS": "2"})
            daemon.process.send_signal(signal.SIGHUP)
            reloaded = daemon.wait_for_event("config.reloaded")
            assert (reloaded["applied"], reloaded["next_job"], reloaded["restart_required"]) == (
                ["stream.password"],
                ["training.epochs"],
                [],
            )
            site.publish(shift.messages[half:])
            daemon.wait_for_status(lambda status: bool(ingested(shift).items() <= status["annotations"].items()), "everything is ingested")
            status = daemon.wait_for_status(lambda status: status["stream"]["reconnects"] > 0, "the reconnect")
            assert status["stream"]["reconnects"] == 1
            assert "stream.disconnected" not in [event["event"] for event in daemon.events()]
        assert len(proxy.subscribed) == 2
    assert site.tree() == expected_tree(shift)


@pytest.mark.parametrize(
    ("correct", "wrong", "fault"),
    [("stream:", "stream: [", "is not valid YAML"), ("  port:", "  tls: true\n  ca_file: /nowhere\n  port:", "/nowhere cannot be read")],
)
def test_a_configuration_that_cannot_be_used_changes_nothing(
    tmp_path: Path, broker: Broker, stream: str, correct: str, wrong: str, fault: str
) -> None:
    site = Site(tmp_path, broker, stream)
    site.prepare()
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")
        good = site.operator.config.read_text()
        site.operator.config.write_text(good.replace(correct, wrong))
        daemon.process.send_signal(signal.SIGHUP)
        assert fault in daemon.wait_for_event("config.reload_failed")["error"]
        site.operator.config.write_text(good)
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.wait_for_event("config.reloaded")["applied"] == []
        status = daemon.wait_for_status(lambda status: status["stream"]["connected"], "the connection")
        assert status["stream"]["reconnects"] == 0
