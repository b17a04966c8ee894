"""A server that had annotations before the daemon came, and one whose ledger was lost: the real commands and the real daemon."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.scenario import VALIDATOR, Fate, Scenario, scenario
from azaion_daemon.sandbox.scenes import write_classes
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Position
from tests.harness import HOMES, Site, expected_tree, ingested, label_text


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    """A configuration, and a root that nothing was made in."""
    made = Site(tmp_path, broker, stream)
    made.configure()
    return made


def leave_tree(site: Site, shift: Scenario) -> None:
    """What the service before has left of a scenario."""
    for directory in HOMES.values():
        for kind in ("images", "labels"):
            (site.root / directory / kind).mkdir(parents=True)
    for name, truth in shift.truth.items():
        home = site.root / HOMES[truth.fate]
        (home / "images" / f"{name}.jpg").write_bytes(truth.scene.image_jpeg)
        (home / "labels" / f"{name}.txt").write_bytes(label_text(truth.boxes))
        if truth.pending is not None:
            (site.root / "data-seed" / "labels" / f"{name}.txt").write_bytes(label_text(truth.pending))
    write_classes(site.root / "classes.json")


def init(site: Site, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(site.operator.command("init", "--json", *arguments))
    return document


def check(site: Site, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = site.operator.try_command("index", "check", "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def wait_until_consumed(daemon: RunningDaemon, messages: int) -> None:
    daemon.wait_for_status(lambda status: (status["stream"]["position"] or 0) >= messages - 1, "everything is consumed")


def test_a_server_is_taken_over_and_goes_on_where_it_was(site: Site) -> None:
    shift = scenario(60, seed=21)
    leave_tree(site, shift)
    (site.root / "models").mkdir()
    (site.root / "models" / "azaion.onnx").write_bytes(b"the model")
    before = site.tree()
    made = init(site)
    assert made["index"]["annotations"] == ingested(shift)
    assert made["model"] == hashlib.sha256(b"the model").hexdigest()
    assert site.tree() == before == expected_tree(shift)
    seeds = shift.names(Fate.SEED)
    with site.daemon() as daemon:
        daemon.wait_for_event("index.digested", annotations=60)
        site.publish([VALIDATOR.validated(seeds)])
        daemon.wait_for_status(lambda status: status["annotations"]["seed"] == 0, "the seeds are validated")
        assert "mAP50 unknown" in site.operator.command("status")
        code, found = check(site, "--deep")
        assert (code, found["left"], found["annotations"]) == (0, 0, 60)
    moved = {path.replace("data-seed/", "data/") if Path(path).stem in seeds else path: digest for path, digest in before.items()}
    assert site.tree() == moved
    assert site.left_over() == []


def test_init_again_indexes_nothing(site: Site) -> None:
    leave_tree(site, scenario(5, seed=22))
    first = init(site)
    (site.root / "data" / "labels" / "new.txt").write_text("")
    assert init(site) == {"id": first["id"], "index": None, "offset": None, "model": None}
    refused = site.operator.try_command("init", "--offset-file", "offset.yaml")
    assert (refused.returncode, "has a position already" in refused.stderr) == (os.EX_CONFIG, True)


@pytest.mark.parametrize("where", ["root", "option"])
def test_the_position_is_imported_so_that_its_message_is_taken_again(site: Site, stream: str, where: str) -> None:
    leave_tree(site, scenario(5, seed=22))
    file = site.root / "offset.yaml" if where == "root" else site.operator.directory / "old.yaml"
    file.write_text("lastOffset: 17\n")
    arguments = () if where == "root" else ("--offset-file", str(file))
    done = site.operator.try_command("init", *arguments)
    assert f"The stream {stream} will be read from offset 17 on; that message is taken again." in done.stderr
    ledger = Ledger(Layout(site.root).ledger)
    assert ledger.position(stream) == Position(16, b"")
    ledger.close()


def test_a_position_that_would_have_to_be_guessed_stops_before_anything_is_made(site: Site) -> None:
    leave_tree(site, scenario(5, seed=22))
    (site.root / "offset.yaml").write_text("first: 1\nlast: 17\n")
    done = site.operator.try_command("init")
    assert (done.returncode, "holds several integers (1, 17)" in done.stderr) == (os.EX_CONFIG, True)
    assert not (site.root / "state").exists()


def test_without_a_position_it_is_said_where_the_stream_is_read_from(site: Site, stream: str) -> None:
    leave_tree(site, scenario(5, seed=22))
    done = site.operator.try_command("init")
    assert f"the stream {stream} will be read from stream.start_from: beginning" in done.stderr


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("how", ["early", "late"])
def test_killed_in_init_it_is_made_by_the_next(site: Site, how: str) -> None:
    leave_tree(site, scenario(5, seed=22))
    for number in range(45_000):
        (site.root / "data" / "labels" / f"{number:05}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    new = site.root / "state" / "new-ledger.db"
    command = [sys.executable, "-m", "azaion_daemon.cli", "init"]
    with subprocess.Popen(command, cwd=site.operator.directory, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        grown, least = (new, 1) if how == "early" else (new.with_name(new.name + "-wal"), 1 << 20)  # it grows with the first transaction
        while size_of(grown) < least:
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.kill()
    assert not (site.root / "state" / "ledger.db").exists()
    refused = site.operator.try_command("run")
    assert (refused.returncode, "Is its disk mounted" in refused.stdout) == (os.EX_CONFIG, True)
    made = init(site)
    assert sum(made["index"]["annotations"].values()) == 45_005
    assert not list((site.root / "state").glob("new-*"))


def test_a_command_at_work_is_not_ended_by_one_that_wakes_the_daemon(site: Site) -> None:
    leave_tree(site, scenario(5, seed=22))
    for number in range(20_000):
        (site.root / "data" / "labels" / f"{number:05}.txt").write_text("")
    command = [sys.executable, "-m", "azaion_daemon.cli", "init"]
    with subprocess.Popen(command, cwd=site.operator.directory, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (site.root / "state" / "new-ledger.db").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 0


def test_differences_are_named_and_mended_beside_the_running_daemon(site: Site) -> None:
    shift = scenario(40, seed=23)
    leave_tree(site, shift)
    init(site)
    before = site.tree()
    with site.daemon() as daemon:
        daemon.wait_for_event("index.digested")
        names = shift.names(Fate.VALIDATED)
        (site.root / "data" / "labels" / f"{names[0]}.txt").unlink()
        (site.root / "data" / "images" / f"{names[1]}.jpg").rename(site.root / "data_deleted" / "images" / f"{names[1]}.jpg")
        (site.root / "data-seed" / "labels" / "stray.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        code, found = check(site)
        assert (code, found["differences"]) == (1, {"label missing": 1, "image in another home": 1, "file without a row": 1})
        text = site.operator.try_command("index", "check")
        assert "file without a row" in text.stdout
        assert "data-seed/labels/stray.txt: it is indexed, as init does" in text.stdout
        assert check(site, "--repair")[0] == 0
        assert check(site)[0] == 0
        daemon.wait_for_status(lambda status: status["annotations"]["seed"] == len(shift.names(Fate.SEED)) + 1, "the new one is counted")
        refused = site.operator.try_command("index", "rebuild")
        assert (refused.returncode, f"(pid {daemon.process.pid})" in refused.stderr) == (os.EX_CONFIG, True)
    after = site.tree()
    del after["data-seed/labels/stray.txt"]
    assert after == before
    assert check(site)[0] == 0


def test_differences_are_mended_when_no_daemon_runs_too(site: Site) -> None:
    shift = scenario(10, seed=24)
    leave_tree(site, shift)
    init(site)
    before = site.tree()
    next((site.root / "data" / "labels").iterdir()).unlink()
    assert check(site)[0] == 1
    assert check(site, "--repair")[0] == 0
    assert site.tree() == before


def test_a_ledger_that_was_lost_is_made_anew_and_the_whole_stream_read_again(site: Site) -> None:
    shift = scenario(60, seed=25)
    site.operator.command("init")
    write_classes(site.root / "classes.json")
    site.publish(shift.messages)
    with site.daemon() as daemon:
        wait_until_consumed(daemon, len(shift.messages))
    assert site.tree() == expected_tree(shift)
    (site.root / "state" / "ledger.db").unlink()
    refused = site.operator.try_command("init")
    assert (refused.returncode, "azaion-daemon index rebuild" in refused.stderr) == (os.EX_CONFIG, True)
    made = json.loads(site.operator.command("index", "rebuild", "--offset", "0", "--json"))
    assert made["index"]["annotations"] == ingested(shift)
    assert site.tree() == expected_tree(shift)
    with site.daemon() as daemon:
        wait_until_consumed(daemon, len(shift.messages))
    assert site.tree() == expected_tree(shift)


def test_a_rebuild_goes_on_after_the_last_status(site: Site, stream: str) -> None:
    shift = scenario(20, seed=26)
    site.operator.command("init")
    write_classes(site.root / "classes.json")
    site.publish(shift.messages)
    with site.daemon() as daemon:
        wait_until_consumed(daemon, len(shift.messages))
    with site.daemon() as daemon:  # nothing new comes: its position is the ledger's
        daemon.wait_for_event("stream.connected")
        daemon.wait_for_status(lambda status: status["stream"]["position"] is not None, "the position")
    made = json.loads(site.operator.command("index", "rebuild", "--json"))
    assert made["offset"] == len(shift.messages)
    assert Path(made["old_ledger"]).exists()
    ledger = Ledger(Layout(site.root).ledger)
    position = ledger.position(stream)
    assert position is not None
    assert (position.offset, position.digest) == (len(shift.messages) - 1, b"")
    assert ledger.undigested_count(Home.VALIDATED) == len(shift.names(Fate.VALIDATED))
    ledger.close()
