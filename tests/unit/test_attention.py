"""What needs an operator: said once, worst first, with what to do; and nothing when all is well."""

from typing import Any

import pytest

from azaion_daemon.health import Vitals
from azaion_daemon.ops.attention import Attention, Level, attention
from tests.unit.test_status_view import DOCUMENT, NOW

WELL = {
    **DOCUMENT,
    "releases": [],
    "config": {"path": "/c", "model_key": True, "last_reload": {"ok": True}, "file_problem": None},
    "health": {"ok": True, "ailing": []},
}


def found(**changes: Any) -> list[Attention]:
    return attention({**WELL, **changes}, NOW)


def test_nothing_is_said_when_all_is_well() -> None:
    assert found() == []


def ailing() -> dict[str, Any]:
    """What the daemon says of a part that hangs."""
    now = 0.0
    vitals = Vitals(clock=lambda: now)
    with vitals.thread("keep").doing("removing", limit_s=600):
        now = 700.0
        return vitals.document()


STREAM = WELL["stream"]
CASES: list[tuple[dict[str, Any], Level, str, str]] = [
    ({"state": "stopped", "process": {"ended": "crashed"}}, Level.BROKEN, "killed or crashed", "journalctl"),
    ({"state": "stopped", "process": {"ended": "in order"}}, Level.BROKEN, "was stopped", "systemctl start"),
    ({"state": "stopped", "ended_by": "Another stream.\n See it."}, Level.BROKEN, "because of: Another stream.; See it", "Mend"),
    ({"process": {"running": True, "silent_s": 31.0}}, Level.BROKEN, "has not written its status for 31 s: it hangs", "restart"),
    ({"process": {"problem": "It is damaged. Look at the disk."}}, Level.BROKEN, "It is damaged", "Look at the disk"),
    ({"process": {"problem": "The daemon has never run on this root."}}, Level.NOTE, "never run", "systemctl start"),
    ({"config": {"last_reload": {"ok": False, "error": "no:\n  a.b: bad"}}}, Level.BROKEN, "is in force: no: a.b: bad", "config check"),
    ({"config": {"file_problem": "no"}}, Level.BROKEN, "a reload or start would fail: no", "config check"),
    ({"config": {"last_reload": {"ok": True, "restart_required": ["log.format"]}}}, Level.WARNING, "for a restart: log.format", "restart"),
    ({"config": {"model_key": False}}, Level.WARNING, "no model key", "AZAION_MODEL_KEY"),
    ({"health": ailing()}, Level.BROKEN, "the part keep has not got on for 11 min 40 s; it is at: removing", "dmesg"),
    ({"stream": {**STREAM, "paused": "the disk is full"}}, Level.BROKEN, "nothing is taken from the stream", "space"),
    ({"stream": {"connected": False, "not_connected_s": 121.0, "why": "x"}}, Level.BROKEN, "no connection to the broker", "--only broker"),
    ({"stream": {**STREAM, "behind_s": 3700.0}}, Level.WARNING, "behind the annotators", ""),
    ({"log": {"lost_lines": 1200}}, Level.NOTE, "1,200 lines of the log were lost", "journald"),
    ({"annotations": {"quarantined": 1}}, Level.NOTE, "1 message is in quarantine", "quarantine list"),
    ({"disk": {"pressure": "high", "used_percent": 81.0}}, Level.WARNING, "81.0% full", "room"),
    ({"disk": {"pressure": "critical", "inodes_free": 5, "inodes_total": 100}}, Level.BROKEN, "5 more files fit", "room"),
    ({"gpus_problem": "The driver does not answer. Look at nvidia-smi."}, Level.BROKEN, "The driver does not answer", "Look at nvidia-smi"),
    ({"gpus": [{"index": 1, "faults": ["it is divided (MIG): end that"]}]}, Level.BROKEN, "GPU 1 is not used: it is divided", "end that"),
    ({"training": {"jobs": [{"id": "J", "state": "held"}]}}, Level.WARNING, "the model of job J is held", "model promote J"),
    ({"releases": [{"serial": 3, "state": "waiting", "why": "no."}]}, Level.WARNING, "release 3 waits: no", "--only publishing"),
    ({"api": {"login_refused": True}, "releases": [{"serial": 3, "state": "waiting", "why": "no."}]}, Level.WARNING, "the login", ".env"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "level", "what", "do"), CASES)
def test_each_thing_that_needs_somebody_is_named_with_what_to_do(changes: dict[str, Any], level: Level, what: str, do: str) -> None:
    (one,) = found(**changes)
    assert (one.level, what in one.what, do in one.do) == (level, True, True), one
    assert one.do


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": {"connected": False, "not_connected_s": 60.0}},  # it may come back in a moment
        {"releases": [{"serial": 3, "state": "waiting", "why": "no", "under_way": True}]},
        {"training": {"jobs": [{"id": "T", "state": "failed", "trial": True}]}},
        {"training": {"jobs": [{"id": "A", "state": "failed"}, {"id": "B", "state": "released"}]}},
    ],
)
def test_what_passes_by_itself_or_is_over_needs_nobody(changes: dict[str, Any]) -> None:
    assert found(**changes) == []


def test_the_last_failure_since_a_good_training_is_named_and_the_others_are_counted() -> None:
    jobs = [
        {"id": name, "state": state, "why": f"{name}."}
        for name, state in (("A", "failed"), ("B", "released"), ("C", "failed"), ("D", "failed"))
    ]
    (one,) = found(training={"jobs": jobs})
    assert one.what == "training D failed (2 since the last good one): D"


def test_a_release_that_waits_for_the_missing_key_is_said_once() -> None:
    (one,) = found(config={"model_key": False}, releases=[{"serial": 3, "state": "waiting", "why": "AZAION_MODEL_KEY is not set"}])
    assert "no model key" in one.what


def test_a_stopped_daemon_is_not_blamed_for_the_connection_that_it_has_not() -> None:
    (one,) = found(state="stopped", stream={"connected": False, "not_connected_s": 900.0, "paused": "full", "behind_s": 9e9})
    assert "was stopped" in one.what


def test_the_worst_comes_first() -> None:
    levels = [one.level for one in found(**{key: value for changes, *_ in CASES for key, value in changes.items()})]
    assert levels == sorted(levels, key=list(Level).index)
    assert len(levels) > 5


@pytest.mark.parametrize("strange", [None, 7, "word", [], ["word", None], {}, {"jobs": "many", "pressure": 3, "ailing": 1}])
def test_words_of_another_version_are_passed_over(strange: Any) -> None:
    for key in WELL:
        attention({**WELL, key: strange}, NOW)
