"""Killed at every step of a commit, of the recovery and of a replay, the daemon leaves what an uninterrupted run leaves."""

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from azaion_daemon.ops.requests import ask
from azaion_daemon.sandbox.annotations import Dialect, Message
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.scenario import OPERATOR, VALIDATOR
from azaion_daemon.sandbox.scenes import Box, Scene, draw_scene
from azaion_daemon.store.layout import Layout
from tests.faults.ground import Ground, heard
from tests.faults.launcher import Fault
from tests.faults.story import Story, Truth
from tests.harness import label_text

pytestmark = pytest.mark.timeout(480)

WORK = (
    Fault("image-write.before"),
    Fault("image-write.half", hit=3),
    Fault("sync-incoming.before"),
    Fault("sync-incoming.after"),
    Fault("begin.before"),
    Fault("commit-batch.before"),
    Fault("commit-batch.after"),
    Fault("place.before"),
    Fault("label-write.before"),
    Fault("label-write.half", hit=2),
    Fault("label-link.before"),
    Fault("label-link.after"),
    Fault("label-seed.before"),
    Fault("label-seed.after", hit=3),
    Fault("label-validated.before"),
    Fault("label-validated.after", hit=3),
    Fault("label-deleted.before"),
    Fault("label-deleted.after"),
    Fault("label-pending.before"),
    Fault("label-pending.after"),
    Fault("image-place.before", hit=2),
    Fault("image-place.after"),
    Fault("image-move.before"),
    Fault("image-move.after", hit=2),
    Fault("image-remove.before"),
    Fault("image-remove.after"),
    Fault("label-remove.before"),
    Fault("label-remove.after"),
    Fault("incoming-remove-image.before"),
    Fault("incoming-remove-image.after"),
    Fault("sync-tree.before"),
    Fault("sync-tree.after"),
    Fault("commit-clear.before"),
    Fault("commit-clear.after"),
    Fault("quarantine-write.before"),
    Fault("quarantine-write.half"),
    Fault("quarantine-fsync.before"),
    Fault("quarantine-amqp.before"),
    Fault("quarantine-amqp.after"),
    Fault("quarantine-json.before"),
    Fault("quarantine-json.after"),
)
RECOVERY = (
    Fault("begin.before"),
    Fault("place.before"),
    Fault("label-write.half"),
    Fault("label-link.after"),
    Fault("label-seed.after"),
    Fault("label-validated.before"),
    Fault("label-validated.after", hit=2),
    Fault("label-deleted.after"),
    Fault("label-pending.after"),
    Fault("image-place.before"),
    Fault("image-place.after", hit=2),
    Fault("image-move.before"),
    Fault("image-move.after"),
    Fault("label-remove.after"),
    Fault("sync-tree.before"),
    Fault("sync-tree.after"),
    Fault("commit-clear.before"),
    Fault("commit-clear.after"),
    Fault("incoming-remove-image.before"),
    Fault("incoming-remove-image.after"),
)
RECOVERY_AFTER = (
    (Fault("quarantine-remove-tmp.before"), Fault("work.quarantine-write.half")),
    (Fault("quarantine-remove-tmp.after"), Fault("work.quarantine-write.half")),
    (Fault("quarantine-remove-amqp.before"), Fault("work.quarantine-amqp.after")),
    (Fault("quarantine-remove-amqp.after"), Fault("work.quarantine-amqp.after")),
    (Fault("image-remove.before"), Fault("work.image-remove.before")),
    (Fault("image-remove.after"), Fault("work.image-remove.before")),
    (Fault("incoming-remove-txt.before"), Fault("work.label-write.half")),
    (Fault("incoming-remove-txt.after"), Fault("work.label-write.half")),
)
"""Points that are only reached after a kill of their own."""
REPLAY = (
    Fault("image-write.half"),
    Fault("sync-incoming.before"),
    Fault("sync-incoming.after"),
    Fault("begin.before"),
    Fault("commit-batch.before"),
    Fault("commit-batch.after"),
    Fault("place.before"),
    Fault("label-write.half"),
    Fault("label-validated.after"),
    Fault("image-place.before"),
    Fault("image-place.after"),
    Fault("quarantine-fsync.before"),
    Fault("quarantine-remove-json.before"),
    Fault("quarantine-remove-json.after"),
    Fault("quarantine-remove-amqp.before"),
    Fault("quarantine-remove-amqp.after"),
)
BEFORE_THE_RECOVERY = Fault("work.commit-batch.after", hit=2)


def in_phase(phase: str, fault: Fault) -> Fault:
    return replace(fault, point=f"{phase}.{fault.point}")


def kill_while_working(ground: Ground) -> None:
    for fault in WORK:
        ground.die(in_phase("work", fault))


def kill_while_recovering(ground: Ground) -> None:
    # First: a message that was quarantined whole, and comes again after a kill, leaves no half any more.
    for fault, before in RECOVERY_AFTER:
        kill_in_recovery(ground, fault, before)
    for fault in RECOVERY:
        kill_in_recovery(ground, fault, BEFORE_THE_RECOVERY)


def kill_in_recovery(ground: Ground, fault: Fault, before: Fault) -> None:
    """Killed where something is left to repair, and then in what repairs it. Some batches hold nothing for a point: then once more."""
    point = in_phase("recovery", fault)
    assert any(ground.die(point, before) == point.point for _ in range(12)), f"{point.point} was never reached"


@dataclass(frozen=True)
class Killed:
    """Three roots that have followed one stream to its end: one without a fault, the others killed at every point."""

    truth: Truth
    straight: Ground
    working: Ground
    recovering: Ground

    def grounds(self) -> tuple[Ground, ...]:
        return self.straight, self.working, self.recovering


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Killed]:
    stream = "azaion-annotations-failpoints"
    broker.create_stream(stream)
    directory = tmp_path_factory.mktemp("failpoints")
    story = Story(seed=20)
    acts = story.take(2200)
    acts.append(story.ending())
    straight, working, recovering = (Ground(directory / name, broker, stream) for name in ("straight", "working", "recovering"))
    straight.site.publish([act.message for act in acts])
    truth = heard(broker, stream, story, acts, last=acts[-1].message.body)
    assert truth.position is not None
    with ThreadPoolExecutor(2) as threads:
        for ending in [threads.submit(kill_while_working, working), threads.submit(kill_while_recovering, recovering)]:
            ending.result()
        for ending in [threads.submit(ground.finish, truth.position) for ground in (straight, working, recovering)]:
            ending.result()
    yield Killed(truth, straight, working, recovering)
    broker.delete_stream(stream)


def test_killed_at_every_point_it_leaves_what_was_meant(killed: Killed) -> None:
    assert killed.straight.damage(killed.truth).found() == []
    assert killed.working.damage(killed.truth).found() == []
    assert killed.recovering.damage(killed.truth).found() == []


def test_killed_at_every_point_its_ledger_is_that_of_an_uninterrupted_run(killed: Killed) -> None:
    assert killed.working.history() == killed.straight.history()
    assert killed.recovering.history() == killed.straight.history()


@pytest.mark.parametrize(("phase", "faults"), [("work", WORK), ("recovery", (*RECOVERY, *(fault for fault, _ in RECOVERY_AFTER)))])
def test_every_step_of_a_commit_and_of_a_recovery_has_a_point(killed: Killed, phase: str, faults: Sequence[Fault]) -> None:
    assert unlisted(phase, faults, *killed.grounds()) == set()


def unlisted(phase: str, faults: Sequence[Fault], *grounds: Ground) -> set[str]:
    """The steps that daemons went through in a phase, and that they are not killed at."""
    listed = {fault.point.rsplit(".", 1)[0] for fault in faults}
    reached = {point.split(".")[1] for ground in grounds for point in ground.reached() if point.startswith(f"{phase}.")}
    return {step for step in reached - listed if not step.endswith("-read")}


def test_recovery_and_normal_work_touch_the_tree_in_the_same_function_and_nowhere_else(killed: Killed) -> None:
    reached = {point for ground in killed.grounds() for point in ground.reached()}
    assert {"work.place.before", "recovery.place.before"} <= reached
    assert {point for point in reached if "stray" in point} == set()


@pytest.mark.parametrize("phase", ["work", "recovery"])
def test_without_the_one_function_that_places_neither_normal_work_nor_recovery_changes_the_tree(
    tmp_path: Path, broker: Broker, stream: str, phase: str
) -> None:
    ground = Ground(tmp_path, broker, stream)
    ground.site.publish([act.message for act in Story(seed=21).take(20)])
    if phase == "recovery":
        ground.die(Fault("work.commit-batch.after"))
        assert ground.position() is not None
    with ground.daemon(Fault(f"{phase}.place.before", "EIO", times=1_000_000)) as daemon:
        failed = daemon.wait_for_event("daemon.failed")
        assert daemon.process.wait(30) == os.EX_IOERR
        daemon.process.returncode = 0  # as intended
    assert "placing annotations: Input/output error" in failed["error"]
    assert ground.site.tree() == {}


# The case that breaks a design which derives the tree from the messages


DRAWN, REVISED = (Box(0, 0.5, 0.5, 0.2, 0.2),), (Box(1, 0.25, 0.25, 0.1, 0.1),)


def test_validated_then_edited_then_killed_the_validated_label_is_the_one_that_was_validated(
    tmp_path: Path, broker: Broker, stream: str
) -> None:
    ground = Ground(tmp_path, broker, stream, {"batch_delay_s": 1.0})
    scene = Scene(draw_scene(1).image_jpeg, DRAWN)
    validated, pending = ground.root / "data/labels/a.txt", ground.root / "data-seed/labels/a.txt"
    ground.site.publish([OPERATOR.created("a", scene)])
    ground.finish(0)
    ground.site.publish([VALIDATOR.validated(["a"]), OPERATOR.edited("a", REVISED)])
    ground.die(Fault("work.label-pending.after"))
    assert (validated.read_bytes(), pending.read_bytes()) == (label_text(DRAWN), label_text(REVISED))

    by_messages = tmp_path / "by-messages"
    shutil.copytree(ground.root, by_messages)
    apply_to_files_alone(by_messages)
    assert (by_messages / "data/labels/a.txt").read_bytes() == label_text(REVISED), "nobody has validated that"

    ground.finish(2)
    assert (validated.read_bytes(), pending.read_bytes()) == (label_text(DRAWN), label_text(REVISED))
    assert ground.site.tree().keys() == {"data/images/a.jpg", "data/labels/a.txt", "data-seed/labels/a.txt"}
    assert ground.debris() == []


def apply_to_files_alone(root: Path) -> None:
    """What the two messages do once more to a tree whose files are all that is known: move the label to the validated, write the edit."""
    (root / "data-seed/labels/a.txt").replace(root / "data/labels/a.txt")
    (root / "data-seed/labels/a.txt").write_bytes(label_text(REVISED))


# Replays


def test_killed_at_every_point_of_a_replay_the_message_is_applied_once_and_leaves_the_quarantine(
    tmp_path: Path, broker: Broker, stream: str
) -> None:
    ground = Ground(tmp_path, broker, stream)
    odd = replace(VALIDATOR, dialect=Dialect(extension="jfif"))
    messages: list[Message] = [odd.created(f"odd-{number}", draw_scene(number)) for number in range(len(REPLAY) + 1)]
    ground.site.publish(messages)
    ground.finish(len(messages) - 1)
    assert len(ground.quarantined()) == len(messages)
    ground.configure({"image_extensions": ["jpg", "jfif"]})
    layout = Layout(ground.root)
    for offset, fault in enumerate(REPLAY):
        assert ask(layout, "replay", {"position": offset, "as_new": False}, wait_s=0) is None
        ground.die(in_phase("replay", fault))
    ask(layout, "replay", {"position": len(REPLAY), "as_new": False}, wait_s=0)
    with ground.daemon() as daemon:
        daemon.wait_for_status(lambda _: not list(layout.requests.glob("*.json")), "every request is answered")
    beside = {"sync-tree", "commit-clear"}  # a sync that was under way when the replay was asked for
    assert unlisted("replay", REPLAY, ground) - beside == set()
    assert ground.quarantined() == {}
    assert ground.debris() == []
    names = [f"odd-{number}" for number in range(len(messages))]
    assert ground.site.tree().keys() == {f"data/{kind}" for name in names for kind in (f"images/{name}.jfif", f"labels/{name}.txt")}
    replayed = [row["subject"] for row in ground.history()["audit"] if row["action"] == "replayed"]
    assert sorted(replayed) == sorted(f"annotation {name}" for name in names)
