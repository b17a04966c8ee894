"""The real daemon with large images: they are reduced beside the ingest, and a stop or a kill in the middle costs nothing."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from azaion_daemon.sandbox.annotations import Author, Role
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.scenes import Box, Scene
from tests.harness import Site
from tests.pictures import aerial, encoded

COUNT = 60


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Iterator[Site]:
    """Photographs of two million pixels each on the stream, and a trigger that their number fires."""
    made = Site(tmp_path, broker, stream)
    made.overrides["trigger"] = {"new_annotations": COUNT, "min_total": COUNT, "quiet_minutes": 0}
    made.overrides["dataset"] = {"images": "resized", "min_images": 1, "min_objects": 1, "min_free_disk": "1MiB"}
    made.prepare()
    picture, validator = aerial(2000, 1000), Author("v@example.org", Role.VALIDATOR)
    scenes = [Scene(encoded(picture, comment=str(number)), (Box(0, 0.5, 0.5, 0.25, 0.25),)) for number in range(COUNT)]
    made.publish([validator.created(f"n{number:02}", scene, media=f"v{number}") for number, scene in enumerate(scenes)])
    yield made
    made.operator.end_workers()


def resized(site: Site) -> set[Path]:
    return {path for path in (site.root / "state" / "resized").glob("*/*.jpg") if not path.name.startswith(".")}


def freeze_resizers(daemon: RunningDaemon) -> list[psutil.Process]:
    """Stop the processes that reduce images where they are, as soon as there are any."""

    def resizers() -> list[psutil.Process]:
        return [child for child in psutil.Process(daemon.process.pid).children() if "azaion_daemon.dataset.resizer" in child.cmdline()]

    wait_until(lambda: len(resizers()) > 0)
    for process in (found := resizers()):
        process.suspend()
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_resizing_survives_a_stop_and_a_kill_and_ends_in_a_dataset(site: Site) -> None:
    with site.daemon() as daemon:
        frozen = freeze_resizers(daemon)
        status = daemon.wait_for_status(lambda status: bool(status["training"]["resizing"]), "resizing is under way")
        assert status["training"]["resizing"]["of"] == COUNT
        assert daemon.stop() < 5
        assert not any(process.is_running() for process in frozen)
    with site.daemon() as daemon:
        wait_until(lambda: len(resized(site)) > 10)
        daemon.kill()
        daemon.process.returncode = 0  # as intended
    made = {path: path.stat().st_mtime_ns for path in resized(site)}
    with site.daemon() as daemon:
        formed = daemon.wait_for_event("dataset.formed")
    assert sum(formed["images"].values()) == COUNT
    assert formed["excluded"] == {}
    assert {path: path.stat().st_mtime_ns for path in made} == made
    images = list((site.root / "datasets" / formed["dataset"]).glob("*/images/*.jpg"))
    assert len(images) == COUNT
    for path in images:
        assert path.stat().st_nlink == 2
        with Image.open(path) as image:
            assert image.size == (64, 32)
    assert list(site.root.rglob("*.tmp")) == []
