"""The quarantine as an operator uses it: look, mend, replay."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from azaion_daemon.sandbox.annotations import Author, Dialect, Role
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenes import draw_scene
from tests.harness import Site, label_text

VALIDATOR = Author("validator@example.org", Role.VALIDATOR)
ODD = replace(VALIDATOR, dialect=Dialect(extension="jfif"))


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    made = Site(tmp_path, broker, stream)
    made.prepare()
    return made


def test_a_message_is_looked_at_and_applied_once_the_cause_is_mended(site: Site) -> None:
    scene = draw_scene(1)
    site.publish([VALIDATOR.created("first", scene), ODD.created("odd", scene), VALIDATOR.created("last", scene)])
    with site.daemon() as daemon:
        daemon.wait_for_status(lambda status: status["annotations"]["quarantined"] == 1, "the quarantine")
        (entry,) = json.loads(site.operator.command("quarantine", "list", "--json"))
        assert (entry["offset"], "'jfif' is not one of" in entry["reason"]) == (1, True)
        shown = json.loads(site.operator.command("quarantine", "show", "1"))
        assert (shown["properties"]["AnnotationStatus"], shown["payload"][1]) == ("Created", "odd")
        assert shown["payload"][6] == f"({len(scene.image_jpeg)} bytes)"
        refused = site.operator.try_command("quarantine", "replay", "1")
        assert (refused.returncode, "stays: it still cannot be applied" in refused.stdout) == (1, True)
    site.overrides["ingest"]["image_extensions"] = ["jpg", "jfif"]
    site.configure()
    assert "it is replayed at the next start" in site.operator.command("quarantine", "replay", "--all")
    with site.daemon() as daemon:
        daemon.wait_for_event("ingest.replayed", position=1)
        daemon.wait_for_status(lambda status: status["annotations"] == {**status["annotations"], "validated": 3, "quarantined": 0}, "it")
        assert site.operator.command("quarantine", "list") == ""
    assert (site.root / "data/images/odd.jfif").read_bytes() == scene.image_jpeg
    assert (site.root / "data/labels/odd.txt").read_bytes() == label_text(scene.boxes)
    assert site.left_over() == []


def test_an_old_message_does_not_undo_what_came_after_unless_it_is_to_count_as_new(site: Site) -> None:
    old, new = draw_scene(2), draw_scene(3)
    site.publish([ODD.created("a", old), VALIDATOR.created("a", new)])
    with site.daemon() as daemon:
        daemon.wait_for_status(lambda status: status["annotations"]["quarantined"] == 1, "the quarantine")
    site.overrides["ingest"]["image_extensions"] = ["jpg", "jfif"]
    site.configure()
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")
        refused = site.operator.try_command("quarantine", "replay", "0")
        assert (refused.returncode, "it has changed since, at 1" in refused.stdout) == (1, True)
        assert (site.root / "data/images/a.jpg").read_bytes() == new.image_jpeg
        assert "applied" in site.operator.command("quarantine", "replay", "0", "--as-new")
        assert (site.root / "data/images/a.jfif").read_bytes() == old.image_jpeg
        assert not (site.root / "data/images/a.jpg").exists()
    assert site.operator.try_command("quarantine", "show", "0").returncode == 78
