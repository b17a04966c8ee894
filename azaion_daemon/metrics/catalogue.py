"""Every metric: its name, which is stable and alerted on, its kind, what it means and its labels.

Tests hold what is exported, and the alert rules, against it, and the operator's guide has a page that is made from it. Labels have few
values: those of a set that the code knows, a GPU of this machine, or the job of a training that is under way (`training`: Prometheus
itself has a label `job`).
"""

from typing import Literal, NamedTuple

Kind = Literal["gauge", "counter", "histogram"]


class Metric(NamedTuple):
    """What one metric says. Counters begin at 0 with each start of the daemon."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_GPU = ("uuid", "index")

CATALOGUE: dict[str, Metric] = {
    # The daemon
    "azaion_build_info": Metric("gauge", "1, with the version of the daemon.", ("version",)),
    "azaion_state": Metric("gauge", "1 for the state that the daemon is in, 0 for the others.", ("state",)),
    "azaion_status_timestamp_seconds": Metric("gauge", "When the daemon gathered these values: once a second while its loop runs."),
    "azaion_part_healthy": Metric("gauge", "Whether a part of the daemon gets on, or waits for something named: 1 or 0.", ("part",)),
    "azaion_log_lines_dropped_total": Metric("counter", "Log lines that were lost since nobody read the daemon's output."),
    "process_start_time_seconds": Metric("gauge", "When the daemon was started."),
    "process_cpu_seconds_total": Metric("counter", "CPU time of the daemon, without its trainings."),
    "process_resident_memory_bytes": Metric("gauge", "Memory of the daemon, without its trainings."),
    "process_virtual_memory_bytes": Metric("gauge", "Its address space."),
    "process_open_fds": Metric("gauge", "Its open file descriptors."),
    "process_max_fds": Metric("gauge", "How many it may have."),
    # The configuration
    "azaion_config_loaded_timestamp_seconds": Metric("gauge", "When the configuration in force was read."),
    "azaion_config_last_reload_successful": Metric("gauge", "Whether the last reload was applied: 1 or 0; 1 before the first."),
    "azaion_config_last_reload_timestamp_seconds": Metric("gauge", "When the last reload was asked for; absent before the first."),
    "azaion_config_restart_required_settings": Metric("gauge", "Settings that were changed and wait for a restart."),
    "azaion_config_reloads_total": Metric("counter", "Reloads by result: ok or failed.", ("result",)),
    # The stream
    "azaion_stream_connected": Metric("gauge", "Whether there is a connection to the broker: 1 or 0."),
    "azaion_stream_refused": Metric("gauge", "Whether the broker refuses the user, the password or the right to read: 1 or 0."),
    "azaion_stream_reconnects_total": Metric("counter", "Connections that were made after one had been lost."),
    "azaion_stream_failures_total": Metric("counter", "Attempts to connect that failed, and connections that were lost."),
    "azaion_stream_position": Metric("gauge", "Position up to which messages are in the ledger; it grows on when a stream is made anew."),
    "azaion_stream_offset": Metric("gauge", "The same as an offset of this stream."),
    "azaion_stream_last_message_age_seconds": Metric("gauge", "Time since the last message came; absent until one has since the start."),
    "azaion_stream_behind_seconds": Metric("gauge", "How old messages are when they are taken; absent while that is not known."),
    "azaion_stream_backlog_messages": Metric("gauge", "Messages in the stream after the last one taken; absent while that is not known."),
    "azaion_stream_waiting_messages": Metric("gauge", "Messages that were taken from the stream and wait in memory."),
    "azaion_stream_waiting_bytes": Metric("gauge", "Their size."),
    # Ingest
    "azaion_ingest_paused": Metric("gauge", "Whether messages are not taken since the disk is too full: 1 or 0."),
    "azaion_ingest_messages_total": Metric("counter", "Messages that are done: applied, ignored or quarantined."),
    "azaion_ingest_bytes_total": Metric("counter", "Their size."),
    "azaion_ingest_annotations_total": Metric(
        "counter", "Annotations that a batch brought into a home, or changed there: seed, validated or deleted.", ("home",)
    ),
    "azaion_ingest_ignored_total": Metric("counter", "Annotations of which a message asked for what their state does not allow."),
    "azaion_ingest_quarantined_total": Metric(
        "counter", "Messages put into the quarantine, by what is wrong: envelope, payload, name, field, detections or image.", ("fault",)
    ),
    "azaion_ingest_batch_seconds": Metric("histogram", "From the commit of a batch until it is in the tree; the count is that of batches."),
    "azaion_ingest_sync_seconds": Metric("histogram", "Syncing the filesystem, for what was received and for the tree."),
    "azaion_annotations": Metric("gauge", "Annotations by home: seed, validated or deleted.", ("home",)),
    "azaion_annotations_flagged": Metric("gauge", "Annotations with a flag: no image, a conflicting one, or a label that cannot be used."),
    "azaion_quarantine_messages": Metric("gauge", "Messages that lie in the quarantine."),
    "azaion_last_validated_timestamp_seconds": Metric(
        "gauge", "When the validated annotations last changed: one was added, edited or deleted. Kept over restarts."
    ),
    # Training
    "azaion_training_new_annotations": Metric("gauge", "Validated annotations that are new, changed or gone since the last training."),
    "azaion_training_threshold_annotations": Metric("gauge", "So many are needed (trigger.new_annotations); absent when it is null."),
    "azaion_training_next_schedule_timestamp_seconds": Metric("gauge", "The next time of trigger.schedule; absent without one."),
    "azaion_jobs": Metric("gauge", "Training jobs in the ledger by state.", ("state",)),
    "azaion_jobs_ended_total": Metric(
        "counter", "Trainings that ended: accepted, rejected, held, tried (a trial), failed or cancelled.", ("state",)
    ),
    "azaion_training_epoch": Metric("gauge", "Epoch that a training under way is in, from 1.", ("training",)),
    "azaion_training_epochs": Metric("gauge", "How many it has.", ("training",)),
    "azaion_training_progress_ratio": Metric("gauge", "Which share of them is done, 0..1.", ("training",)),
    "azaion_training_last_progress_timestamp_seconds": Metric(
        "gauge", "When its worker last got on: another phase, step, epoch or batch.", ("training",)
    ),
    "azaion_training_map50_95_ratio": Metric("gauge", "mAP50-95 of its last epoch, on the validation images, 0..1.", ("training",)),
    # Models and releases
    "azaion_models": Metric("gauge", "Models in the ledger."),
    "azaion_model_map50_ratio": Metric("gauge", "mAP50 of the current model, 0..1; absent when it is not known."),
    "azaion_model_map50_95_ratio": Metric("gauge", "mAP50-95 of the current model, 0..1; absent when it is not known."),
    "azaion_model_created_timestamp_seconds": Metric("gauge", "When the current model was made; absent without one."),
    "azaion_releases_waiting": Metric("gauge", "Releases that are not published yet: 0 or 1, since a newer one supersedes an older one."),
    "azaion_release_attempts": Metric("gauge", "How often the one that waits was tried in vain."),
    "azaion_release_last_published_timestamp_seconds": Metric("gauge", "When a model was last published; absent before the first."),
    "azaion_releases_published_total": Metric("counter", "Models that were published."),
    "azaion_release_failures_total": Metric("counter", "Tries to publish one that failed."),
    "azaion_api_retries_total": Metric("counter", "Requests to the platform that were repeated."),
    "azaion_api_login_refused": Metric("gauge", "Whether the platform refuses the login, so that nothing is asked of it: 1 or 0."),
    "azaion_cdn_retries_total": Metric("counter", "Requests to the CDN that were repeated."),
    # The machine
    "azaion_disk_total_bytes": Metric("gauge", "Size of the root's filesystem."),
    "azaion_disk_free_bytes": Metric("gauge", "What the daemon may still write to it."),
    "azaion_disk_total_inodes": Metric("gauge", "How many files and directories it can hold; 0 where there is no limit."),
    "azaion_disk_free_inodes": Metric("gauge", "How many more."),
    "azaion_disk_used_ratio": Metric("gauge", "Which share of its space, or of its inodes when that is more, is in use, as df says, 0..1."),
    "azaion_ledger_bytes": Metric("gauge", "Size of the ledger, with its write-ahead log."),
    "azaion_gpus": Metric("gauge", "GPUs that the driver shows."),
    "azaion_gpus_broken": Metric("gauge", "Whether the driver does not answer or fails: 1 or 0."),
    "azaion_gpu_memory_total_bytes": Metric("gauge", "Memory of a GPU.", _GPU),
    "azaion_gpu_memory_free_bytes": Metric("gauge", "What is free of it.", _GPU),
    "azaion_gpu_utilisation_ratio": Metric("gauge", "How busy it is, 0..1; absent where it does not say.", _GPU),
    "azaion_gpu_temperature_celsius": Metric("gauge", "How hot it is; absent where it does not say.", _GPU),
    "azaion_gpu_memory_errors": Metric("gauge", "Uncorrected memory errors (ECC) since its last reset; absent where it has no ECC.", _GPU),
    "azaion_gpu_faults": Metric("gauge", "Reasons why it is not used, see `status`: memory errors, rows to be remapped, its mode.", _GPU),
    "azaion_gpu_leased": Metric("gauge", "Whether a training has it: 1 or 0.", _GPU),
}
