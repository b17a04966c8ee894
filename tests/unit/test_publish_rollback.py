"""Which release is gone back to, and what the ledger makes of serial numbers that are out of the ordinary."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from azaion_daemon.errors import OperatorError
from azaion_daemon.publish.rollback import published_release, release_before
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Model, Release, ReleaseState


def releases(*models: str, states: dict[int, ReleaseState] | None = None) -> list[Release]:
    """One release a letter, published unless it is said otherwise."""
    return [Release(serial, model, (states or {}).get(serial, "published"), 1.0, 1.0) for serial, model in enumerate(models, 1)]


@pytest.mark.parametrize(
    ("models", "before"),
    [
        ("AB", 1),
        ("ABC", 2),
        ("ABCB", 1),  # C was rolled back from; once more leads to A
        ("ABCBD", 4),
        ("ABB", 1),  # published once more, as a repair
        ("ABCA", None),
    ],
)
def test_rolling_back_twice_leads_further_back(models: str, before: int | None) -> None:
    if before is None:
        with pytest.raises(OperatorError, match="there is none before it"):
            release_before(releases(*models))
    else:
        assert release_before(releases(*models)).serial == before


def test_a_model_that_still_waits_is_taken_back_for_the_last_that_was_published() -> None:
    assert release_before(releases("A", "B", "C", states={3: "waiting"})).serial == 2
    assert release_before(releases("A", "B", "A", states={3: "waiting"})).serial == 1  # a rollback that waits: further back


def test_what_waits_or_never_was_published_does_not_count() -> None:
    waiting = releases("A", "B", "C", "D", states={2: "superseded", 4: "waiting"})
    assert release_before(waiting).serial == 3
    assert release_before(waiting[:3]).serial == 1
    with pytest.raises(OperatorError, match="Published are: 1, 3"):
        published_release(waiting, 2)
    with pytest.raises(OperatorError, match="nothing was published yet"):
        release_before(releases("A", states={1: "waiting"}))


def model(sha256: str, *, current: bool = False) -> Model:
    return Model(sha256, None, None, {}, f"{sha256}.onnx", current=current, created=1.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    Ledger.create(tmp_path / "ledger.db")
    with closing(Ledger(tmp_path / "ledger.db", clock=lambda: 9.0)) as opened:
        opened.put_model(model("A"))
        opened.put_model(model("B", current=True))
        for letter in "AB":
            opened.update_release(opened.add_release(letter).serial, "published")
        yield opened


def shown(ledger: Ledger) -> list[tuple[int, str, str]]:
    return [(release.serial, release.model_sha256, release.state) for release in ledger.releases()]


def audit(tmp_path: Path) -> list[tuple[str, str, str, str]]:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        return db.execute("SELECT subject, action, actor, why FROM audit ORDER BY id").fetchall()


def test_a_rollback_is_a_new_release_and_supersedes_what_waits(ledger: Ledger, tmp_path: Path) -> None:
    ledger.put_current_model(model("C", current=True))
    ledger.add_release("C")
    release = ledger.serials.roll_back(ledger.releases()[0], "it sees boats that are not there")
    assert release.serial == 4
    assert shown(ledger)[2:] == [(3, "C", "superseded"), (4, "A", "waiting")]
    assert [one.sha256 for one in ledger.models() if one.current] == ["A"]
    why = "back to release 1: it sees boats that are not there"
    assert audit(tmp_path)[-3:] == [
        ("release 3", "superseded", "operator", why),
        ("model A", "current", "operator", why),
        ("release 4", "waiting", "operator", why),
    ]


def test_a_rollback_that_is_carried_out_again_after_a_crash_is_the_same_as_once(ledger: Ledger) -> None:
    again = ledger.releases()[0]
    assert ledger.serials.roll_back(again, "r") == ledger.serials.roll_back(again, "r")
    assert shown(ledger) == [(1, "A", "published"), (2, "B", "published"), (3, "A", "waiting")]


def test_the_present_one_can_be_published_again_as_a_repair(ledger: Ledger) -> None:
    ledger.serials.roll_back(ledger.releases()[1], "somebody has overwritten it")
    assert shown(ledger)[-1] == (3, "B", "waiting")


def test_a_waiting_release_is_raised_above_what_was_published_elsewhere(ledger: Ledger, tmp_path: Path) -> None:
    waiting = ledger.add_release("C")
    assert ledger.serials.raise_above(waiting.serial, 41, "the manifest says so") == 42
    assert shown(ledger)[-1] == (42, "C", "waiting")
    assert audit(tmp_path)[-1] == ("release 3", "raised to 42", "daemon", "the manifest says so")
    assert ledger.add_release("D").serial == 43


def test_it_is_raised_above_what_the_ledger_knows_too(ledger: Ledger) -> None:
    assert ledger.serials.raise_above(ledger.add_release("C").serial, 1, "w") == 4
