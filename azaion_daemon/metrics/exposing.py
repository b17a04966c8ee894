"""From the status document to Prometheus's exposition. Nothing here asks anybody: a snapshot of the status has everything."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from azaion_daemon.metrics.catalogue import CATALOGUE

STATES = ("starting", "running", "stopping", "stopped")
_PERCENT = 100.0

Value = float | int | bool | None
Sample = tuple[str, tuple[str, ...], Value | Mapping[str, Any]]
"""A name of the catalogue, the values of its labels, and a number, None where it is not known, or the counts of a histogram."""


@dataclass(frozen=True)
class Snapshot:
    """The status as it was at a moment, in seconds since the epoch. Nobody changes the document any more."""

    document: Mapping[str, Any]
    taken_at: float


class StatusCollector(Collector):
    """Gives a registry what the newest snapshot says."""

    def __init__(self, newest: Callable[[], Snapshot | None]) -> None:
        self._newest = newest

    def collect(self) -> Iterable[Metric]:
        """Every metric that has a value now."""
        snapshot = self._newest()
        return () if snapshot is None else families(samples(snapshot))


def families(found: Iterable[Sample]) -> list[Metric]:
    """Samples by metric, in the catalogue's order.

    Raises:
        KeyError: One is not in the catalogue.
    """
    by_name: dict[str, Metric] = {}
    for name, labels, value in found:
        if value is None:
            continue
        kind, text, label_names = CATALOGUE[name]
        match kind:
            case "gauge":
                gauge = by_name.setdefault(name, GaugeMetricFamily(name, text, labels=label_names))
                assert isinstance(gauge, GaugeMetricFamily)
                assert not isinstance(value, Mapping)
                gauge.add_metric(labels, float(value))
            case "counter":
                counter = by_name.setdefault(name, CounterMetricFamily(name, text, labels=label_names))
                assert isinstance(counter, CounterMetricFamily)
                assert not isinstance(value, Mapping)
                counter.add_metric(labels, float(value))
            case "histogram":
                histogram = by_name.setdefault(name, HistogramMetricFamily(name, text, labels=label_names))
                assert isinstance(histogram, HistogramMetricFamily)
                assert isinstance(value, Mapping)
                buckets = [("+Inf" if bound is None else str(bound), count) for bound, count in value["buckets"]]
                histogram.add_metric(labels, buckets, value["sum"])
    return [by_name[name] for name in CATALOGUE if name in by_name]


def samples(snapshot: Snapshot) -> Iterator[Sample]:
    """Every number in the status that is a metric."""
    status = snapshot.document
    totals: Mapping[str, Any] = status["totals"]
    yield "azaion_build_info", (status["version"],), 1
    for state in STATES:
        yield "azaion_state", (state,), state == status["state"]
    yield "azaion_status_timestamp_seconds", (), snapshot.taken_at
    if health := status.get("health"):
        ailing = {one["part"] for one in health["ailing"]}
        for part in health["parts"]:
            yield "azaion_part_healthy", (part,), part not in ailing
    yield "azaion_log_lines_dropped_total", (), status["log"]["lost_lines"]
    yield from _config(status["config"], totals["reloads"])
    yield from _stream(status["stream"], totals["stream"])
    yield from _annotations(status["annotations"], totals["ingest"])
    yield from _training(status["training"], totals["jobs_ended"])
    yield from _models(status["models"])
    yield from _releases(status, totals["releases"])
    yield from _machine(status)


def _config(config: Mapping[str, Any], reloads: Mapping[str, int]) -> Iterator[Sample]:
    last = config["last_reload"]
    yield "azaion_config_loaded_timestamp_seconds", (), config["loaded_at"]
    yield "azaion_config_last_reload_successful", (), last is None or last["ok"]
    yield "azaion_config_last_reload_timestamp_seconds", (), None if last is None else last["at"]
    yield "azaion_config_restart_required_settings", (), 0 if last is None else len(last["restart_required"])
    for result, count in reloads.items():
        yield "azaion_config_reloads_total", (result,), count


def _stream(stream: Mapping[str, Any], totals: Mapping[str, int]) -> Iterator[Sample]:
    yield "azaion_stream_connected", (), stream["connected"]
    yield "azaion_stream_refused", (), stream["refused"]
    yield "azaion_stream_reconnects_total", (), stream["reconnects"]
    yield "azaion_stream_failures_total", (), totals["failures"]
    yield "azaion_stream_position", (), stream["position"]
    yield "azaion_stream_offset", (), stream["offset"]
    yield "azaion_stream_last_message_age_seconds", (), stream["last_message_age_s"]
    yield "azaion_stream_behind_seconds", (), stream["behind_s"]
    yield "azaion_stream_backlog_messages", (), stream["backlog_messages"]
    yield "azaion_stream_waiting_messages", (), stream["waiting_messages"]
    yield "azaion_stream_waiting_bytes", (), stream["waiting_bytes"]
    yield "azaion_ingest_paused", (), stream["paused"] is not None


def _annotations(annotations: Mapping[str, int], totals: Mapping[str, Any]) -> Iterator[Sample]:
    yield "azaion_ingest_messages_total", (), totals["messages"]
    yield "azaion_ingest_bytes_total", (), totals["bytes"]
    for home, count in totals["annotations"].items():
        yield "azaion_ingest_annotations_total", (home,), count
        yield "azaion_annotations", (home,), annotations[home]
    yield "azaion_ingest_ignored_total", (), totals["ignored"]
    for fault, count in totals["quarantined"].items():
        yield "azaion_ingest_quarantined_total", (fault,), count
    yield "azaion_ingest_batch_seconds", (), totals["batch_seconds"]
    yield "azaion_ingest_sync_seconds", (), totals["sync_seconds"]
    yield "azaion_annotations_flagged", (), annotations["flagged"]
    yield "azaion_quarantine_messages", (), annotations["quarantined"]


def _training(training: Mapping[str, Any], ended: Mapping[str, int]) -> Iterator[Sample]:
    yield "azaion_last_validated_timestamp_seconds", (), training["last_change"]
    yield "azaion_training_new_annotations", (), training["new_since_last"]
    yield "azaion_training_threshold_annotations", (), training["threshold"]
    scheduled = training["next_schedule"]
    yield (
        "azaion_training_next_schedule_timestamp_seconds",
        (),
        None if scheduled is None else datetime.fromisoformat(scheduled).timestamp(),
    )
    for state, count in training["states"].items():
        yield "azaion_jobs", (state,), count
    for state, count in ended.items():
        yield "azaion_jobs_ended_total", (state,), count
    for job in training["jobs"]:
        if progress := job.get("progress"):
            label = (job["id"],)
            yield "azaion_training_epoch", label, progress["epoch"]
            yield "azaion_training_epochs", label, progress["epochs"]
            yield "azaion_training_progress_ratio", label, progress["share"]
            yield "azaion_training_map50_95_ratio", label, progress["map50_95"]
            yield "azaion_training_last_progress_timestamp_seconds", label, job["got_on"]


def _models(models: Mapping[str, Any]) -> Iterator[Sample]:
    yield "azaion_models", (), models["count"]
    yield "azaion_release_last_published_timestamp_seconds", (), (models["published"] or {}).get("at")
    if current := models["current"]:
        yield "azaion_model_map50_ratio", (), current["map50"]
        yield "azaion_model_map50_95_ratio", (), current["map50_95"]
        yield "azaion_model_created_timestamp_seconds", (), current["created"]


def _releases(status: Mapping[str, Any], totals: Mapping[str, int]) -> Iterator[Sample]:
    waiting = [release for release in status["releases"] if release["state"] == "waiting"]
    yield "azaion_releases_waiting", (), len(waiting)
    yield "azaion_release_attempts", (), max((release["attempts"] for release in waiting), default=0)
    yield "azaion_releases_published_total", (), totals["published"]
    yield "azaion_release_failures_total", (), totals["failures"]
    yield "azaion_api_retries_total", (), totals["api_retries"]
    yield "azaion_api_login_refused", (), status["api"]["login_refused"]
    yield "azaion_cdn_retries_total", (), totals["cdn_retries"]


def _machine(status: Mapping[str, Any]) -> Iterator[Sample]:
    disk = status["disk"]
    yield "azaion_disk_total_bytes", (), disk["total_bytes"]
    yield "azaion_disk_free_bytes", (), disk["free_bytes"]
    yield "azaion_disk_total_inodes", (), disk["inodes_total"]
    yield "azaion_disk_free_inodes", (), disk["inodes_free"]
    yield "azaion_disk_used_ratio", (), disk["used_percent"] / _PERCENT
    yield "azaion_ledger_bytes", (), disk["ledger_bytes"]
    yield "azaion_gpus", (), len(status["gpus"])
    yield "azaion_gpus_broken", (), status["gpus_problem"] is not None
    for gpu in status["gpus"]:
        label = (gpu["uuid"], str(gpu["index"]))
        busy = gpu["utilisation_percent"]
        yield "azaion_gpu_memory_total_bytes", label, gpu["memory_total_bytes"]
        yield "azaion_gpu_memory_free_bytes", label, gpu["memory_free_bytes"]
        yield "azaion_gpu_utilisation_ratio", label, None if busy is None else busy / _PERCENT
        yield "azaion_gpu_temperature_celsius", label, gpu["temperature_celsius"]
        yield "azaion_gpu_memory_errors", label, gpu["memory_errors"]
        yield "azaion_gpu_faults", label, len(gpu["faults"])
        yield "azaion_gpu_leased", label, gpu["leased"]
