"""The real daemon as Prometheus sees it."""

import signal
import socket
import time
from pathlib import Path

import pytest

from azaion_daemon.metrics.catalogue import CATALOGUE
from azaion_daemon.sandbox.annotations import Message
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenario import Fate, scenario
from tests.harness import Site, ingested
from tests.integration.scraping import address, scraped_until, serve_metrics


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    made = Site(tmp_path, broker, stream)
    serve_metrics(made)
    made.prepare()
    return made


def test_what_is_scraped_while_messages_flow_is_what_the_status_says(site: Site) -> None:
    shift = scenario(60, seed=21)
    broken = Message(shift.messages[0].status, b"no msgpack", shift.messages[0].properties)
    half = len(shift.messages) // 2
    with site.daemon() as daemon:
        site.publish(shift.messages[:half])
        between = scraped_until(site, lambda found: found["azaion_ingest_messages_total", ()] >= half)
        site.publish([*shift.messages[half:], broken])
        sent = len(shift.messages) + 1
        found = scraped_until(site, lambda found: found["azaion_ingest_messages_total", ()] >= sent)
        status = daemon.wait_for_status(lambda status: ingested(shift).items() <= status["annotations"].items(), "everything is in")
        assert between["azaion_ingest_bytes_total", ()] < found["azaion_ingest_bytes_total", ()] == status["totals"]["ingest"]["bytes"]
        assert found["azaion_stream_position", ()] == status["stream"]["position"] == sent - 1
        assert {home: found["azaion_annotations", (home,)] for home in ("seed", "validated", "deleted")} == ingested(shift)
        assert found["azaion_ingest_annotations_total", ("validated",)] >= len(shift.names(Fate.VALIDATED))
        assert found["azaion_ingest_quarantined_total", ("payload",)] == found["azaion_quarantine_messages", ()] == 1
        assert found["azaion_ingest_batch_seconds_count", ()] == found["azaion_ingest_batch_seconds_bucket", ("+Inf",)] > 0
        assert found["azaion_ingest_sync_seconds_count", ()] > 0
        assert abs(found["azaion_last_validated_timestamp_seconds", ()] - time.time()) < 120
        assert found["process_start_time_seconds", ()] <= found["azaion_status_timestamp_seconds", ()] <= time.time()
        assert (found["azaion_state", ("running",)], found["azaion_state", ("starting",)]) == (1, 0)
        assert (found["azaion_stream_connected", ()], found["azaion_stream_refused", ()]) == (1, 0)
        assert found["azaion_config_last_reload_successful", ()] == 1
        assert found["azaion_disk_total_bytes", ()] == status["disk"]["total_bytes"]
        assert {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name, _ in found} <= CATALOGUE.keys()
        assert daemon.memory_bytes() < 90e6
        good = site.operator.config.read_text()
        site.operator.config.write_text("stream: [")
        daemon.process.send_signal(signal.SIGHUP)
        found = scraped_until(site, lambda found: found["azaion_config_reloads_total", ("failed",)] == 1)
        assert found["azaion_config_last_reload_successful", ()] == 0
        site.operator.config.write_text(good)
        daemon.process.send_signal(signal.SIGHUP)
        found = scraped_until(site, lambda found: found["azaion_config_reloads_total", ("ok",)] == 1)
        assert found["azaion_config_last_reload_successful", ()] == 1


def test_a_port_that_is_taken_is_waited_for_and_a_refused_password_seen_once_it_is_free(site: Site) -> None:
    site.configure({"RABBITMQ_PASSWORD": "wrong"})
    with socket.create_server(address(site)) as taken, site.daemon() as daemon:
        assert "Address already in use" in daemon.wait_for_event("metrics.failed")["why"]
        daemon.wait_for_status(lambda status: status["state"] == "running", "it works all the same")
        taken.close()
        found = scraped_until(site, lambda found: found["azaion_stream_refused", ()] == 1)
        assert found["azaion_stream_failures_total", ()] >= 1
        assert found["azaion_stream_connected", ()] == 0
        assert [event["event"] for event in daemon.events()].count("metrics.failed") == 1
