"""When a job is due: level-triggered on what the ledger says, with the sentence that says why."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.dataset.trigger import Decision, TriggerFacts, decide
from azaion_daemon.sections import TriggerSettings
from azaion_daemon.store.due import DueRecord, Failure, TrainingRequest
from azaion_daemon.store.records import Blame

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC).timestamp()  # a Wednesday
SETTINGS = TriggerSettings(new_annotations=100, min_total=1000, quiet_minutes=10, max_wait_hours=12, cooldown_hours=2)
NIGHTLY = SETTINGS.model_copy(update={"schedule": "0 2 * * *"})
CHANGES = "are new, changed or gone since the last training"


def facts(
    changed: int = 100, total: int = 5000, *, started: float = NOW - DAY, under_way: tuple[str, ...] = (), room: bool = False, **ledger: Any
) -> TriggerFacts:
    """What a look finds; by default enough has changed, long ago, and nothing else has ever happened."""
    record: dict[str, Any] = {
        "first_change": NOW - HOUR, "last_change": NOW - HOUR, "last_ended": None, "failure": None, "requests": (),
        "schedule_settled": None,
    }  # fmt: skip
    return TriggerFacts(DueRecord(changed, **{**record, **ledger}), total, "settings", started, under_way, room)


def failure(blame: Blame, *, changed_since: int = 0, in_a_row: int = 1, settings: str = "settings") -> Failure:
    return Failure("J", blame, "no image for valid:\nannotate more", settings, changed_since, in_a_row)


def on(facts: TriggerFacts, settings: TriggerSettings = SETTINGS, *, now: float = NOW) -> Decision:
    decision = decide(facts, settings, now)
    assert decision.why.startswith("train now because " if decision.due else "wait because ")
    assert "\n" not in decision.why
    assert decision.next_look is None or decision.next_look > now
    return decision


@pytest.mark.parametrize(
    ("found", "due", "why"),
    [
        (facts(100), True, f"100 annotations {CHANGES}, 5000 are validated, 100 changes are needed; the last change came 1 h ago"),
        (facts(5000, 9000), True, "5000 annotations are"),
        (facts(99), False, f"99 annotations {CHANGES}, 5000 are validated; 100 changes are needed"),
        (facts(1), False, "1 annotation is new, changed or gone"),
        (facts(0), False, "0 annotations are"),
        (facts(5000, 999), False, f"5000 annotations {CHANGES}, 999 are validated; 1000 must be validated at least"),
        (facts(5000, 1), False, "1 is validated"),
    ],
)
def test_the_decision_and_the_sentence_that_says_why(found: TriggerFacts, why: str, *, due: bool) -> None:
    decision = on(found)
    assert decision.due is due
    assert why in decision.why


def test_what_is_due_stays_due_until_a_job_takes_it_up() -> None:
    assert all(on(facts(changed)).due for changed in range(100, 1100))


# Quiet


def test_a_change_a_moment_ago_is_waited_out() -> None:
    decision = on(facts(last_change=NOW - 3 * MINUTE, first_change=NOW - 2 * HOUR))
    assert not decision.due
    quiet = "the last change came 2026-03-04 11:57 UTC: 10 min of quiet are waited for"
    waits = f"{quiet}, or 12 h since the first, which came 2026-03-04 10:00 UTC"
    assert decision.why.startswith(f"wait because {waits}; 100 annotations {CHANGES}")
    assert decision.next_look == NOW + 7 * MINUTE
    assert on(facts(last_change=NOW - 10 * MINUTE)).due


def test_people_on_shift_never_pause_so_the_first_change_waits_for_so_long_and_no_longer() -> None:
    busy = facts(last_change=NOW, first_change=NOW - 12 * HOUR + 1)
    assert (on(busy).due, on(busy).next_look) == (False, NOW + 1)
    assert on(facts(last_change=NOW, first_change=NOW - 12 * HOUR)).due


def test_quiet_may_be_a_fraction_of_a_minute_or_nothing() -> None:
    hasty = SETTINGS.model_copy(update={"quiet_minutes": 0.02})
    assert (on(facts(last_change=NOW - 1.0), hasty).due, on(facts(last_change=NOW - 1.3), hasty).due) == (False, True)
    assert on(facts(last_change=NOW), SETTINGS.model_copy(update={"quiet_minutes": 0})).due


def test_a_tree_that_was_there_before_the_ledger_has_been_quiet() -> None:
    decision = on(facts(first_change=None, last_change=None))
    assert decision.due
    assert "the last change came" not in decision.why


def test_after_a_start_what_came_meanwhile_is_taken_in_first() -> None:
    started = facts(started=NOW - MINUTE, last_change=NOW - DAY, first_change=NOW - 30 * DAY)
    decision = on(started)
    assert (decision.due, decision.next_look) == (False, NOW + 9 * MINUTE)
    waits = "the daemon started 2026-03-04 11:59 UTC: what came meanwhile is taken in, and 10 min of quiet are waited for"
    assert decision.why.startswith(f"wait because {waits}; 100 annotations {CHANGES}")
    assert on(started, now=NOW + 9 * MINUTE).due
    assert on(started, SETTINGS.model_copy(update={"quiet_minutes": 0})).due


def test_a_backlog_that_never_pauses_is_not_trained_on_before_it_has_been_looked_at_for_as_long() -> None:
    busy = facts(started=NOW - MINUTE, last_change=NOW, first_change=NOW - 30 * DAY)
    assert (on(busy).due, on(busy).next_look) == (False, NOW + 9 * MINUTE)
    assert "the daemon started" in on(busy).why
    recent = facts(started=NOW - MINUTE, last_change=NOW, first_change=NOW - HOUR)
    assert "the last change came 2026-03-04 12:00 UTC: 10 min of quiet are waited for, or 12 h since" in on(recent).why


# After a job


def test_a_job_is_followed_by_a_pause() -> None:
    decision = on(facts(last_ended=NOW - HOUR))
    assert (decision.due, decision.next_look) == (False, NOW + HOUR)
    assert "the last job ended 2026-03-04 11:00 UTC, and 2 h must lie between two" in decision.why
    assert on(facts(last_ended=NOW - 2 * HOUR)).due


def test_while_a_job_is_under_way_everything_waits() -> None:
    request = TrainingRequest("r", NOW, "new camera")
    decision = on(facts(requests=(request,), under_way=("J",)), NIGHTLY)
    assert not decision.due
    assert "job J is under way; what was asked for follows; 100 annotations are" in decision.why


@pytest.mark.parametrize("blame", [Blame.DATA, Blame.SETTINGS])
def test_what_failed_for_its_data_or_settings_is_not_repeated_until_one_of_them_changes(blame: Blame) -> None:
    ended: dict[str, Any] = {"last_ended": NOW - 30 * DAY}
    held = on(facts(failure=failure(blame), **ended))
    assert not held.due
    assert "job J failed (no image for valid: annotate more), and neither annotations nor settings have changed since" in held.why
    assert held.next_look is None
    assert on(facts(failure=failure(blame, changed_since=1), **ended)).due
    assert on(facts(failure=failure(blame, settings="others"), **ended)).due


def test_corrected_settings_are_tried_at_once_and_changed_data_after_a_while() -> None:
    just_now: dict[str, Any] = {"last_ended": NOW - MINUTE}
    assert on(facts(failure=failure(Blame.SETTINGS, settings="others"), **just_now)).due
    waits = on(facts(failure=failure(Blame.DATA, changed_since=3), **just_now))
    assert (waits.due, waits.next_look) == (False, NOW + 2 * HOUR - MINUTE)
    assert "is not tried again before 2026-03-04 13:59 UTC; 3 annotations are" in waits.why


def test_what_failed_for_the_machine_is_tried_again_and_ever_more_rarely() -> None:
    eager = SETTINGS.model_copy(update={"cooldown_hours": 0})
    pauses = []
    for in_a_row in range(1, 12):
        found = facts(0, failure=failure(Blame.INFRASTRUCTURE, in_a_row=in_a_row), last_ended=NOW)
        decision = on(found, eager)
        assert decision.next_look is not None
        pauses.append((decision.next_look - NOW) / MINUTE)
        assert "it is tried again 2026-03-0" in decision.why
        again = on(found, eager, now=decision.next_look)
        assert again.due
        assert "failed (no image for valid: annotate more) for a cause that may have passed" in again.why
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]


# On request


def test_what_was_asked_for_runs_beside_others_where_there_is_room_and_nothing_else_does() -> None:
    asked = (TrainingRequest("r", NOW, "new camera"),)
    beside = on(facts(requests=asked, under_way=("J", "K"), room=True), NIGHTLY)
    assert (beside.due, beside.requests) == (True, asked)
    assert "an operator asked for it, beside jobs J, K (new camera)" in beside.why
    waits = on(facts(under_way=("J",), room=True), NIGHTLY)
    assert (waits.due, waits.requests) == (False, ())


def test_one_job_answers_all_requests_that_wish_the_same_the_oldest_wish_first() -> None:
    plain, long, trial, again = (
        TrainingRequest("1", NOW, "one"),
        TrainingRequest("2", NOW, "long", epochs=300),
        TrainingRequest("3", NOW, "try", trial=True),
        TrainingRequest("4", NOW, "and again"),
    )
    first = on(facts(requests=(plain, long, trial, again)))
    assert first.requests == (plain, again)
    assert "an operator asked for it (one; and again)" in first.why
    assert "an operator asked for one of 300 epochs (long)" in on(facts(requests=(long, trial))).why
    assert "an operator asked for a trial (try)" in on(facts(requests=(trial, long))).why


@pytest.mark.parametrize(
    "found",
    [
        {"changed": 0}, {"total": 1}, {"last_ended": NOW}, {"last_change": NOW}, {"failure": failure(Blame.DATA)},
        {"failure": failure(Blame.INFRASTRUCTURE), "last_ended": NOW},
    ],
)  # fmt: skip
def test_nothing_but_a_job_under_way_holds_a_request_back(found: dict[str, Any]) -> None:
    requests = (TrainingRequest("1", NOW, "new camera"), TrainingRequest("2", NOW, "and again"))
    decision = on(facts(**found, requests=requests))
    assert decision.due
    assert "an operator asked for it (new camera; and again)" in decision.why


# On schedule


LAST_NIGHT = NOW - 10 * HOUR


def test_a_scheduled_time_needs_one_change_and_nothing_else() -> None:
    decision = on(facts(1, 3, last_change=NOW, schedule_settled=LAST_NIGHT - 1), NIGHTLY)
    assert decision.due
    assert "the schedule 0 2 * * * (UTC) says so; 1 annotation is new, changed or gone since the last training, 3 are" in decision.why


def test_before_a_scheduled_time_it_is_waited_for() -> None:
    decision = on(facts(1, schedule_settled=LAST_NIGHT), NIGHTLY)
    assert (decision.due, decision.next_look, decision.settled) == (False, LAST_NIGHT + DAY, None)


def test_a_scheduled_time_at_which_nothing_had_changed_is_done_with() -> None:
    decision = on(facts(0, schedule_settled=LAST_NIGHT - 1), NIGHTLY)
    assert (decision.due, decision.settled) == (False, NOW)
    held = on(facts(5, failure=failure(Blame.DATA), last_ended=NOW - DAY, schedule_settled=LAST_NIGHT - 1), NIGHTLY)
    assert (held.due, held.settled) == (False, NOW)


def test_a_missed_time_is_made_up_for_when_what_came_meanwhile_is_taken_in() -> None:
    missed: dict[str, Any] = {"started": NOW - MINUTE, "schedule_settled": NOW - 9 * DAY}
    nothing_yet = on(facts(0, **missed), NIGHTLY)
    assert (nothing_yet.due, nothing_yet.settled) == (False, None)
    coming = on(facts(7, last_change=NOW - 1, first_change=NOW - 5, **missed), NIGHTLY)
    assert (coming.due, coming.next_look) == (False, NOW - 1 + 10 * MINUTE)
    assert (
        "the schedule 0 2 * * * (UTC) was missed while the daemon was not running, and the last change came 2026-03-04 11:59 UTC"
        in coming.why
    )
    assert "the daemon started 2026-03-04 11:59 UTC" in on(facts(7, **missed), NIGHTLY).why
    assert on(facts(7, **missed), NIGHTLY, now=NOW + 9 * MINUTE).due


def test_a_schedule_waits_for_the_pause_after_a_job_and_fires_then() -> None:
    found = facts(1, last_ended=NOW - HOUR, schedule_settled=LAST_NIGHT - 1)
    assert (on(found, NIGHTLY).due, on(found, NIGHTLY).next_look) == (False, NOW + HOUR)
    assert on(found, NIGHTLY, now=NOW + HOUR).due


def test_a_schedule_is_one_of_its_time_zone() -> None:
    settings = NIGHTLY.model_copy(update={"schedule_timezone": "America/New_York"})
    assert on(facts(1, schedule_settled=NOW - 1), settings).next_look == NOW + 19 * HOUR


def test_without_a_number_only_schedule_and_requests_count() -> None:
    settings = NIGHTLY.model_copy(update={"new_annotations": None})
    decision = on(facts(10**6, 10**6, schedule_settled=NOW - 1), settings)
    assert (decision.due, decision.next_look) == (False, LAST_NIGHT + DAY)


# Any


OFTEN = NIGHTLY.model_copy(update={"schedule": "*/20 * * * *", "schedule_timezone": "Asia/Kathmandu"})
FAILURES = st.builds(failure, st.sampled_from(Blame), changed_since=st.integers(0, 2), in_a_row=st.integers(1, 40))
TIMES = st.one_of(st.none(), st.floats(NOW - 400 * DAY, NOW + 400 * DAY))


@given(
    found=st.builds(
        facts,
        changed=st.integers(0, 300),
        total=st.integers(0, 3000),
        started=st.floats(NOW - DAY, NOW + DAY),
        first_change=TIMES,
        last_change=TIMES,
        last_ended=TIMES,
        failure=st.one_of(
            st.none(), st.builds(failure, st.sampled_from(Blame), changed_since=st.integers(0, 2), in_a_row=st.integers(1, 40))
        ),
        schedule_settled=TIMES,
    ),
    settings=st.sampled_from(
        [SETTINGS, NIGHTLY, NIGHTLY.model_copy(update={"schedule": "*/20 * * * *", "schedule_timezone": "Asia/Kathmandu"})]
    ),
)
def test_what_waits_for_time_alone_says_when_and_does_not_change_before(found: TriggerFacts, settings: TriggerSettings) -> None:
    decision = on(found, settings)
    if not decision.due:
        until = NOW + 2 * DAY if decision.next_look is None else min(decision.next_look, NOW + 2 * DAY)
        assert all(not decide(found, settings, NOW + (until - NOW) * share).due for share in (0.1, 0.5, 0.999))


@given(TIMES, TIMES, TIMES)
def test_no_time_in_the_past_or_future_blocks_for_longer_than_as_if_it_were_now(first: float, last: float, ended: float) -> None:
    found = facts(first_change=first, last_change=last, last_ended=ended)
    decision = on(found)
    assert decision.due or (decision.next_look is not None and decision.next_look <= NOW + 12 * HOUR)
