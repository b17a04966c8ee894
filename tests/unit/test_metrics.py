"""What the status says, as metrics: everything in the catalogue, and nothing else."""

import subprocess
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from azaion_daemon.errors import ConfigError
from azaion_daemon.ingest.totals import Durations, Totals
from azaion_daemon.metrics.catalogue import CATALOGUE
from azaion_daemon.metrics.exposing import Snapshot, StatusCollector
from azaion_daemon.ops.tally import OUTCOMES
from azaion_daemon.sections import MetricsSettings
from azaion_daemon.settings import parse_settings
from azaion_daemon.stream.events import Fault
from azaion_daemon.training.states import JobState
from tests.prometheus import promtool


def full_status() -> dict[str, Any]:
    """A status in which nothing is unknown, as far as metrics look at it."""
    return {
        "version": "1.2.3",
        "state": "running",
        "config": {"loaded_at": 1e9, "last_reload": {"ok": False, "at": 1e9 + 5, "restart_required": ["stream.name"]}},
        "health": {"ok": False, "ailing": [{"part": "publish"}], "parts": {"publish": {}, "write": {}}},
        "log": {"lost_lines": 0},
        "stream": {
            "connected": True, "refused": False, "position": 41, "offset": 40, "last_message_age_s": 1.5, "reconnects": 2, "behind_s": 0.5,
            "backlog_messages": 7, "waiting_messages": 3, "waiting_bytes": 900, "paused": None,
        },
        "annotations": {"seed": 1, "validated": 2, "deleted": 3, "quarantined": 4, "flagged": 5},
        "training": {
            "new_since_last": 10, "threshold": 1000, "next_schedule": "2026-03-01T02:00:00+00:00", "last_change": 1e9,
            "states": {state.value: 1 for state in JobState},
            "jobs": [
                {"id": "j1", "progress": {"epoch": 3, "epochs": 120, "share": 0.02, "map50_95": 0.4}, "got_on": 1e9},
                {"id": "j0", "progress": None, "got_on": None},
            ],
        },
        "models": {"current": {"map50": 0.8, "map50_95": 0.5, "created": 1e9}, "count": 2, "published": {"at": 1e9}},
        "releases": [{"state": "published", "attempts": 0}, {"state": "waiting", "attempts": 4}],
        "disk": {"total_bytes": 100, "free_bytes": 40, "inodes_total": 10, "inodes_free": 9, "used_percent": 60.0, "ledger_bytes": 6},
        "gpus": [{
            "uuid": "GPU-a", "index": 0, "memory_total_bytes": 80, "memory_free_bytes": 20, "utilisation_percent": 50,
            "temperature_celsius": 60, "memory_errors": 0, "faults": ["a"], "leased": True,
        }],
        "gpus_problem": None,
        "api": {"login_refused": False},
        "totals": {
            "ingest": Totals().document(), "stream": {"failures": 3}, "reloads": {"ok": 1, "failed": 2},
            "jobs_ended": dict.fromkeys(OUTCOMES, 0),
            "releases": {"published": 1, "failures": 5, "api_retries": 6, "cdn_retries": 7},
        },
    }  # fmt: skip


def exposition(status: dict[str, Any]) -> str:
    registry = CollectorRegistry()
    snapshot = Snapshot(status, 1e9 + 9)
    registry.register(StatusCollector(lambda: snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()


def values(status: dict[str, Any]) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(exposition(status))
        for sample in family.samples
    }


def test_everything_in_the_catalogue_is_exported_and_nothing_else() -> None:
    exported = {}
    for family in text_string_to_metric_families(exposition(full_status())):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exported[name] = (family.type, labels)
    assert exported == {name: (metric.kind, set(metric.labels)) for name, metric in CATALOGUE.items()}


def test_names_follow_the_practice_of_prometheus() -> None:
    for name, metric in CATALOGUE.items():
        assert name.startswith(("azaion_", "process_")), name
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert metric.help.endswith("."), name


def test_promtool_finds_nothing_to_complain_of() -> None:
    done = subprocess.run([promtool(), "check", "metrics"], input=exposition(full_status()), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_values_are_those_of_the_status() -> None:
    found = values(full_status())
    assert found["azaion_state", ("running",)] == 1
    assert found["azaion_status_timestamp_seconds", ()] == 1e9 + 9
    assert (found["azaion_part_healthy", ("publish",)], found["azaion_part_healthy", ("write",)]) == (0, 1)
    assert (found["azaion_config_last_reload_successful", ()], found["azaion_config_restart_required_settings", ()]) == (0, 1)
    assert found["azaion_training_next_schedule_timestamp_seconds", ()] == 1772330400
    assert (found["azaion_releases_waiting", ()], found["azaion_release_attempts", ()]) == (1, 4)
    assert found["azaion_gpu_utilisation_ratio", ("0", "GPU-a")] == 0.5
    assert found["azaion_training_epochs", ("j1",)] == 120
    assert {fault for name, (fault,) in (key for key in found if key[0] == "azaion_ingest_quarantined_total") if name} == set(Fault)


def test_what_is_not_known_is_absent_rather_than_nought() -> None:
    status = full_status()
    status["config"]["last_reload"] = None
    status["models"] |= {"current": None, "published": None}
    status["stream"] |= {"behind_s": None, "position": None, "paused": "no room"}
    status["training"] |= {"threshold": None, "jobs": []}
    status["gpus"] = []
    found = values(status)
    names = {name for name, _ in found}
    assert found["azaion_config_last_reload_successful", ()] == 1
    assert found["azaion_ingest_paused", ()] == 1
    assert found["azaion_gpus", ()] == 0
    assert not names & {
        "azaion_model_map50_ratio", "azaion_stream_behind_seconds", "azaion_stream_position", "azaion_training_threshold_annotations",
        "azaion_training_epoch", "azaion_gpu_faults", "azaion_release_last_published_timestamp_seconds",
    }  # fmt: skip


def test_durations_are_counted_up_to_each_bound() -> None:
    taken = Durations((0.1, 1.0))
    for seconds in (0.1, 0.5, 7.0):
        taken.add(seconds)
    assert taken.document() == {"buckets": [[0.1, 1], [1.0, 2], [None, 3]], "sum": 7.6}


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1", "127.0.0.1:http", ":9464", "http://127.0.0.1:9464", "::1:9464"]
)
def test_an_impossible_address_is_refused_with_a_word(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.listen: must be an address and a port between 1 and 65535, such as 127\.0\.0\.1:9464"):
        parse_settings(f"metrics: {{listen: '{listen}'}}", source="config.yaml")


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:1", ("::1", 1)), ("gpu-server:65535", ("gpu-server", 65535)), (None, None)],
)
def test_an_address_is_host_and_port(listen: str | None, address: tuple[str, int] | None) -> None:
    assert MetricsSettings(listen=listen).address == address
