"""The real daemon is told to work with another configuration, by command and by signals: while messages flow, whatever the file holds."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.sandbox.scenario import scenario
from azaion_daemon.store.durable import replace_atomically
from tests.harness import Site, expected_tree, ingested
from tests.integration.test_stream_reconfigured import rotated

__all__ = ["rotated"]

LIVE: dict[str, dict[str, Any]] = {
    "ingest": {"batch_messages": 5, "batch_bytes": "1MiB", "sync_interval_s": 0.2},
    "log": {"level": "debug"},
    "gate": {"max_drop": 0.01},
    "retention": {"jobs_keep": 7},
    "trigger": {"quiet_minutes": 3},
}


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    made = Site(tmp_path, broker, stream)
    made.prepare()
    return made


def change(site: Site, sections: dict[str, dict[str, Any]], environment: dict[str, str] | None = None) -> None:
    for section, values in sections.items():
        site.overrides.setdefault(section, {}).update(values)
    site.configure(environment)


def reload(site: Site) -> dict[str, Any]:
    """Have it reload, and what the command says of that."""
    document: dict[str, Any] = json.loads(site.operator.command("reload", "--wait", "--json", "--timeout", "90"))
    return document


def refused(site: Site, said: str) -> None:
    done = site.operator.try_command("reload", "--wait", "--timeout", "90")
    assert (done.returncode, done.stdout) == (os.EX_CONFIG, ""), done.stderr
    assert said in done.stderr
    assert "keeps the configuration that it had" in done.stderr


@contextmanager
def while_it_lasts(step: Callable[[], object]) -> Iterator[None]:
    """Do something again and again beside the context."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            step()

    with ThreadPoolExecutor(1) as thread:
        repeating = thread.submit(repeat)
        try:
            yield
        finally:
            over.set()
        repeating.result()


def test_under_load_everything_live_takes_effect_and_no_message_is_lost_or_doubled(
    site: Site, broker: Broker, request: pytest.FixtureRequest
) -> None:
    shift = scenario(240, seed=5)
    third = len(shift.messages) // 3
    parts = iter((shift.messages[:third], shift.messages[third : 2 * third], shift.messages[2 * third :]))

    def publish() -> None:
        if (part := next(parts, None)) is not None:
            site.publish(part, duplicates=0.1)
        else:
            time.sleep(0.05)

    with site.daemon() as daemon:
        with while_it_lasts(publish):
            daemon.wait_for_event("ingest.batch")
            change(
                site,
                LIVE | {"training": {"epochs": 9}, "stream": {"queue_bytes": "16MiB"}},
                {"RABBITMQ_PASSWORD": request.getfixturevalue("rotated")},
            )
            said = reload(site)
            live = {f"{section}.{name}" for section, values in LIVE.items() for name in values}
            assert set(said["applied"]) == live | {"stream.password"}
            assert (said["next_job"], said["restart_required"]) == (["training.epochs"], ["stream.queue_bytes"])

            good = site.operator.config.read_text()
            site.operator.config.write_text(good.replace("stream:", "stream: ["))
            refused(site, "is not valid YAML")
            site.operator.config.write_text(good[: good.index("training:")])
            refused(site, "is cut short")
            site.operator.config.write_bytes(good.encode() + b"\xff")
            refused(site, "cannot be read")
            site.operator.config.write_text(good.replace("batch_messages:", "batch_mesages:"))
            refused(site, "ingest.batch_mesages: unknown key")
            if os.geteuid() != 0:
                site.operator.config.chmod(0)
                refused(site, "cannot be read")
            status = daemon.wait_for_status(lambda status: True, "a status")
            assert (status["config"]["last_reload"]["ok"], status["state"]) == (False, "running")
            site.operator.config.unlink()
            site.operator.config.write_text(good)
            assert reload(site)["applied"] == []
        daemon.wait_for_status(lambda status: bool(ingested(shift).items() <= status["annotations"].items()), "everything is ingested")
        status = daemon.wait_for_status(lambda status: status["stream"]["position"] is not None, "the position")
        assert (status["stream"]["reconnects"], status["annotations"]["quarantined"]) == (1, 0)
        events = daemon.events()
        told = next(number for number, event in enumerate(events) if event["event"] == "config.reloaded")
        # What was staged before is committed as it is: three batches at most are between the inbox and the tree.
        assert all(event["messages"] <= 5 for event in [event for event in events[told:] if event["event"] == "ingest.batch"][3:])
    assert site.tree() == expected_tree(shift)
    assert site.left_over() == []


def test_a_storm_of_signals_while_the_file_is_replaced_again_and_again_ends_with_the_last_good_one(site: Site) -> None:
    shift = scenario(120, seed=6)
    config = site.operator.config
    good = config.read_text()
    others = [good.replace("min_total: 1000000", f"min_total: {number}") for number in range(2_000_000, 2_000_004)]
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")

        def replace() -> None:
            for text in others:
                replace_atomically(config, text.encode())
                time.sleep(0.002)
                with config.open("w") as file:
                    for start in range(0, len(text), 500):
                        file.write(text[start : start + 500])
                        file.flush()
                config.write_text(text[: len(text) // 2])

        with while_it_lasts(replace):
            site.publish(shift.messages)
            for _ in range(400):
                daemon.process.send_signal(signal.SIGHUP)
                time.sleep(0.003)
        config.write_text(good.replace("min_total: 1000000", "min_total: 42"))
        assert reload(site)["ok"]
        config.write_text("stream: [")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for_status(lambda status: status["config"]["last_reload"]["ok"] is False, "the refusal")
        config.write_text(good)
        assert reload(site)["applied"] == ["trigger.min_total"]  # from 42: what was refused has changed nothing
        daemon.wait_for_status(lambda status: bool(ingested(shift).items() <= status["annotations"].items()), "everything is ingested")
        status = daemon.wait_for_status(lambda status: status["stream"]["connected"], "the connection")
        assert (status["stream"]["reconnects"], status["annotations"]["quarantined"]) == (0, 0)
        assert not {"daemon.stray_error", "daemon.crashed"} & {event["event"] for event in daemon.events()}
    assert site.tree() == expected_tree(shift)


def test_a_changed_password_of_the_api_is_one_login_at_once_and_a_wrong_one_is_said_once(
    site: Site, platform_api: PlatformApi, platform_user: User
) -> None:
    site.environment |= {"AZAION_API_URL": platform_api.url, "AZAION_API_EMAIL": platform_user.email, "AZAION_API_PASSWORD": "before"}
    site.configure()
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")
        assert platform_api.calls["POST /login"] == 0  # nothing was to be asked there
        platform_user.password = "rotated"
        site.configure({"AZAION_API_PASSWORD": "wrong"})
        assert reload(site)["applied"] == ["api.password"]
        assert "reload" in daemon.wait_for_event("platform.login_failed")["why"]
        site.configure({"AZAION_API_PASSWORD": "rotated"})
        assert reload(site)["applied"] == ["api.password"]
        daemon.wait_for_event("platform.login")
        assert reload(site)["applied"] == []
        assert platform_api.calls["POST /login"] == 2


def test_a_directory_in_the_place_of_the_file_is_refused_and_the_daemon_found_by_its_root(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("daemon.ready")
        good = site.operator.config.read_text()
        site.operator.config.unlink()
        site.operator.config.mkdir()
        done = site.operator.try_command("reload", "--wait", "--root", str(site.root), "--config", "elsewhere.yaml")
        assert (done.returncode, "cannot be read" in done.stderr) == (os.EX_CONFIG, True)
        site.operator.config.rmdir()
        site.operator.config.write_text(good)
        assert reload(site)["ok"]


def test_without_a_daemon_the_command_says_so(site: Site) -> None:
    for arguments in (("reload",), ("reload", "--wait"), ("reload", "--wait", "--json")):
        done = site.operator.try_command(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no daemon runs in" in done.stderr
    assert site.operator.try_command("reload", "--json").returncode == 2


def test_told_without_waiting_it_reloads_too(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("daemon.ready")
        change(site, {"gate": {"max_drop": 0.5}})
        assert f"(pid {daemon.process.pid}) is told" in site.operator.try_command("reload").stderr
        assert daemon.wait_for_event("config.reloaded")["applied"] == ["gate.max_drop"]


# Signals that come while it starts


def as_soon_as_it_may(daemon: RunningDaemon, number: signal.Signals) -> None:
    """Send a signal in the moment from which on it is kept: long before the daemon is ready."""
    status = Path(f"/proc/{daemon.process.pid}/status")
    deadline = time.monotonic() + 60
    while not ((caught := re.search(r"SigCgt:\s*(\w+)", status.read_text())) and int(caught[1], 16) >> (number - 1) & 1):
        assert time.monotonic() < deadline
    daemon.process.send_signal(number)


def test_a_sighup_while_it_starts_is_remembered(site: Site) -> None:
    with site.daemon() as daemon:
        as_soon_as_it_may(daemon, signal.SIGHUP)
        daemon.wait_for_event("config.reloaded")
        events = [event["event"] for event in daemon.events()]
        assert events.index("daemon.ready") < events.index("config.reloaded")
        assert events.count("config.reloaded") == 1


def test_a_sigterm_while_it_starts_stops_it_in_order(site: Site) -> None:
    with site.daemon() as daemon:
        as_soon_as_it_may(daemon, signal.SIGTERM)
        assert daemon.process.wait(60) == 0
        events = [event["event"] for event in daemon.events()]
        assert events[-1] == "daemon.stopped"
        assert "stream.connecting" not in events
    assert (json.loads((site.root / "state" / "status.json").read_text()))["state"] == "stopped"
