"""What systemd hears of a real daemon, without a broker: ready, what it does, pings as long as all is well, reloads, the stop."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from tests.harness import Site
from tests.manager import Manager, Word

PARTS = {
    "consume", "write", "write: take", "write: make durable", "write: place", "write: sync", "trigger", "conduct", "digest", "publish",
    "keep", "answer", "reload", "log in", "gpus", "report", "ledger",
}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    made = Site(tmp_path, broker, stream)
    made.prepare()
    made.configure({"RABBITMQ_PORT": "1"})
    return made


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(str(tmp_path / "notify")) as listening:
        yield listening


def daemon(site: Site, manager: Manager, *, watchdog_s: float) -> RunningDaemon:
    return site.operator.daemon(
        environment={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(round(watchdog_s * 1e6)), "WATCHDOG_PID": ""}
    )


def is_ping(word: Word) -> bool:
    return "WATCHDOG" in word


def is_ready(word: Word) -> bool:
    return "READY" in word


def test_it_is_ready_without_a_broker_and_says_what_it_does_until_it_stops(site: Site, manager: Manager) -> None:
    with daemon(site, manager, watchdog_s=6) as running:
        ready = manager.wait_for(is_ready)
        assert manager.words[ready]["STATUS"] == "Running; the broker is being connected to"
        assert [word["STATUS"] for word in manager.words[:ready] if "STATUS" in word][-1].startswith("Starting: ")
        manager.wait_for(lambda word: word.get("STATUS", "").startswith("Not connected: no connection to 127.0.0.1:1"), after=ready)
        status = running.wait_for_status(lambda status: status["health"]["parts"].keys() >= PARTS, "all parts")
        assert status["health"]["ok"]

        ping = manager.wait_for(is_ping, after=ready)
        manager.wait_for(is_ping, after=ping + 1)

        before = len(manager.words)
        running.process.send_signal(signal.SIGHUP)
        reloading = manager.wait_for(lambda word: "RELOADING" in word, after=before)
        assert int(manager.words[reloading]["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        manager.wait_for(is_ready, after=reloading)

        before = len(manager.words)
        running.stop()
        manager.wait_for(lambda word: "STOPPING" in word, after=before)
        assert not any(is_ready(word) for word in manager.words[before:])


@pytest.mark.parametrize(("port", "consuming"), [("1", "consume"), (None, "consume: connection: hand on")])
def test_idle_every_part_waits_for_something_that_has_a_name(site: Site, manager: Manager, port: str | None, consuming: str) -> None:
    site.configure({} if port is None else {"RABBITMQ_PORT": port})

    def idle(status: dict[str, Any]) -> bool:
        parts = {name: one for name, one in status["health"]["parts"].items() if name != "report"}  # that one writes this
        return parts.keys() >= {*PARTS, consuming} - {"report"} and all(one["limit_s"] is None for one in parts.values())

    with daemon(site, manager, watchdog_s=60) as running:
        parts = running.wait_for_status(idle, "every part waits")["health"]["parts"]
    assert parts["answer"]["what"] == "waiting for requests"
    assert parts[consuming]["what"].startswith("waiting for the broker: no connection" if port else "waiting for messages")


def test_a_start_that_fails_says_why(site: Site, manager: Manager) -> None:
    (site.root / "classes.json").unlink()
    with daemon(site, manager, watchdog_s=60) as running:
        assert running.process.wait(60) == os.EX_CONFIG
        running.process.returncode = 0  # as intended
    assert not any(is_ready(word) for word in manager.words)
    assert "classes.json does not exist" in manager.words[-1]["STATUS"]


def test_a_part_that_hangs_ends_the_pings_and_is_named_and_when_it_goes_on_so_do_they(site: Site, manager: Manager) -> None:
    in_the_way = site.root / "state" / "requests" / "0.json"
    with daemon(site, manager, watchdog_s=1.2) as running:  # the limit of a step is five times that
        manager.wait_for(is_ready)
        os.mkfifo(in_the_way)
        running.process.send_signal(signal.SIGUSR1)  # reading it takes as long as nobody writes
        event = running.wait_for_event("health.ailing", part="answer", limit_s=60)
        assert (event["level"], event["what"], event["seconds"] >= 6) == ("error", "reading requests", True)
        status = running.wait_for_status(lambda status: not status["health"]["ok"], "the ailment in the status")
        assert "answer" in [one["part"] for one in status["health"]["ailing"]]
        manager.wait_for(lambda word: "answer has not got on for" in word.get("STATUS", ""))
        silent_from = time.monotonic()
        time.sleep(2.5)  # twice what systemd would wait for
        assert [at for at, word in manager.heard if at > silent_from and is_ping(word)] == []

        in_the_way.write_text("no request")
        running.wait_for_event("health.recovered", part="answer")
        manager.wait_for(is_ping, after=len(manager.words))

        running.process.send_signal(signal.SIGABRT)  # what systemd does about silence
        assert running.process.wait(60) == -signal.SIGABRT
        running.process.returncode = 0  # as intended
    assert "most recent call first" in site.operator.log.read_text()
