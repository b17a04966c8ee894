"""What systemd hears, over a real socket; and that nothing of it can hurt."""

import os
import socket
import time
from pathlib import Path

import pytest

from azaion_daemon.notify import Notifier
from tests.manager import Manager, Word


def said(manager: Manager, count: int) -> list[Word]:
    manager.wait_for(lambda _: True, after=count - 1)
    return manager.words


@pytest.fixture(params=["file", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "file" else f"@azaion-test-{os.getpid()}"


def test_a_life_is_told_in_the_words_of_the_protocol(address: str) -> None:
    with Manager(address) as manager:
        notifier = Notifier(address, watchdog_s=60)
        notifier.extend(60)
        notifier.ready("Running")
        notifier.status("Running")
        notifier.status("Running; position 1")
        notifier.ping()
        before = time.monotonic_ns() // 1000
        with notifier.reloading():
            pass
        notifier.stopping("Stopping")
        words = said(manager, 7)
    reloading = words.pop(4)
    assert (reloading["RELOADING"], before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000) == ("1", True)
    assert words == [
        {"EXTEND_TIMEOUT_USEC": "60000000"},
        {"READY": "1", "STATUS": "Running"},
        {"STATUS": "Running; position 1"},
        {"WATCHDOG": "1"},
        {"READY": "1"},
        {"STOPPING": "1", "STATUS": "Stopping"},
    ]


def test_a_reload_that_a_stop_cuts_short_does_not_end_with_ready(tmp_path: Path) -> None:
    with Manager(str(tmp_path / "notify")) as manager:
        notifier = Notifier(str(tmp_path / "notify"))
        with notifier.reloading():
            notifier.stopping("Stopping")
        notifier.status("Stopping; position 1")
        words = said(manager, 3)
    assert [next(iter(word)) for word in words] == ["RELOADING", "STOPPING", "STATUS"]


def test_what_nobody_heard_is_said_with_the_next_word_but_for_pings(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"), watchdog_s=60)
    notifier.ping()
    notifier.ready("Running")
    with Manager(str(tmp_path / "notify")) as manager:
        notifier.ping()
        notifier.ping()
        assert said(manager, 2) == [{"READY": "1", "STATUS": "Running", "WATCHDOG": "1"}, {"WATCHDOG": "1"}]


def test_without_a_watchdog_there_are_no_pings_but_what_is_owed(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    notifier.ready("Running")
    with Manager(str(tmp_path / "notify")) as manager:
        notifier.ping()
        notifier.ping()
        notifier.stopping("Stopping")
        assert said(manager, 2) == [{"READY": "1", "STATUS": "Running"}, {"STOPPING": "1", "STATUS": "Stopping"}]


def test_a_manager_that_does_not_listen_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"), watchdog_s=60)
        for number in range(10_000):  # more than any buffer takes
            notifier.status(f"Running; position {number}")


@pytest.mark.parametrize("address", ["", "@", "vsock:2:1", "relative/path", "/no/such/socket", "/" + "long" * 100, "/dev/null"])
def test_an_address_of_no_use_hurts_nobody(address: str) -> None:
    notifier = Notifier(address, watchdog_s=60)
    notifier.ready("Running")
    notifier.ping()


def test_a_reason_cannot_smuggle_in_a_word_and_is_cut(tmp_path: Path) -> None:
    with Manager(str(tmp_path / "notify")) as manager:
        notifier = Notifier(str(tmp_path / "notify"))
        notifier.status("Not connected: no\nMAINPID=1\0\x1b[31m \udcff")
        notifier.status("x" * 5000)
        first, second = said(manager, 2)
    assert first == {"STATUS": "Not connected: no MAINPID=1 [31m"}
    assert (len(second["STATUS"]), second["STATUS"][-1]) == (400, "…")


def test_its_variables_are_not_passed_on_to_what_the_daemon_starts() -> None:
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    assert Notifier.taken_from(environment).watchdog_s == 120
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_pings_are_due_where_they_are_demanded_of_this_process(variables: dict[str, str], watchdog_s: float | None) -> None:
    assert Notifier.taken_from(variables).watchdog_s == watchdog_s
