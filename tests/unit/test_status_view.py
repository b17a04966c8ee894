"""What people are told of trainings and GPUs, whatever is missing, and whichever version said it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.screen import Screen

from azaion_daemon.ops.job_view import gpu_row, job_row, under_way_rows
from azaion_daemon.ops.rows import Mood
from azaion_daemon.ops.status_screen import StatusScreen
from azaion_daemon.ops.status_view import Part, parts_of, render_status
from azaion_daemon.ops.wording import about, ahead, bar, duration, moment, since, size
from azaion_daemon.training.estimate import remaining_s, share_done
from azaion_daemon.training.jobs import Progress
from azaion_daemon.training.outcomes import Phase
from azaion_daemon.training.states import JobState

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)  # a Tuesday
PROGRESS = {
    "phase": "train",
    "epoch": 56,
    "epochs": 120,
    "batch": 812,
    "batches": 1310,
    "losses": {"train/box_loss": 1.0213, "train/cls_loss": None},
    "map50": 0.7123,
    "map50_95": 0.4551,
    "gpu_memory_bytes": 41_200_000_000,
    "memory_bytes": 8_100_000_000,
    "epoch_s": 1521.0,
    "images_per_s": 31.2,
    "attempt": 2,
    "started": "2026-03-01T09:00:00Z",
    "updated": NOW.isoformat(),
    "share": 0.4637,
    "remaining_s": 180_000,
}
JOB = {"id": "J2", "state": "running", "dataset": "azaion-2026-03-01", "trial": False, "progress": PROGRESS}
DOCUMENT: dict[str, Any] = {
    "state": "running",
    "version": "0",
    "process": {"running": True, "pid": 1, "silent_s": 0.3, "ended": None, "problem": None},
    "pid": 1,
    "uptime_s": 90.0,
    "stream": {"connected": True, "why": None, "position": 7, "reconnects": 2, "paused": None},
    "annotations": {"seed": 1, "validated": 361_002},
    "training": {"why": "wait because job J2 is under way", "jobs": [{"id": "J1", "state": "released"}, JOB]},
    "models": {"current": {"sha256": "36cc7e3d6f6212", "map50": 0.7312, "map50_95": None}},
    "releases": [{"serial": 5, "state": "waiting", "why": "the CDN does not answer"}],
    "disk": {"total_bytes": 4_000_000_000_000, "free_bytes": 100_000_000_000},
    "gpus": [{"uuid": "GPU-a", "name": "H100", "leased": True, "job": "J2"}],
    "gpus_problem": None,
}


NOTHING = {"state": "unknown", "process": {"running": False, "problem": "The daemon has never run on this root."}}


def progress(**changes: Any) -> Progress:
    values = {"phase": Phase.TRAIN, "epoch": 3, "epochs": 10, "started": NOW, "phase_started": NOW, "updated": NOW, **changes}
    return Progress.model_validate(values)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"epoch_s": 100.0, "batch": 25, "batches": 100}, 775.0),
        ({"epoch_s": 100.0}, 800.0),  # how far this epoch is, is not known
        ({"epoch_s": 100.0, "batch": 0, "batches": 100}, 800.0),
        ({"epoch_s": 100.0, "batch": 100, "batches": 100, "epoch": 10}, 0.0),
        ({"epoch_s": 100.0, "batch": 200, "batches": 100, "epoch": 12}, 0.0),  # a count that is off makes no negative time
        ({"batch_s": 2.0, "batch": 50, "batches": 100}, 1500.0),  # the first epoch has no end to go by
        ({"batch_s": 2.0}, None),
        ({}, None),
        ({"epoch_s": 100.0, "epochs": 0, "epoch": 0}, None),
        ({"epoch_s": 100.0, "epoch": 0}, 1000.0),  # a resumed one before its first batch
        ({"epoch_s": 100.0, "phase": Phase.EXPORT}, None),
        ({"phase": Phase.PREPARE, "epoch": 0, "epochs": 0}, None),
        ({"epoch_s": 100.0, "batch": 1, "batches": 4, "step": "validating"}, 700.0),  # those batches are others
        ({"epoch_s": 100.0, "step": "saving"}, 700.0),
        ({"epoch_s": 100.0, "batch": 9, "batches": 10, "step": "setting up"}, 700.0),  # on its way from the third epoch's checkpoint
        ({"batch_s": 2.0, "batch": 1, "batches": 4, "step": "validating"}, None),
    ],
)
def test_the_end_is_estimated_from_what_is_known(known: dict[str, Any], expected: float | None) -> None:
    assert remaining_s(progress(**known)) == expected


@pytest.mark.parametrize(
    ("known", "share"),
    [
        ({"batch": 5, "batches": 10}, 0.25),
        ({}, 0.2),
        ({"epoch": 0}, 0.0),
        ({"epochs": 0}, 0.0),
        ({"epoch": 99, "batch": 9, "batches": 10}, 1.0),
        ({"batch": 1, "batches": 4, "step": "validating"}, 0.3),
        ({"step": "saving"}, 0.3),
        ({"batch": 9, "batches": 10, "step": "setting up"}, 0.3),
        ({"epoch": 0, "batch": 9, "batches": 10, "step": "setting up"}, 0.0),
        ({"phase": Phase.EVALUATE, "epoch": 0}, 1.0),
        ({"phase": Phase.REPORT, "epoch": 10, "batch": 0, "batches": 36}, 1.0),
    ],
)
def test_a_share_is_done_and_never_more_than_all(known: dict[str, Any], share: float) -> None:
    assert share_done(progress(**known)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("seconds", "words", "roughly"),
    [
        (0.0, "0 s", "0 s"),
        (-5.0, "0 s", "0 s"),
        (8.4, "8 s", "8 s"),
        (250.0, "4 min 10 s", "4 min"),
        (3600.0, "1 h", "60 min"),
        (3605.0, "1 h", "60 min"),
        (98_000.0, "1 day 3 h", "27 h"),
        (183_600.0, "2 days 3 h", "2 days"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, words: str, roughly: str) -> None:
    assert (duration(seconds), about(seconds)) == (words, roughly)


def test_moments_name_the_day_where_it_is_not_today() -> None:
    assert ahead(180_000, NOW) == "in about 2 days, Thu 14:00"
    assert ahead(7200, NOW) == "in about 2 h, 14:00"
    assert ahead(9 * 86400, NOW) == "in about 9 days, Thu 12 Mar 12:00"
    assert ahead(1e15, NOW).startswith("in about ")
    assert moment(NOW - timedelta(days=300), NOW) == "Wed 7 May 12:00"
    assert since("2026-03-01T09:00:00Z", NOW) == "2 days 3 h ago, Sun 09:00"
    assert since("some time", NOW) == "some time"


def test_bars_and_sizes() -> None:
    assert [bar(share, 4) for share in (-1, 0, 0.5, 1, 7)] == ["░░░░", "░░░░", "██░░", "████", "████"]
    assert [size(count) for count in (0, 999, 1500, 41_200_000_000, 7e15)] == ["0 B", "999 B", "1.5 kB", "41.2 GB", "7000 TB"]


def test_a_training_is_shown_with_its_bar_its_pace_and_its_end() -> None:
    assert [row.text for row in under_way_rows(JOB, NOW, width=10)] == [
        "J2, running, dataset azaion-2026-03-01, attempt 2",
        "█████░░░░░  46%  train, epoch 56 of 120, batch 812/1310",
        "ends in about 2 days, Thu 14:00; began 2 days 3 h ago, Sun 09:00",
        "mAP50 0.712, mAP50-95 0.455; losses box 1.02, cls is no number",
        "31.2 images/s; 25 min 21 s an epoch; GPU 41.2 GB; RAM 8.1 GB",
    ]


def test_a_worker_that_says_nothing_and_a_job_that_waits_are_told() -> None:
    silent = {**JOB, "progress": {**PROGRESS, "updated": (NOW - timedelta(minutes=4)).isoformat()}}
    assert "the worker has said nothing for 4 min" in [row.text for row in under_way_rows(silent, NOW, width=10)]
    waiting = {"id": "J3", "state": "queued", "trial": True, "waits_for": "a GPU"}
    assert [row.text for row in under_way_rows(waiting, NOW, width=10)] == ["J3, queued (a trial)", "waits: a GPU"]


@pytest.mark.parametrize("left_out", [*PROGRESS, None])
def test_whatever_a_worker_of_another_version_leaves_out_the_rest_is_shown(left_out: str | None) -> None:
    known = {key: value for key, value in PROGRESS.items() if key != left_out} if left_out else {"something": "else"}
    rows = [row.text for row in under_way_rows({**JOB, "progress": {**known, "fresh": {"from": "a later version"}}}, NOW, width=10)]
    assert rows[0].startswith("J2, running")
    assert len(rows) >= 2


def test_a_job_that_has_ended_is_one_line_with_its_reason() -> None:
    job = {
        "id": "J",
        "state": "rejected",
        "ended": NOW.timestamp() - 60,
        "map50_95": 0.4983,
        "verdict": {"reason": "worse than the current one."},
    }
    assert job_row(job, NOW).text == "rejected 11:59, mAP50-95 0.498: worse than the current one; job J"
    assert job_row({"id": "J", "state": "failed", "why": "it\ndiverged"}, NOW).text == "failed: it diverged; job J"
    assert {job_row({"state": state.value}, NOW).mood for state in JobState} == {Mood.GOOD, Mood.WARN, Mood.BAD, Mood.DIM, Mood.PLAIN}
    assert job_row({"state": "improved", "verdict": "a word"}, NOW).text == "improved; job None"


@pytest.mark.parametrize(
    ("gpu", "text", "mood"),
    [
        ({"name": "H100", "job": "J", "leased": True}, "job J, H100", Mood.BUSY),
        ({"name": "H100", "leased": True}, "leased by a worker, H100", Mood.BUSY),
        ({"name": "H100", "processes": [77]}, "used by pid 77, H100", Mood.WARN),
        (
            {"name": "H100", "processes": [{"pid": 77, "memory_bytes": 2_000_000_000, "name": "llm"}]},
            "used by llm 77 (2.0 GB), H100",
            Mood.WARN,
        ),
        ({"index": 1, "memory_total_bytes": 8e10, "memory_free_bytes": 7e10}, "free, 10.0 GB of 80.0 GB used, unknown", Mood.PLAIN),
        (
            {"name": "H100", "utilisation_percent": 97, "temperature_celsius": 64, "faults": ["ECC"]},
            "ECC, 97% busy, 64 °C, H100",
            Mood.BAD,
        ),
        ({}, "free, unknown", Mood.PLAIN),
    ],
)
def test_a_gpu_is_said_with_who_has_it_first(gpu: dict[str, Any], text: str, mood: Mood) -> None:
    row = gpu_row(gpu)
    assert (row.label, row.text, row.mood) == ("GPU 1" if "index" in gpu else "GPU", text, mood)


def test_the_status_is_lines_for_people() -> None:
    lines = render_status(DOCUMENT, NOW).splitlines()
    assert lines[0] == "daemon       running, version 0, pid 1, up 1 min 30 s"
    assert "annotations  1 seed, 361,002 validated" in lines
    assert "model        36cc7e3d6f62, mAP50 0.731" in lines
    assert "release 5    waiting: the CDN does not answer" in lines
    assert "earlier      released; job J1" in lines
    assert "disk         ████████████  98%  100 GB of 4.0 TB free" in lines
    pressed = {**DOCUMENT, "disk": {**DOCUMENT["disk"], "used_percent": 81.0, "pressure": "high"}}
    assert parts_of(pressed, NOW)[Part.MACHINE][-1].mood is Mood.WARN


def test_a_model_that_waits_for_an_operator_is_said_first_with_what_to_do() -> None:
    held = {"id": "J0", "state": "held", "ended": NOW.timestamp(), "verdict": {"reason": "only 3 images are left"}}
    ended = [{"id": f"J{number}", "state": "rejected"} for number in range(1, 9)]
    lines = render_status({**DOCUMENT, "training": {"jobs": [held, *ended]}}, NOW).splitlines()
    assert [line for line in lines if line.startswith(("to decide", "earlier"))] == [
        "to decide    held 12:00: only 3 images are left; job J0: `model show` it, then `model promote` or `model reject`",
        "earlier      rejected; job J8",
        "earlier      rejected; job J7",
    ]


def test_a_stopped_daemon_says_since_when_and_one_that_never_ran_says_that() -> None:
    stopped = {**DOCUMENT, "state": "stopped", "written": "2026-03-03T11:00:00+00:00"}
    assert render_status(stopped, NOW).startswith("daemon       stopped 1 h ago, 11:00; its last words follow (version 0)")
    killed = {**stopped, "process": {"ended": "crashed"}}
    assert render_status(killed, NOW).startswith("daemon       killed or crashed 1 h ago, 11:00; its last words follow (version 0)")
    assert render_status(NOTHING, NOW) == "daemon       The daemon has never run on this root."


def test_one_that_hangs_and_one_that_starts_are_told_from_one_that_runs() -> None:
    hangs = {**DOCUMENT, "process": {**DOCUMENT["process"], "silent_s": 90.0}}
    assert render_status(hangs, NOW).startswith("daemon       running, version 0, pid 1, up 1 min 30 s; what follows is 1 min 30 s old")
    assert parts_of(hangs, NOW)[Part.DAEMON][0].mood is Mood.BAD
    starts = {**DOCUMENT, "state": "starting", "process": {"running": True, "pid": 77}}
    assert render_status(starts, NOW).startswith("daemon       process 77 has the root and has said nothing yet")


def test_the_configuration_is_shown_with_its_last_reload() -> None:
    at = NOW.timestamp() - 60
    config = {"path": "/opt/config.yaml", "loaded_at": at, "last_reload": None}

    def rows(last: dict[str, Any] | None) -> list[tuple[str, Mood]]:
        return [(row.text, row.mood) for row in parts_of({**DOCUMENT, "config": {**config, "last_reload": last}}, NOW)[Part.CONFIG]]

    loaded = ("/opt/config.yaml, loaded 1 min ago, 11:59", Mood.PLAIN)
    assert rows(None) == [loaded]
    failed = {"ok": False, "at": at, "error": "no"}
    assert rows(failed) == [loaded, ("failed 1 min ago, 11:59; the configuration of before is in force", Mood.BAD)]
    assert rows({"ok": True, "at": at})[1] == ("done 1 min ago, 11:59; nothing had changed", Mood.PLAIN)
    parted = {"ok": True, "at": at, "applied": ["log.level"], "next_job": ["training.epochs"], "restart_required": ["metrics.listen"]}
    text = "applied: log.level; from the next training on: training.epochs; waiting for a restart: metrics.listen"
    assert rows(parted)[1] == (f"done 1 min ago, 11:59; {text}", Mood.WARN)
    assert rows({"ok": True, "at": "some time"})[1][0].startswith("done at an unknown time")


def test_what_operators_have_asked_for_is_shown_until_it_is_done() -> None:
    asked = [{"reason": "a new camera", "time": NOW.timestamp() - 60, "trial": False, "epochs": 7}]
    left = [{"kind": "promote_model", "about": "36cc7e3d6f62" * 5, "reason": "it is better"}, {"kind": "later", "about": None}]
    document = {**DOCUMENT, "training": {"why": "wait", "requests": asked}, "requests": left}
    rows = [row.text for row in parts_of(document, NOW)[Part.TRAINING]]
    assert rows[1:] == [
        "a training of 7 epochs, 1 min ago, 11:59 (a new camera): it waits for its turn",
        "to make current model 36cc7e3d6f62 (it is better): it is at work on it",
        "later: it is at work on it",
    ]
    stopped = {**document, "state": "stopped", "process": {"running": False}}
    assert "it waits for the daemon's next start" in render_status(stopped, NOW)


def test_a_published_model_is_shown_with_its_age() -> None:
    published = {"serial": 4, "sha256": "36cc7e3d6f6212", "at": NOW.timestamp() - 60}
    models = {**DOCUMENT["models"], "published": published}
    document = {**DOCUMENT, "models": models, "releases": [{"serial": 4, "state": "published"}, *DOCUMENT["releases"]]}
    lines = [(row.label, row.text) for row in parts_of(document, NOW)[Part.MODEL]]
    assert lines[1:] == [("published", "the current model, release 4, 1 min ago, 11:59"), ("release 5", "waiting: the CDN does not answer")]


@pytest.mark.parametrize("left_out", list(DOCUMENT))
def test_words_of_another_version_are_shown_as_far_as_they_are_understood(left_out: str) -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != left_out} | {"later": {"version": ["says", "more"]}}
    assert render_status(document, NOW)
    drawn(document, 80, 24)
    for key, value in DOCUMENT.items():
        if isinstance(value, dict):
            render_status({**DOCUMENT, key: {}}, NOW)


def drawn(document: Mapping[str, Any], width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=StringIO(), force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(Screen(StatusScreen(document, NOW)), end="")
    return capture.get().splitlines()


@pytest.mark.parametrize("needed", [0, 1, 12])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (110, 40), (40, 10), (20, 3)])
def test_the_picture_fits_the_terminal(width: int, height: int, needed: int) -> None:
    history = [{"id": f"J{number}", "state": "released", "verdict": {"reason": "it is better " * 20}} for number in range(10)]
    needs = [{"level": "warning", "what": "something to be told " * 5, "do": "Mend it"}] * needed
    document = {**DOCUMENT, "training": {**DOCUMENT["training"], "jobs": [*history, JOB]}, "attention": needs}
    lines = drawn(document, width, height)
    assert len(lines) == height
    assert max(len(line) for line in lines) <= width
    assert "azaion" in lines[0]
    if height >= 24:
        text = "\n".join(lines)
        assert "46%" in text
        assert "36cc7e3d6f62" in text
        assert "of 4.0 TB free" in text  # what ended long ago has given way
        assert ("something to be told" in text) == (needed > 0)
        assert ("nothing needs you" in text) == (needed == 0)


def test_the_picture_of_a_root_without_a_daemon() -> None:
    assert "never run" in "\n".join(drawn(NOTHING, 80, 24))
