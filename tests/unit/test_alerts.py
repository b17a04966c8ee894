"""The alert rules: each fires when it should, and none when all is well."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from azaion_daemon.metrics.catalogue import CATALOGUE
from tests.prometheus import promtool

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "alerts.yml"
MINUTE = 60
DAY = 24 * 60 * MINUTE
OVER = 200
"""So many samples a series has; what is looked at lies before."""

WELL = {
    "up": "1",
    "process_start_time_seconds": "0",
    "process_resident_memory_bytes": "8e7",
    "process_open_fds": "30",
    "process_max_fds": "1024",
    "azaion_status_timestamp_seconds": "0+{step}",
    'azaion_part_healthy{part="publish"}': "1",
    "azaion_log_lines_dropped_total": "0",
    "azaion_config_last_reload_successful": "1",
    "azaion_config_restart_required_settings": "0",
    "azaion_disk_used_ratio": "0.79",
    "azaion_ingest_paused": "0",
    'azaion_ingest_sync_seconds_bucket{le="0.1"}': "0+10",
    'azaion_ingest_sync_seconds_bucket{le="10"}': "0+10",
    'azaion_ingest_sync_seconds_bucket{le="+Inf"}': "0+10",
    "azaion_stream_connected": "1",
    "azaion_stream_refused": "0",
    "azaion_stream_reconnects_total": "1",
    "azaion_stream_position": "0+7",
    "azaion_stream_waiting_messages": "12",
    "azaion_stream_backlog_messages": "300",
    "azaion_stream_behind_seconds": "30",
    "azaion_last_validated_timestamp_seconds": "0+{step}",
    'azaion_ingest_quarantined_total{fault="name"}': "3",
    'azaion_training_last_progress_timestamp_seconds{training="j1"}': "0+{step}",
    'azaion_jobs_ended_total{state="failed"}': "2",
    'azaion_jobs_ended_total{state="accepted"}': "0+1",
    'azaion_jobs{state="queued"}': "0",
    'azaion_jobs{state="held"}': "0",
    'azaion_jobs{state="failed"}': "4",
    "azaion_releases_waiting": "0",
    "azaion_api_login_refused": "0",
    "azaion_release_last_published_timestamp_seconds": "0+{step}",
    "azaion_gpus_broken": "0",
    "azaion_gpus": "2",
    'azaion_gpu_faults{uuid="GPU-a",index="0"}': "0",
    'azaion_gpu_memory_errors{uuid="GPU-a",index="0"}': "0",
    'azaion_gpu_temperature_celsius{uuid="GPU-a",index="0"}': "70",
}
"""Each metric that a rule names, when all is well: a number, or one and by how much it grows each time that it is scraped."""
GONE = "_"


class Case(NamedTuple):
    """What is other than well, and which alert that is worth `after` so many seconds; a little before there is none."""

    what: str
    series: Mapping[str, str]
    after: int
    fires: str
    before: int = 2 * MINUTE
    """So much earlier it does not fire yet."""
    step: int = MINUTE


CASES = [
    Case("a daemon that does not answer", {"up": "0"}, 6 * MINUTE, "AzaionDown"),
    Case("a daemon that nobody scrapes", dict.fromkeys(WELL, GONE), 6 * MINUTE, "AzaionDown"),
    Case("a loop that stands still", {"azaion_status_timestamp_seconds": "0"}, 4 * MINUTE, "AzaionHung"),
    Case("a clock that is ahead", {"azaion_status_timestamp_seconds": "45+60"}, 6 * MINUTE, "AzaionClockAhead"),
    Case("restarts", {"process_start_time_seconds": "0+1"}, 5 * MINUTE, "AzaionRestarting"),
    Case("a part that ails", {'azaion_part_healthy{part="publish"}': "0"}, 3 * MINUTE, "AzaionPartAiling"),
    Case("memory", {"process_resident_memory_bytes": "2e9"}, 31 * MINUTE, "AzaionMemory"),
    Case("descriptors", {"process_open_fds": "900"}, 16 * MINUTE, "AzaionDescriptors"),
    Case("lost lines", {"azaion_log_lines_dropped_total": "0 0 0 0 5"}, 5 * MINUTE, "AzaionLogLost"),
    Case("a failed reload", {"azaion_config_last_reload_successful": "1 1 0"}, 4 * MINUTE, "AzaionReloadFailed"),
    Case(
        "settings that wait",
        {"azaion_config_restart_required_settings": "2"},
        25 * 60 * MINUTE,
        "AzaionRestartNeeded",
        before=120 * MINUTE,
        step=30 * MINUTE,
    ),
    Case("a disk at 81 %", {"azaion_disk_used_ratio": "0.81"}, 16 * MINUTE, "AzaionDiskHigh"),
    Case("a disk at 96 %", {"azaion_disk_used_ratio": "0.96"}, 6 * MINUTE, "AzaionDiskCritical"),
    Case("no space", {"azaion_ingest_paused": "1"}, 6 * MINUTE, "AzaionPaused"),
    Case("a slow disk", {'azaion_ingest_sync_seconds_bucket{le="0.1"}': "0"}, 33 * MINUTE, "AzaionDiskSlow", before=4 * MINUTE),
    Case("no broker", {"azaion_stream_connected": "0"}, 11 * MINUTE, "AzaionStreamDisconnected"),
    Case("a wrong password", {"azaion_stream_refused": "1", "azaion_stream_connected": "0"}, 3 * MINUTE, "AzaionStreamRefused"),
    Case("a connection that comes and goes", {"azaion_stream_reconnects_total": "0+1"}, 12 * MINUTE, "AzaionStreamFlapping"),
    Case(
        "a position that stands still before what waits in memory",
        {"azaion_stream_position": "7", "azaion_stream_backlog_messages": GONE},
        21 * MINUTE,
        "AzaionPositionStuck",
        before=19 * MINUTE,
    ),
    Case(
        "a position that stands still before what waits in the stream",
        {"azaion_stream_position": "7", "azaion_stream_waiting_messages": "0"},
        21 * MINUTE,
        "AzaionPositionStuck",
        before=19 * MINUTE,
    ),
    Case("a long backlog", {"azaion_stream_behind_seconds": "7200"}, 61 * MINUTE, "AzaionFallingBehind"),
    Case(
        "nobody who validates",
        {"azaion_last_validated_timestamp_seconds": "0"},
        75 * 60 * MINUTE,
        "AzaionNothingValidated",
        before=120 * MINUTE,
        step=30 * MINUTE,
    ),
    Case(
        "a producer gone mad",
        {'azaion_ingest_quarantined_total{fault="name"}': "0+5"},
        4 * MINUTE,
        "AzaionQuarantineGrowing",
        before=3 * MINUTE,
    ),
    Case(
        "a training that stands still",
        {'azaion_training_last_progress_timestamp_seconds{training="j1"}': "0"},
        67 * MINUTE,
        "AzaionTrainingStalled",
        before=3 * MINUTE,
    ),
    Case("a training that fails", {'azaion_jobs_ended_total{state="failed"}': "2 2 2 2 3"}, 5 * MINUTE, "AzaionTrainingFailed"),
    Case(
        "a training without a GPU",
        {'azaion_jobs{state="queued"}': "1"},
        390 * MINUTE,
        "AzaionTrainingWaits",
        before=60 * MINUTE,
        step=30 * MINUTE,
    ),
    Case("a model that nobody decides about", {'azaion_jobs{state="held"}': "1"}, 61 * MINUTE, "AzaionModelHeld"),
    Case("a release that waits", {"azaion_releases_waiting": "1"}, 61 * MINUTE, "AzaionReleaseWaiting"),
    Case("a login that is refused", {"azaion_api_login_refused": "1"}, 6 * MINUTE, "AzaionApiLoginRefused"),
    Case(
        "no new model",
        {"azaion_release_last_published_timestamp_seconds": "0"},
        31 * DAY,
        "AzaionNoModelPublished",
        before=2 * DAY,
        step=DAY // 4,
    ),
    Case("a driver that hangs", {"azaion_gpus_broken": "1"}, 6 * MINUTE, "AzaionGpuDriver"),
    Case("a GPU that is gone", {"azaion_gpus": "2 2 1"}, 13 * MINUTE, "AzaionGpuLost"),
    Case("a GPU with a fault", {'azaion_gpu_faults{uuid="GPU-a",index="0"}': "1"}, 6 * MINUTE, "AzaionGpuFault"),
    Case("a GPU with memory errors", {'azaion_gpu_memory_errors{uuid="GPU-a",index="0"}': "3"}, 6 * MINUTE, "AzaionGpuFault"),
    Case("a hot GPU", {'azaion_gpu_temperature_celsius{uuid="GPU-a",index="0"}': "95"}, 16 * MINUTE, "AzaionGpuHot"),
]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def series_of(case: Case) -> list[dict[str, str]]:
    unknown = case.series.keys() - WELL.keys()
    assert not unknown, unknown
    found = []
    for name, values in {**WELL, **case.series}.items():
        if values != GONE:
            base, _, labels = name.partition("{")
            *first, last = values.format(step=case.step).split()
            last = last if "+" in last else f"{last}+0"
            found.append({
                "series": f'{base}{{job="azaion",instance="server"{"," + labels if labels else "}"}',
                "values": " ".join([*first, f"{last}x{OVER}"]),
            })  # fmt: skip
    return found


def expectation(at: int, firing: Sequence[str]) -> dict[str, Any]:
    return {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{at}s",
        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing],
    }


def as_test(case: Case) -> dict[str, Any]:
    """As promtool wants it: a little before, there is no alert yet; then that one and no other."""
    return {
        "name": case.what,
        "interval": f"{case.step}s",
        "input_series": series_of(case),
        "promql_expr_test": [expectation(case.after - case.before, ()), expectation(case.after, (case.fires,))],
    }


@pytest.mark.parametrize("step", sorted({case.step for case in CASES}))
def test_each_alert_fires_when_it_should_and_no_other_does(tmp_path: Path, step: int) -> None:
    well = Case("all is well", {}, 150 * step, "", step=step)
    tests = [as_test(case) for case in CASES if case.step == step]
    tests.append({**as_test(well), "promql_expr_test": [expectation(well.after, ())]})
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": f"{step}s", "tests": tests}))
    done = subprocess.run([promtool(), "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_case_for_each_alert() -> None:
    assert {case.fires for case in CASES} == {rule["alert"] for rule in rules()}


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    done = subprocess.run([promtool(), "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_rules_name_metrics_of_the_catalogue_alone() -> None:
    exported = {f"{name}{part}" for name, metric in CATALOGUE.items() for part in (("_bucket",) if metric.kind == "histogram" else ("",))}
    named = {name for rule in rules() for name in re.findall(r"\b(?:azaion|process)_\w+", rule["expr"])}
    assert named <= exported, named - exported


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_says_how_bad_it_is_and_where_to_read_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (page, anchor) == ("deploy/README.md", rule["alert"].lower())
    assert f"\n### {rule['alert']}\n" in (DEPLOY / "README.md").read_text(encoding="utf-8")


def test_the_guide_explains_no_alert_that_is_gone() -> None:
    explained = re.findall(r"^### (Azaion\w+)$", (DEPLOY / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == [rule["alert"] for rule in rules()]
