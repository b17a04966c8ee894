"""Retention in the daemon: what is old and unreferenced goes at its start, and the commands say the same beside it."""

import json
from pathlib import Path

import pytest

from azaion_daemon.sandbox.annotations import Author, Role
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenes import draw_scene
from tests.harness import Site

VALIDATOR = Author("validator@example.org", Role.VALIDATOR)


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    made = Site(tmp_path, broker, stream)
    made.overrides["dataset"] = {"min_images": 1, "min_objects": 1}
    made.overrides["retention"] = {"datasets_keep": 1, "datasets_keep_days": 0}
    made.prepare()
    return made


def test_old_datasets_go_at_the_start_and_are_looked_at_beside_the_daemon(site: Site) -> None:
    site.publish([VALIDATOR.created(f"n{number:02}", draw_scene(number)) for number in range(20)])
    with site.daemon() as daemon:
        daemon.wait_for_status(lambda status: status["annotations"]["validated"] == 20, "all annotations")
        foretold = json.loads(site.operator.command("dataset", "build", "--dry-run", "--json"))
        assert (sum(foretold["images"].values()), foretold["problems"]) == (20, [])
        assert site.operator.try_command("dataset", "build").returncode == 78
    _, newer = (json.loads(site.operator.command("dataset", "build", "--json"))["name"] for _ in range(2))
    assert [one["goes"] for one in json.loads(site.operator.command("dataset", "list", "--json"))] == [False, True]
    with site.daemon() as daemon:
        daemon.wait_for_event("retention.removed", why="nothing refers to it, and it is old")
        assert [one["name"] for one in json.loads(site.operator.command("dataset", "list", "--json"))] == [newer]
        assert json.loads(site.operator.command("dataset", "show", "--json"))["images"] == foretold["images"]
