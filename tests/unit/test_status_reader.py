"""The status as commands read it: whatever has become of the daemon, its file and the configuration."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from azaion_daemon import __version__
from azaion_daemon.cli import main
from azaion_daemon.errors import ConfigError
from azaion_daemon.ops.requests import ask
from azaion_daemon.ops.status import disk, read_status, write_status
from azaion_daemon.ops.status_reader import StatusReader
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.store.layout import Layout
from tests.unit.builders import make_root, settings_on
from tests.unit.test_status_view import DOCUMENT

NOW = datetime.now(UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "azaion")


@pytest.fixture
def config(tmp_path: Path, layout: Layout) -> Path:
    document = settings_on(layout).model_dump(mode="json", exclude_defaults=True)
    document["api"]["password"] = document["stream"]["password"] = "p"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def running(layout: Layout, **changes: Any) -> None:
    write_status(layout, {**DOCUMENT, "version": __version__, "pid": os.getpid(), **changes})


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_daemon_is_running_while_it_holds_the_root(layout: Layout) -> None:
    running(layout, process={"tasks": 34})
    with exclusive_lock(layout.lock, busy="busy"):
        document = read_status(layout)
        assert (document["state"], document["process"]["pid"], document["process"]["ended"]) == ("running", os.getpid(), None)
        assert document["process"]["silent_s"] < 25
        assert document["process"]["tasks"] == 34
        edit(layout.status, written_monotonic=time.monotonic() - 40)
        assert read_status(layout)["process"]["silent_s"] >= 40
        edit(layout.status, pid=1)  # what lies there is of the daemon before
        before = read_status(layout)
        assert (before["state"], "tasks" in before["process"]) == ("starting", False)
        layout.status.unlink()
        assert read_status(layout)["state"] == "starting"
    assert read_status(layout)["state"] == "unknown"


def test_one_that_was_killed_is_told_from_one_that_was_stopped(layout: Layout) -> None:
    for said, ended in (("running", "crashed"), ("stopping", "crashed"), ("stopped", "in order")):
        running(layout, state=said)
        document = read_status(layout)
        assert (document["state"], document["process"]["ended"]) == ("stopped", ended)


def _no_root(layout: Layout) -> None:
    layout.root_id.unlink()


def _damaged(layout: Layout) -> None:
    layout.status.write_text('{"version": "0", "sta')


def _no_status(layout: Layout) -> None:
    layout.status.write_text("[1]")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [(lambda _: None, "never run"), (_no_root, "azaion-daemon init"), (_damaged, "is damaged"), (_no_status, "is not a status")],
)
def test_why_nothing_is_known_is_said(layout: Layout, harm: Callable[[Layout], None], problem: str) -> None:
    harm(layout)
    document = read_status(layout)
    assert (document["state"], problem in document["process"]["problem"]) == ("unknown", True)


def test_a_status_that_this_user_may_not_read_is_called_that(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.status.mkdir()  # root may read everything but this
    document = read_status(layout)
    assert (document["state"], "Run this as the user of the daemon" in document["process"]["problem"]) == ("unknown", True)


def test_what_was_asked_for_while_it_is_down_is_there(layout: Layout) -> None:
    running(layout)
    ask(layout, "promote", {"job": "J1", "reason": "it is right"}, wait_s=1)
    assert read_status(layout)["requests"] == [{"kind": "promote", "about": "J1", "reason": "it is right"}]


def test_a_disk_is_measured_as_df_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = disk(tmp_path)
    assert found["free_bytes"] <= found["total_bytes"]
    for blocks_free, files_free, pressure in ((100, 100, None), (10, 100, "high"), (1, 100, "critical"), (100, 3, "critical")):
        numbers = os.statvfs_result((4096, 4096, 200, blocks_free + 10, blocks_free, 200, files_free, files_free, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda _, numbers=numbers: numbers)
        assert disk(tmp_path)["pressure"] == pressure


def status(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["status", "--config", str(config), *arguments])


def test_its_exit_says_whether_it_runs(layout: Layout, config: Path) -> None:
    assert status(config).exit_code == 3
    with exclusive_lock(layout.lock, busy="busy"):
        assert status(config).exit_code == 3  # it has said nothing yet
        running(layout)
        assert status(config).exit_code == 0
        document = json.loads(status(config, "--json").stdout)
        assert (document["state"], document["config"]["file_problem"]) == ("running", None)


def test_a_configuration_that_cannot_be_used_any_more_hides_no_status(layout: Layout, config: Path) -> None:
    running(layout)
    with exclusive_lock(layout.lock, busy="busy"):
        config.write_text(config.read_text() + "surprise: 1\n")
        result = status(config)
        assert result.exit_code == 0
        assert result.stdout.splitlines()[1].startswith("broken       the configuration file cannot be used as it is now")
        config.write_text("api: [")
        result = status(config)
        assert (result.exit_code, "--root" in result.stderr) == (78, True)
        assert status(config, "--root", str(layout.root)).exit_code == 0
        config.unlink()
        assert "does not exist" in json.loads(status(config, "--root", str(layout.root), "--json").stdout)["config"]["file_problem"]


def test_who_looks_on_sees_the_file_break_and_mend(layout: Layout, config: Path) -> None:
    running(layout)
    reader, good = StatusReader(config), config.read_text()
    assert reader.read(NOW)["config"]["file_problem"] is None
    config.write_text("api: [")
    assert "not valid YAML" in reader.read(NOW)["config"]["file_problem"]
    config.write_text(good)
    assert reader.read(NOW)["config"]["file_problem"] is None
    with pytest.raises(ConfigError, match="--root"):
        StatusReader(config.with_name("other.yaml"))


def test_a_file_that_was_written_after_it_was_loaded_is_noted(layout: Layout, config: Path) -> None:
    def noted(loaded_at: float, last_reload: Any = None, path: Path = config) -> bool:
        running(layout, config={"path": str(path), "loaded_at": loaded_at, "last_reload": last_reload})
        with exclusive_lock(layout.lock, busy="busy"):
            found = StatusReader(config).read(NOW)["attention"]
        return any("written after" in one["what"] for one in found)

    written = config.stat().st_mtime
    assert noted(written - 60)
    assert not noted(written)
    assert not noted(written - 60, {"ok": True, "at": written + 1})
    assert not noted(written - 60, path=config.with_name("another.yaml"))


def test_another_version_that_runs_is_noted(layout: Layout, config: Path) -> None:
    running(layout, version="0.0.1")
    with exclusive_lock(layout.lock, busy="busy"):
        found = StatusReader(config).read(NOW)["attention"]
    assert [one["do"] for one in found if "version 0.0.1" in one["what"]]
