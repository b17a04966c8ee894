"""A disk that is full, fails, or goes away: a pause or a stop that an operator understands, and nothing lost once it is back."""

import json
import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.scenario import OPERATOR, VALIDATOR
from azaion_daemon.sandbox.scenes import draw_scene
from tests.faults.disk import Disk
from tests.faults.ground import Ground, heard
from tests.faults.launcher import Fault
from tests.faults.story import Act, Story, Truth

pytestmark = pytest.mark.timeout(240)

CHECK_THE_DISK = "Check the disk and the kernel's log, then start the daemon again."
FREE_SOME_SPACE = "Free some space; nothing is lost and work goes on by itself."


class Shift:
    """Annotators at work on one stream, and the truth in the end."""

    def __init__(self, ground: Ground, broker: Broker, stream: str, seed: int) -> None:
        self._ground, self._broker, self._stream = ground, broker, stream
        self._story = Story(seed)
        self._acts: list[Act] = []

    def publish(self, count: int) -> None:
        self._send(self._story.take(count))

    def _send(self, acts: list[Act]) -> None:
        self._acts += acts
        self._ground.site.publish([act.message for act in acts])

    def end(self) -> Truth:
        last = self._story.ending()
        self._send([last])
        return heard(self._broker, self._stream, self._story, self._acts, last=last.message.body)


@pytest.fixture
def ground(tmp_path: Path, broker: Broker, stream: str) -> Ground:
    return Ground(tmp_path, broker, stream)


@pytest.fixture
def shift(ground: Ground, broker: Broker, stream: str) -> Shift:
    return Shift(ground, broker, stream, seed=30)


def nothing_is_lost(ground: Ground, shift: Shift) -> None:
    truth = shift.end()
    assert truth.position is not None
    ground.finish(truth.position)
    assert ground.damage(truth).found() == []


def stopped_by_itself(daemon: RunningDaemon) -> str:
    """The daemon ends because of the disk; its last words."""
    assert daemon.process.wait(30) == os.EX_IOERR
    daemon.process.returncode = 0  # as intended
    last = daemon.events()[-1]
    assert (last["event"], last["level"], last["kind"]) == ("daemon.failed", "error", "StorageError")
    assert "exception" not in last
    return str(last["error"])


def refused(ground: Ground) -> str:
    """The daemon does not start; why."""
    done = ground.site.operator.try_command("run")
    assert done.returncode == os.EX_CONFIG, done.stdout + done.stderr
    event = json.loads(done.stdout.splitlines()[-1])
    assert (event["event"], event["kind"]) == ("daemon.failed", "RootError")
    return str(event["error"])


# Injected faults


WRITING = r"writing what was received \S+"
PLACING = r"placing annotations \S+"
SPACE = {
    "image-write.half": ("ENOSPC", rf"{WRITING}/incoming/\d+\.image: No space left on device\. "),
    "quarantine-write.before": ("EDQUOT", rf"{WRITING}/quarantine/\.\d+\.amqp\.\d+\.tmp: Disk quota exceeded\. "),
    "commit-batch.before": ("ENOSPC", r"recording a batch in the ledger: database or disk is full\. "),
    "label-write.half": ("ENOSPC", rf"{PLACING}/incoming/\S+\.txt: No space left on device\. "),
    "image-place.before": ("EDQUOT", rf"{PLACING}\.image -> \S+/images/\S+\.jpe?g: Disk quota exceeded\. "),
    "commit-clear.before": ("ENOSPC", r"clearing marks in the ledger: database or disk is full\. "),
}
FAILURES = {
    "work.image-write.half": ("EIO", rf"{WRITING}/incoming/\d+\.image: Input/output error\. "),
    "work.quarantine-write.before": ("EROFS", rf"{WRITING}/quarantine/\.\d+\.amqp\.\d+\.tmp: Read-only file system\. "),
    "work.quarantine-fsync.before": ("EIO", rf"{WRITING}/quarantine/\S+: Input/output error\. "),
    "work.begin.before": ("EIO", r"recording a batch in the ledger: disk I/O error\. "),
    "work.commit-batch.before": ("EIO", r"recording a batch in the ledger: disk I/O error\. "),
    "work.label-read.before": ("EIO", rf"{PLACING}/labels/\S+\.txt: Input/output error\. "),
    "work.label-seed.before": ("EROFS", rf"{PLACING}\.txt -> \S+/data-seed/labels/\S+\.txt: Read-only file system\. "),
    "work.image-place.before": ("EIO", rf"{PLACING}\.image -> \S+/images/\S+\.jpe?g: Input/output error\. "),
    "work.image-move.before": ("EIO", rf"{PLACING}\.jpe?g -> \S+/images/\S+\.jpe?g: Input/output error\. "),
    "work.commit-clear.before": ("EIO", r"clearing marks in the ledger: disk I/O error\. "),
}
FAILED_SYNCS = {
    "work.sync-incoming.before": r"making received images durable: (Input/output error|No space left on device)\. ",
    "work.sync-tree.before": r"syncing the tree: (Input/output error|No space left on device)\. ",
}
FAILURES_OF_THE_RECOVERY = {
    "recovery.label-read.before": ("EIO", rf"{PLACING}/labels/\S+\.txt: Input/output error\. "),
    "recovery.sync-tree.before": ("ENOSPC", r"syncing the tree: No space left on device\. "),
    "recovery.incoming-remove-image.before": ("EIO", r"clearing what a crash has left \S+/incoming/\d+\.image: Input/output error\. "),
}


def test_whatever_finds_no_space_is_waited_for_and_done_again(ground: Ground, shift: Shift) -> None:
    for point, (error, sentence) in SPACE.items():
        shift.publish(80)
        with ground.daemon(Fault(f"work.{point}", error)) as daemon:  # type: ignore[arg-type]
            why = daemon.wait_for_event("ingest.paused")["why"]
            assert re.fullmatch(sentence + re.escape(FREE_SOME_SPACE), why)
            daemon.wait_for_event("ingest.resumed")
    nothing_is_lost(ground, shift)


def fails(ground: Ground, point: str, error: str, sentence: str) -> None:
    """The daemon is stopped by a fault, and says so."""
    with ground.daemon(Fault(point, error)) as daemon:  # type: ignore[arg-type]
        assert re.fullmatch(sentence + re.escape(CHECK_THE_DISK), stopped_by_itself(daemon))
    assert ground.faults_done()[-1] == point


def test_whatever_fails_stops_it_with_a_word_and_the_next_start_goes_on(ground: Ground, shift: Shift) -> None:
    shift.publish(500)
    for point, (error, sentence) in FAILURES.items():
        fails(ground, point, error, sentence)
    nothing_is_lost(ground, shift)


def test_whatever_fails_in_the_recovery_stops_it_with_a_word_and_the_next_start_goes_on(ground: Ground, shift: Shift) -> None:
    shift.publish(300)
    for point, (error, sentence) in FAILURES_OF_THE_RECOVERY.items():
        ground.die(Fault("work.commit-batch.after", hit=2))
        fails(ground, point, error, sentence)
    nothing_is_lost(ground, shift)


def test_a_sync_that_failed_is_not_tried_again_by_the_same_process(ground: Ground, shift: Shift) -> None:
    """The kernel has dropped what it could not write: a second one would succeed, and be a lie. So it is with a full disk too."""
    shift.publish(500)
    for point, sentence in FAILED_SYNCS.items():
        for error in ("EIO", "ENOSPC"):
            fails(ground, point, error, sentence)
            assert point.replace(".before", ".after") not in ground.reached_since_the_last_fault()
    nothing_is_lost(ground, shift)


def test_an_image_that_cannot_be_read_stops_it(ground: Ground) -> None:
    """An image is read only to tell it from another of its name, which a restored backup may have brought back."""
    ground.site.publish([OPERATOR.created("a", draw_scene(1))])
    ground.finish(0)
    image = ground.root / "data-seed/images/a.jpg"
    shutil.copy(image, ground.root / "data_deleted/images/a.jpg")
    content = image.read_bytes()
    ground.site.publish([VALIDATOR.validated(["a"])])
    fails(ground, "work.image-read.before", "EIO", rf"{PLACING}/images/a\.jpg: Input/output error\. ")
    ground.finish(1)
    assert (ground.root / "data/images/a.jpg").read_bytes() == content
    assert ground.site.tree().keys() == {"data/images/a.jpg", "data/labels/a.txt"}


# Directories that go


@pytest.mark.parametrize("directory", ["data-seed/labels", "data/images", "state/incoming", "quarantine"])
def test_a_directory_that_is_removed_under_it_stops_it_with_its_name_and_so_does_the_next_start(
    ground: Ground, shift: Shift, directory: str
) -> None:
    gone, aside = ground.root / directory, ground.root / "aside"
    with ground.daemon() as daemon:
        shift.publish(100)
        daemon.wait_for_event("ingest.batch")
        gone.rename(aside)
        shift.publish(100)
        error = stopped_by_itself(daemon)
    assert f"{gone}" in error
    assert error.endswith(CHECK_THE_DISK)
    assert refused(ground) == f"{gone} is missing. If that is as it should be, azaion-daemon init makes it again."
    aside.rename(gone)
    nothing_is_lost(ground, shift)


# Real filesystems


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """What the root of `ground` lies on. To be asked for before it."""
    made = Disk(tmp_path / "disk.ext4", tmp_path / "azaion", size_mib=24)
    yield made
    if made.is_mounted():
        made.unmount()


def test_a_full_disk_is_waited_out(disk: Disk, ground: Ground, shift: Shift) -> None:
    ballast = ground.root / "ballast"
    with ground.daemon() as daemon:
        shift.publish(100)
        daemon.wait_for_event("ingest.batch")
        fill(ballast)
        shift.publish(400)
        why = daemon.wait_for_event("ingest.paused")["why"]
        assert re.search(r"No space left on device|database or disk is full", why)
        assert why.endswith(FREE_SOME_SPACE)
        ballast.unlink()
        daemon.wait_for_event("ingest.resumed")
        truth = shift.end()
        assert truth.position is not None
        ground.wait_for_position(daemon, truth.position)
    assert ground.damage(truth).found() == []


def fill(path: Path) -> None:
    """Leave no room on the filesystem of `path`."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def test_a_disk_that_turns_read_only_stops_it_and_after_the_repair_it_goes_on(disk: Disk, ground: Ground, shift: Shift) -> None:
    with ground.daemon() as daemon:
        shift.publish(100)
        daemon.wait_for_event("ingest.batch")
        disk.fail()
        shift.publish(100)
        error = stopped_by_itself(daemon)
    assert re.search(r"Read-only file system|attempt to write a readonly database|Input/output error|disk I/O error", error), error
    assert error.endswith(CHECK_THE_DISK)
    assert "daemon.lock cannot be written: Read-only file system. Check the disk" in refused(ground)
    disk.repair()
    nothing_is_lost(ground, shift)


def test_a_disk_that_is_unmounted_under_it_stops_it_and_is_asked_for_at_the_next_start(disk: Disk, ground: Ground, shift: Shift) -> None:
    with ground.daemon() as daemon:
        shift.publish(100)
        daemon.wait_for_event("ingest.batch")
        disk.unmount()
        shift.publish(100)
        error = stopped_by_itself(daemon)
    assert "No such file or directory" in error
    assert "Is its disk mounted?" in refused(ground)
    assert list(ground.root.iterdir()) == [], "an empty mount point must stay empty"
    disk.mount()
    nothing_is_lost(ground, shift)


def test_a_disk_that_answers_nothing_but_errors_stops_it(disk: Disk, ground: Ground, shift: Shift) -> None:
    with ground.daemon() as daemon:
        shift.publish(100)
        daemon.wait_for_event("ingest.batch")
        disk.cut_power()
        shift.publish(100)
        assert stopped_by_itself(daemon).endswith(CHECK_THE_DISK)
    disk.restore_power()
    nothing_is_lost(ground, shift)


def test_a_power_cut_at_any_moment_loses_nothing(disk: Disk, ground: Ground, shift: Shift) -> None:
    """What was written and not synced is gone afterwards, as a `kill -9` alone never shows."""
    chance = random.Random(31)
    disk.sync()  # classes.json is the operator's
    for _ in range(12):
        with ground.daemon() as daemon:
            shift.publish(60)
            daemon.wait_for_event("ingest.batch")
            time.sleep(chance.uniform(0, 0.1))
            disk.cut_power()
            daemon.kill()
            daemon.process.returncode = 0  # as intended
        disk.restore_power()
    nothing_is_lost(ground, shift)
