"""Any interleaving of events against a simple model, and any crash against a run without one."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from azaion_daemon.ingest import tree as tree_module
from azaion_daemon.ingest.rules import apply_annotation, apply_deleted, apply_validated
from azaion_daemon.ingest.staging import StagedMessage, Stager, in_portions
from azaion_daemon.ingest.tree import Tree
from azaion_daemon.ingest.writer import Plan, Writer
from azaion_daemon.sections import IngestSettings
from azaion_daemon.store.layout import Home
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.store.records import Annotation
from azaion_daemon.stream.events import AnnotationEvent, RawMessage, Role, Status
from tests.model import Model
from tests.unit.builders import CLASSES, boxes, bulk, created, debris_of, edited, event, make_root, staged, tree_of

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # a crash closes nothing

NAMES = st.sampled_from(["a", "b", "c"])
IMAGES = st.sampled_from([None, 0, 1, 2])
EXTENSIONS = st.sampled_from(["jpg", "png"])
ROLES = st.sampled_from([Role.OPERATOR, Role.VALIDATOR, Role.COMPANION_PC, Role.API_ADMIN, 77])
LABELS = st.sampled_from(["", "1 0.5 0.5 0.1 0.1\n", "2 0.5 0.5 0.2 0.2\n", "77 0.5 0.5 0.1 0.1\n"])
BULK = st.lists(st.sampled_from(["a", "b", "c", "unknown"]), min_size=1, max_size=4, unique=True)


# The rules against a model


class RulesAgainstTheModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, Annotation | None] = {}
        self.models: dict[str, Model] = {}
        self.sent: list[tuple[AnnotationEvent, int | None]] = []
        self.position = 0

    def _apply(self, this: AnnotationEvent, image: int | None) -> bool:
        change = apply_annotation(
            self.rows.get(this.name), this, None if image is None else staged(image), known_classes=CLASSES, now=float(self.position)
        )
        self.rows[this.name] = change.row
        return change.ignored is None

    @rule(status=st.sampled_from([Status.CREATED, Status.EDITED]), name=NAMES, role=ROLES, label=LABELS, image=IMAGES)
    def annotate(self, status: Status, name: str, role: int, label: str, image: int | None) -> None:
        self.position += 1
        this = event(status, name=name, role=role, label=label, position=self.position)
        assert self._apply(this, image)
        self.models.setdefault(name, Model()).annotate(status, role, label, image)
        self.sent.append((this, image))

    @precondition(lambda self: self.sent and self.sent[-1][0].status is Status.CREATED)
    @rule()
    def repeat_at_once(self) -> None:
        self.position += 1
        this, image = self.sent[-1]
        assert not self._apply(replace(this, position=self.position), image)

    @precondition(lambda self: any(this.status is Status.CREATED for this, _ in self.sent))
    @rule(data=st.data())
    def repeat_late(self, data: st.DataObject) -> None:
        self.position += 1
        this, image = data.draw(st.sampled_from([sent for sent in self.sent if sent[0].status is Status.CREATED]))
        assert not self._apply(replace(this, position=self.position), image)

    @rule(names=BULK)
    def validate(self, names: list[str]) -> None:
        self._bulk(names, apply_validated, Model.validate)

    @rule(names=BULK)
    def delete(self, names: list[str]) -> None:
        self._bulk(names, apply_deleted, Model.delete)

    def _bulk(self, names: list[str], apply: Callable[..., Any], model: Callable[[Model], None]) -> None:
        self.position += 1
        for name in names:
            self.rows[name] = apply(self.rows.get(name), self.position, known_classes=CLASSES, now=float(self.position)).row
            if name in self.models:
                model(self.models[name])

    @invariant()
    def agree(self) -> None:
        found = {
            name: Model(row.home, row.label, row.pending, _image_number(row.image), row.image_conflict)
            for name, row in self.rows.items()
            if row is not None
        }
        assert found == self.models

    @invariant()
    def every_row_is_consistent(self) -> None:
        for row in self.rows.values():
            if row is not None:
                assert row.image_missing is (row.image is None)
                assert not (row.home is Home.SEED and row.pending is not None)
                assert row.dirty == row.position <= self.position


def _image_number(sha256: str | None) -> int | None:
    return None if sha256 is None else next(number for number in range(3) if staged(number).sha256 == sha256)


# The disk against a run without a crash


class Crash(BaseException):
    """The process dies here."""


@contextmanager
def crash_after_lines(count: int, module: Any) -> Iterator[None]:
    """Raise `Crash` instead of running the line of `module` that comes after so many others."""
    left = count

    def trace(frame: FrameType, happening: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != module.__file__:
            return None
        if happening == "line":
            if left == 0:
                raise Crash
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


class World:
    """One root with the parts that write to it; `crash` forgets the parts and keeps the disk."""

    stream = "s"
    settings = IngestSettings()

    def __init__(self, root: Path) -> None:
        self.layout = make_root(root)
        self._open()

    def _open(self) -> None:
        self.ledger = Ledger(self.layout.ledger, clock=lambda: 0.0)
        self.writer = Writer(self.stream, self.ledger, self.layout, clock=lambda: 0.0)
        self.stager = Stager(self.stream, self.layout.incoming, Quarantine(self.layout.quarantine), clock=lambda: 0.0)
        self.tree = Tree(self.layout)
        self.placed_to: int | None = None

    def close(self) -> None:
        for part in (self.stager, self.writer, self.ledger):
            part.close()

    def crash_and_recover(self) -> None:
        self.close()
        self._open()
        _, lost = self.writer.recover()
        assert lost == []

    def next_offset(self) -> int:
        position = self.ledger.position(self.stream)
        return 0 if position is None else position.offset + 1

    def stage(self, batch: Sequence[RawMessage]) -> list[StagedMessage]:
        staged_batch = self.stager.stage(batch, self.settings)
        self.stager.sync()
        return staged_batch

    def run(self, batch: Sequence[RawMessage]) -> None:
        plan = self.writer.commit(self.stage(batch), CLASSES)
        assert self.ledger.annotations([*plan.rows]) == plan.rows
        self.place(plan)

    def place(self, plan: Plan) -> None:
        assert self.writer.place(plan.rows.values()) == []
        self.writer.finish(plan.staged)
        if plan.position is not None:
            self.placed_to = plan.position.position

    def replay(self, message: RawMessage, *, as_new: bool, crash: bool) -> None:
        again = self.stager.stage_again(message, self.settings)
        if again.decoded.event is None:
            return
        replayed = self.writer.replay(again, CLASSES, as_new=as_new, since=0.0)
        if crash:
            self.crash_and_recover()
            return
        assert self.writer.place(replayed.rows.values()) == []
        self.writer.finish([] if again.image is None else [again.image.file])
        self.placed_to = max([self.placed_to or 0, *(row.position for row in replayed.rows.values())])

    def sync(self) -> None:
        self.writer.sync()
        if self.placed_to is not None:
            self.ledger.clear_dirty(self.placed_to)

    def rows(self) -> list[Annotation]:
        """All rows without what only says how far the tree is."""
        found = [row for home in Home for row in self.ledger.in_home(home)]
        return [row._replace(dirty=None, staged=None, stale_extensions="") for row in found]


class CrashesAgainstAnUninterruptedRun(RuleBasedStateMachine):
    """Every message of the stream is in `messages`; `world` has seen those below its ledger's position, with crashes, `model` without."""

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.world, self.model = World(directory / "crashing"), World(directory / "straight")
        self.stack.callback(self.world.close)
        self.stack.callback(self.model.close)
        self.messages: list[RawMessage] = []

    def _send(self, make: Callable[[int], RawMessage]) -> None:
        self.messages.append(make(len(self.messages)))

    @rule(name=NAMES, role=ROLES, image=IMAGES, class_id=st.integers(0, 3), extension=EXTENSIONS)
    def send_created(self, name: str, role: int, image: int | None, class_id: int, extension: str) -> None:
        self._send(lambda offset: created(offset, name, image, role=role, detections=boxes(class_id), extension=extension))

    @rule(name=NAMES, role=ROLES, class_id=st.integers(0, 3))
    def send_edited(self, name: str, role: int, class_id: int) -> None:
        self._send(lambda offset: edited(offset, name, role=role, detections=boxes(class_id)))

    @rule(status=st.sampled_from([Status.VALIDATED, Status.DELETED]), names=BULK)
    def send_bulk(self, status: Status, names: list[str]) -> None:
        self._send(lambda offset: bulk(offset, status, names))

    @rule()
    def send_nonsense(self) -> None:
        self._send(lambda offset: RawMessage(offset, b"nonsense"))

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from(self.messages))
        self._send(lambda offset: RawMessage(offset, sent.data))

    def _waiting(self) -> list[RawMessage]:
        return self.messages[self.world.next_offset() :]

    @precondition(lambda self: self._waiting())
    @rule(size=st.integers(1, 6))
    def work(self, size: int) -> None:
        self.world.run(self._waiting()[:size])

    @rule()
    def sync(self) -> None:
        self.world.sync()

    @rule()
    def crash_at_rest(self) -> None:
        self.world.crash_and_recover()

    @precondition(lambda self: self._waiting())
    @rule(size=st.integers(1, 6))
    def crash_after_staging(self, size: int) -> None:
        self.world.stage(self._waiting()[:size])
        self.world.crash_and_recover()

    @precondition(lambda self: self._waiting())
    @rule(size=st.integers(1, 6))
    def crash_after_commit(self, size: int) -> None:
        self.world.writer.commit(self.world.stage(self._waiting()[:size]), CLASSES)
        self.world.crash_and_recover()

    @precondition(lambda self: self._waiting())
    @rule(size=st.integers(1, 6), lines=st.integers(0, 120))
    def crash_while_placing(self, size: int, lines: int) -> None:
        plan = self.world.writer.commit(self.world.stage(self._waiting()[:size]), CLASSES)
        with suppress(Crash), crash_after_lines(lines, tree_module):
            self.world.tree.place_all(plan.rows.values())
        self.world.crash_and_recover()

    @precondition(lambda self: self._waiting())
    @rule(size=st.integers(1, 6), lines=st.integers(0, 120))
    def crash_while_recovering(self, size: int, lines: int) -> None:
        self.world.writer.commit(self.world.stage(self._waiting()[:size]), CLASSES)
        with suppress(Crash), crash_after_lines(lines, tree_module):
            self.world.writer.recover()
        self.world.crash_and_recover()

    @precondition(lambda self: len(self._waiting()) > 1)
    @rule(size=st.integers(1, 3), lines=st.integers(0, 120) | st.none())
    def commit_ahead_of_placing(self, size: int, lines: int | None) -> None:
        """A batch is committed while the one before it is placed; with `lines`, nothing more than so many lines of placing are run."""
        world, waiting = self.world, self._waiting()
        parts = [world.stage(part) for part in (waiting[:size], waiting[size : 2 * size]) if part]
        plans = [world.writer.commit(part, CLASSES) for part in parts]
        if lines is None:
            for plan in plans:
                world.place(plan)
            return
        with suppress(Crash), crash_after_lines(lines, tree_module):
            for plan in plans:
                world.place(plan)
        world.crash_and_recover()

    @precondition(lambda self: self._waiting())
    @rule(size=st.integers(1, 6), max_names=st.integers(1, 3), crash_after=st.integers(1, 4))
    def crash_in_the_middle_of_a_long_bulk_message(self, size: int, max_names: int, crash_after: int) -> None:
        """The message comes again whole: its position is committed with its last part."""
        world, batch = self.world, self._waiting()[:size]
        end = batch[-1].offset + 1
        for portion in [*in_portions(world.stage(batch), max_names=max_names)][:crash_after]:
            world.place(world.writer.commit(portion, CLASSES))
            world.sync()
        world.crash_and_recover()
        if rest := [message for message in batch if message.offset >= world.next_offset()]:
            world.run(rest)
        assert world.next_offset() == end

    @precondition(lambda self: self.world.next_offset())
    @rule(data=st.data(), as_new=st.booleans(), crash=st.booleans())
    def replay_from_the_quarantine(self, data: st.DataObject, *, as_new: bool, crash: bool) -> None:
        message = data.draw(st.sampled_from(self.messages[: self.world.next_offset()]))
        self.world.replay(message, as_new=as_new, crash=crash)
        self.model.replay(message, as_new=as_new, crash=False)

    @precondition(lambda self: self._waiting())
    @rule(size=st.integers(1, 6))
    def crash_before_the_marks_are_cleared(self, size: int) -> None:
        self.world.run(self._waiting()[:size])
        self.world.writer.sync()
        self.world.crash_and_recover()

    @invariant()
    def same_as_without_a_crash(self) -> None:
        if not hasattr(self, "world"):
            return
        for message in self.messages[self.model.next_offset() : self.world.next_offset()]:
            self.model.run([message])
        assert self.world.rows() == self.model.rows()
        assert tree_of(self.world.layout) == tree_of(self.model.layout)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            with self.stack:
                self.world.crash_and_recover()
                self.same_as_without_a_crash()
                assert debris_of(self.world.layout) == []
                assert self.world.ledger.dirty() == []


TestRulesAgainstTheModel = RulesAgainstTheModel.TestCase
TestRulesAgainstTheModel.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestCrashesAgainstAnUninterruptedRun = CrashesAgainstAnUninterruptedRun.TestCase
TestCrashesAgainstAnUninterruptedRun.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking runs on real disks take minutes
)
