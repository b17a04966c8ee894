"""What others than the daemon's user can do with what it makes, whatever the umask of whoever starts it."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenario import scenario
from azaion_daemon.sandbox.scenes import write_classes
from tests.harness import Site, ingested
from tests.permissions import faults


@pytest.fixture(params=[0o000, 0o077], ids=["umask-000", "umask-077"])
def careless(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str, careless: int) -> Site:
    made = Site(tmp_path, broker, stream)
    made.configure()
    made.operator.command("init")
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_that_is_made_has_its_mode_whatever_the_umask(site: Site) -> None:
    write_classes(site.root / "classes.json")
    (site.root / "classes.json").chmod(0o640)
    shift = scenario(60, seed=4)
    unreadable = replace(shift.messages[0], body=b"\xc1")
    with site.daemon() as daemon:
        site.publish([*shift.messages, unreadable])
        daemon.wait_for_status(lambda status: bool(ingested(shift).items() <= status["annotations"].items()), "everything is ingested")
        daemon.wait_for_status(lambda status: status["annotations"]["quarantined"] == 1, "what cannot be read is kept")
        site.operator.command("index", "check")
        site.operator.command("model", "key")
        site.operator.try_command("quarantine", "replay", "--all")
        assert not [event for event in daemon.events() if event["event"] in {"root.was_open", "secret.open"}]
    site.operator.command("dataset", "build")
    assert faults(site.root) == {}
    assert mode(site.operator.config) == 0o640
    made = {path.relative_to(site.root).parts[0] for path in site.root.rglob("*") if path.is_file()}
    assert made == {"classes.json", "data", "data-seed", "data_deleted", "datasets", "quarantine", "state"}


def test_what_others_could_write_to_is_closed_at_the_start_and_said(tmp_path: Path, broker: Broker, stream: str) -> None:
    site = Site(tmp_path, broker, stream)
    site.configure()
    site.operator.command("init")
    write_classes(site.root / "classes.json")
    state = site.root / "state"
    state.chmod(0o777)
    (state / "requests").chmod(0o770)
    (site.root / "models").chmod(0o775)
    (site.root / "data").chmod(0o755)  # others may read, if the operator wants it so
    site.operator.config.chmod(0o644)
    with site.daemon() as daemon:
        daemon.wait_for_event("daemon.ready")
        said = {(event["event"], event["path"], event["mode"], event.get("now")) for event in daemon.events() if "mode" in event}
    assert said == {
        ("root.was_open", str(state), "0777", "0750"),
        ("root.was_open", str(state / "requests"), "0770", "0700"),
        ("root.was_open", str(site.root / "models"), "0775", "0755"),
        ("secret.open", "config.yaml", "0644", None),
    }
    assert [mode(path) for path in (state, state / "requests", site.root / "models")] == [0o750, 0o700, 0o755]
