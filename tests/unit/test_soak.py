"""What the soak makes of its samples, and who may act when: without a daemon."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from azaion_daemon.sandbox.annotations import Author, Role
from azaion_daemon.stream.events import Status
from tests.benchmarks._soak_end import events
from tests.benchmarks._soak_figures import Findings, beyond_first_half, growth, leaked, more_descriptors, quiet_windows, targets
from tests.benchmarks._soak_roles import wild
from tests.benchmarks._soak_samples import Sample
from tests.benchmarks._soak_stage import Role as Part
from tests.benchmarks._soak_stage import Stage
from tests.faults.story import Act, Story, Truth

MB = 1_000_000


def sample(at: float, *, rss: float = 60, quiet: bool = False, sockets: int = 2, tasks: int | None = 12, threads: int = 9) -> Sample:
    memory = round(rss * MB)
    return Sample(at, quiet, memory, memory, memory, {"socket": sockets, "pipe": 1}, threads, 0, 0, tasks, 0.001, 1, 0, {})


def hour(rss: Callable[[float], float] = lambda _: 60, **later: int) -> list[Sample]:
    """An hour in steps of ten seconds, with quiet moments at its sixth and its last minute; in the last one something is otherwise."""
    quiet = {minute: later if minute == 59 else {} for minute in (12, 59)}
    return [sample(at, rss=rss(at), quiet=at // 60 in quiet, **quiet.get(at // 60, {})) for at in range(0, 3600, 10)]


def test_growth_is_that_of_the_line_through_the_medians_of_windows() -> None:
    chance = random.Random(1)
    grown = growth([(at, 100 + at / 100 + chance.uniform(-1, 1)) for at in range(0, 1001, 5)], since=0)
    assert grown is not None
    assert grown.first == pytest.approx(100, abs=0.5)
    assert grown.last == pytest.approx(110, abs=0.5)
    assert grown.percent == pytest.approx(10, abs=0.7)


def test_what_is_there_for_a_moment_is_no_growth() -> None:
    spiky = [(at, 500.0 if at % 50 == 0 or at > 2900 else 100.0) for at in range(0, 3001, 10)]
    grown = growth(spiky, since=0)
    assert grown is not None
    assert grown.percent == pytest.approx(0, abs=0.01)


def test_growth_before_the_warm_up_is_over_does_not_count() -> None:
    warming = [(at, min(at, 600.0)) for at in range(0, 3601, 10)]
    grown = growth(warming, since=600)
    assert grown is not None
    assert grown.percent == 0
    assert growth(warming, since=3595) is None


def test_a_leak_is_what_the_last_quiet_moment_has_more_than_the_first_after_the_warm_up() -> None:
    windows = quiet_windows(hour(sockets=5, tasks=13), since=600)
    assert [len(window) for window in windows] == [6, 6]
    assert leaked(windows, lambda one: one.tasks) == 1
    assert leaked(windows, lambda one: one.threads) == 0
    assert more_descriptors(windows) == {"socket": 3}
    assert leaked(windows[:1], lambda one: one.tasks) is None
    assert leaked(quiet_windows(hour(threads=7), since=600), lambda one: one.threads) == 0


def test_threads_of_a_pool_that_fills_up_are_told_from_threads_that_stay_behind() -> None:
    assert beyond_first_half([9, 10, 11, 11, 11]) == 0
    assert beyond_first_half([9, 10, 11, 12, 13]) == 2
    assert beyond_first_half([9, 8]) == 0
    assert beyond_first_half([9]) is None


def test_a_soak_that_grew_and_leaked_nothing_meets_every_target() -> None:
    judged = targets(hour(), 600, Findings())
    assert all(target.ok for target in judged)
    assert {target.name for target in judged} >= {"memory_growth_percent", "descriptors_leaked", "tasks_leaked", "lost", "doubled"}


@pytest.mark.parametrize(
    ("samples", "findings", "missed"),
    [
        (hour(lambda at: 60 + at / 600), Findings(), "memory_growth_percent"),
        (hour(sockets=3), Findings(), "descriptors_leaked"),
        (hour(tasks=13), Findings(), "tasks_leaked"),
        (hour(), Findings(lost=("file a.jpg",)), "lost"),
        (hour(), Findings(doubled=("row a",)), "doubled"),
        (hour(), Findings(unsettled=("job 1 is running",)), "unsettled"),
    ],
)
def test_each_fault_misses_its_target_and_no_other(samples: list[Sample], findings: Findings, missed: str) -> None:
    assert [target.name for target in targets(samples, 600, findings) if not target.ok] == [missed]


def test_what_could_not_be_measured_is_missed() -> None:
    missed = {target.name for target in targets([], 600, Findings()) if not target.ok}
    assert missed == {"memory_growth_percent", "descriptors_leaked", "tasks_leaked", "threads_leaked"}


def test_what_must_be_there_follows_from_the_stream_whatever_came_twice() -> None:
    story = Story(3)
    acts = story.take(300)
    once, twice = Truth(story.images), Truth(story.images)
    for offset, act in enumerate(acts):
        once.hear(offset, act)
    created = next(act for act in acts if act.status is Status.CREATED)
    for offset, act in enumerate([created, *acts]):
        twice.hear(offset, act)
    assert once.tree() == twice.tree()
    names = tuple(once.annotations)
    once.hear(300, Act(Author("v@example.org", Role.VALIDATOR).validated(names), Status.VALIDATED, names))
    assert not [name for name, one in once.annotations.items() if one.home == "seed"]


def test_configurations_of_a_soak_follow_from_its_seed() -> None:
    assert wild(random.Random(1)) == wild(random.Random(1))
    assert wild(random.Random(1)) != wild(random.Random(2))


def test_in_an_intermission_nobody_acts() -> None:
    stage = Stage(1, pace=0.0)
    acted, again = threading.Event(), threading.Event()

    def act(_: random.Random) -> str:
        (again if acted.is_set() else acted).set()
        return "act"

    with stage.playing([Part("actor", act, (0.001, 0.001))]):
        assert again.wait(30)
        stage.pause()
        while stage.acting():
            pass
        count = stage.done["actor: act"]
        again.clear()
        assert not again.wait(0.05)
        assert stage.done["actor: act"] == count
        stage.resume()
        assert again.wait(30)


def test_an_act_that_fails_is_noted_and_the_others_go_on() -> None:
    stage = Stage(1, pace=0.0)
    went_on = threading.Event()

    def fail(_: random.Random) -> str:
        raise RuntimeError("it is broken")

    def go_on(_: random.Random) -> None:
        if stage.errors:
            went_on.set()

    with stage.playing([Part("bad", fail, (0.001, 0.001)), Part("good", go_on, (0.001, 0.001))]):
        assert went_on.wait(30)
    assert "bad: " in stage.errors[0]
    assert "it is broken" in stage.errors[0]


def test_what_a_log_says_is_counted_by_level_and_event(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.write_text('{"level": "info", "event": "a"}\n{"level": "info", "event": "a"}\n{"level": "debug", "event": "b"}\nTraceback\n')
    assert events(log) == {"info a": 2, "not JSON": 1}
