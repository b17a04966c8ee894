"""Every event that is logged: its name, which is stable and alerted on, its level, what it means, its fields and what to do.

A test holds the source against it, and the operator's guide has a page that is made from it.
"""

from typing import Literal, NamedTuple

Level = Literal["debug", "info", "warning", "error"]


class Event(NamedTuple):
    """What one event says."""

    level: Level
    meaning: str
    fields: tuple[str, ...] = ()
    remedy: str = ""
    """What an operator does about it; empty when there is nothing to do."""


CATALOGUE: dict[str, Event] = {
    # The daemon
    "daemon.starting": Event("info", "Configuration is read; recovery begins.", ("version", "pid", "config", "root")),
    "daemon.ready": Event("info", "Recovery is done; the daemon works.", ("seconds",)),
    "daemon.stopping": Event("info", "A signal asked the daemon to stop; the batch in hand is finished.", ()),
    "daemon.stopped": Event("info", "Everything is written; the process ends.", ()),
    "daemon.failed": Event("error", "The daemon ends because of what `error` says.", ("error", "kind")),
    "daemon.crashed": Event("error", "A fault of ours: please report it with the traceback.", ()),
    "daemon.stray_error": Event("warning", "A library's own task failed; what relies on it notices by itself.", ("what", "error")),
    "request.answered": Event("info", "What a command asked for was done, or refused; see `error`.", ("kind", "arguments", "error")),
    "config.reloaded": Event(
        "info",
        "The configuration was read again: `applied` takes effect now, `next_job` with the next job, `restart_required` with a restart.",
        ("applied", "next_job", "restart_required"),
    ),
    "config.reload_failed": Event("error", "The new configuration cannot be used, see `error`; everything stays as it was.", ("error",)),
    "config.model_key_missing": Event("warning", "No AZAION_MODEL_KEY: models are trained, but releases wait.", ()),
    "root.was_open": Event(
        "warning",
        "Others than the daemon's user could write to a directory that it trusts (`mode`); it was closed to them (`now`).",
        ("path", "mode", "now"),
        "Find out who opened it, and whether something lies there that nobody of yours put there. Where `now` is `mode`, it could not be "
        "changed: do it as root (deploy/README.md, Permissions).",
    ),
    "secret.open": Event(
        "warning",
        "A file with a secret can be read by others than its owner and its group, or written by others than its owner.",
        ("path", "mode"),
        "chmod o-rwx,g-w it; rotate what is in it if somebody may have read it (deploy/README.md, Rotate secrets).",
    ),
    # The stream
    "stream.connecting": Event("info", "A connection is tried; `attempt` counts since the last success.", ("host", "port", "attempt")),
    "stream.connected": Event("info", "Subscribed at `offset`.", ("stream", "offset", "start")),
    "stream.disconnected": Event(
        "warning",
        "There is no connection; it is tried again after `retry_in_s`. A `why` is logged at its 1st, 2nd, 4th ... time (`repeated`).",
        ("why", "retry_in_s", "repeated"),
    ),
    "stream.start_outside": Event(
        "warning",
        "stream.start_from is not in the stream: one before `first` means `first`, one after `last` is waited for.",
        ("stream", "start_from", "first", "last"),
    ),
    "stream.begun": Event(
        "info", "The first message of a stream is taken; positions are its offsets and `base`.", ("stream", "offset", "base")
    ),
    "stream.position_unverified": Event(
        "info", "The position was imported, so nothing can be compared with the message there.", ("position", "offset", "first", "last")
    ),
    "stream.mismatch": Event(
        "error",
        "The message at the ledger's position is not the one that was consumed: another or a truncated stream (`kind`, a guess).",
        ("stream", "kind", "why", "position", "offset", "base", "digest", "found", "first", "last", "on_mismatch"),
    ),
    "stream.gap_accepted": Event(
        "warning",
        "stream.on_mismatch is `continue`: `missing` offsets are gone, and the next message is taken.",
        ("stream", "missing", "position"),
    ),
    "stream.begun_anew": Event(
        "warning", "stream.on_mismatch is `continue`: a new stream is taken from its beginning.", ("stream", "position")
    ),
    # Ingest
    "ingest.recovered": Event("info", "Annotations that a crash left between ledger and tree were placed.", ("annotations",)),
    "ingest.batch": Event(
        "info",
        "A batch is committed and in the tree.",
        ("messages", "bytes", "annotations", "quarantined", "position", "offset", "seconds"),
    ),
    "ingest.message_quarantined": Event(
        "warning", "A message could not be decoded or applied; it is kept in the quarantine.", ("position", "why")
    ),
    "ingest.rejected_transition": Event(
        "warning", "A message asked for what its annotation's state does not allow; see `why`.", ("names", "count", "position")
    ),
    "ingest.unknown_role": Event(
        "warning", "A role that the platform's contract does not name; taken for a non-validating one.", ("role", "position")
    ),
    "ingest.image_lost": Event("error", "The ledger knows an image that no directory holds; the annotation is flagged.", ("name",)),
    "ingest.replayed": Event(
        "info", "A quarantined message was applied after all, as an operator asked.", ("position", "annotations", "refused")
    ),
    "index.digesting": Event("info", "A dataset waits until the images of an indexed tree are read; `left` is how many.", ("left",)),
    "index.digested": Event("info", "The images of an indexed tree are read; their digests are known.", ("annotations", "seconds")),
    "ingest.paused": Event("warning", "No more messages are taken until the cause is gone; see `why`.", ("why",)),
    "ingest.left_unfinished": Event(
        "warning", "A stop found no space to finish in; nothing is lost, the next start goes on. See `why`.", ("why",)
    ),
    "ingest.resumed": Event("info", "Messages are taken again.", ()),
    # Dataset
    "trigger.due": Event("info", "A training job is due, because of `why`.", ("why", "job")),
    "dataset.forming": Event("info", "A dataset is being formed.", ("job",)),
    "dataset.formed": Event(
        "info",
        "A dataset is complete under its name; `remarks` are what dataset.json says of it.",
        ("job", "dataset", "id", "images", "objects", "excluded", "remarks"),
    ),
    "dataset.resizing": Event(
        "info", "Images are being reduced to the training size; `done` `of` those that were not yet.", ("done", "of", "images_per_s")
    ),
    "dataset.resized": Event("info", "Images were reduced; `outcomes` counts what became of them.", ("outcomes", "bytes", "seconds")),
    "dataset.resized_pruned": Event("info", "Resized images that no dataset uses were removed.", ("images", "bytes")),
    "dataset.resizer_died": Event(
        "warning", "A process that resizes images has ended; another one goes on with its work.", ("how", "annotation", "deaths")
    ),
    "dataset.debris_removed": Event("info", "A dataset that a crash left unfinished was removed.", ("dataset",)),
    "retention.evaluations_pruned": Event("info", "Evaluations that were not used for the longest time were removed.", ("evaluations",)),
    "retention.removed": Event(
        "info",
        "A dataset, a model or (a part of) a job's directory was removed, because of `why`; that gave `freed_bytes`.",
        ("directory", "name", "why", "freed_bytes"),
    ),
    "retention.failed": Event(
        "warning", "Something cannot be read or removed, see `why`; it is tried again, once a day at least.", ("name", "why")
    ),
    # Training
    "job.state": Event("info", "A job changed its state.", ("job", "state", "before", "why")),
    "job.weights": Event(
        "info",
        "What a job's training starts from; `why` says why that is not what training.start_from asks for.",
        ("job", "started_from", "model", "sha256", "why"),
    ),
    "job.failed": Event(
        "error", "A job ended without a model; see `why`. What is to `blame` must change, or may pass.", ("job", "why", "blame")
    ),
    "worker.started": Event("info", "A worker process was started for a job.", ("job", "pid")),
    "worker.adopted": Event("info", "A worker that outlived the daemon was found and is awaited.", ("job", "pid", "attempt")),
    "worker.epoch": Event(
        "info",
        "A worker finished an epoch; `remaining_s` is what its pace makes of the epochs that are left.",
        ("job", "epoch", "epochs", "losses", "val_losses", "map50", "map50_95", "seconds", "images_per_s", "remaining_s"),
    ),
    "worker.epochs_before": Event(
        "info",
        "A training had come so far before this daemon took it up: the last epoch that had ended.",
        ("job", "epoch", "epochs", "map50", "map50_95"),
    ),
    "worker.phase": Event("info", "A worker entered another phase.", ("job", "phase", "attempt")),
    "job.judged": Event(
        "info", "It was decided about a job's model; `decision` and `why`, `by` the gate or an operator.", ("job", "decision", "why", "by")
    ),
    "worker.waiting": Event(
        "warning", "A job waits for a GPU, or for space; see `why`, which is logged again when it changes.", ("job", "why")
    ),
    "worker.retried": Event(
        "warning",
        "A worker ended for a cause that may pass; after `pause_s` the job goes on from its last checkpoint.",
        ("job", "why", "attempt", "pause_s"),
    ),
    "worker.stray": Event(
        "warning", "A worker lives although its job has ended; it is ended, or `why` says what hinders that.", ("job", "why")
    ),
    "worker.ended": Event("info", "A worker process ended.", ("job", "pid", "status", "signal")),
    "report.not_stamped": Event("warning", "The verdict about a model is not in its report, see `why`; the ledger has it.", ("job", "why")),
    "gate.prepared": Event(
        "info",
        "What a job's model is evaluated on, and compared with (`rival`); `left_out` counts test images by reason.",
        ("job", "rival", "images", "own", "left_out"),
    ),
    "gate.dataset_unreadable": Event(
        "warning", "What a model was trained on cannot be read; the ledger is asked instead.", ("dataset", "why")
    ),
    "worker.hung": Event(
        "error",
        "A worker lives, but does not get on, see `why`; everything of its job is ended, and it is tried again.",
        ("job", "pid", "why"),
    ),
    "worker.gpu_not_free": Event("error", "A GPU was not given back after its worker was ended; see `why` for what to do.", ("job", "why")),
    "worker.other_release": Event(
        "warning", "The release that a job began with is `gone`: it goes on with this one.", ("job", "gone", "instead")
    ),
    "model.current": Event("info", "A model became the current one.", ("job", "sha256")),
    "model.promoted": Event("info", "An operator made a kept model the current one again, for what `why` says.", ("sha256", "job", "why")),
    # Publishing
    "release.started": Event("info", "A model is being encrypted and uploaded.", ("serial", "model", "model_sha256", "resumed")),
    "release.part_uploaded": Event("info", "A part is stored and verified.", ("serial", "part", "size")),
    "release.part_gone": Event(
        "warning", "A stored part of a release under way is not there any more, or not here: it is uploaded anew.", ("serial", "part")
    ),
    "release.verified": Event("info", "What consumers download was joined, decrypted and compared.", ("serial", "small_verified", "ran")),
    "release.manifest": Event(
        "info",
        "The signed manifest of a release is stored; `key` is the id of the public key to verify it with.",
        ("serial", "name", "key"),
    ),
    "release.manifest_unknown": Event(
        "warning",
        "A manifest in the object store was not signed with our key: its serial number counts, unless it is absurd.",
        ("name", "serial", "key"),
    ),
    "release.serial_raised": Event(
        "warning", "A release was given another serial number, since its own is not above what was published.", ("serial", "to", "why")
    ),
    "release.rolled_back": Event(
        "warning",
        "An operator has an older model published again, because of `why`; it is the current one now.",
        ("serial", "to", "model", "why"),
    ),
    "release.published": Event("info", "A release is complete.", ("serial", "model_sha256")),
    "release.waiting": Event("warning", "A release waits for what `why` says.", ("serial", "why", "attempts", "retry_in_s")),
    "release.not_run": Event(
        "warning",
        "What consumers get could not be run here, see `why`; it was compared byte by byte all the same.",
        ("serial", "part", "why"),
    ),
    "release.put_back": Event(
        "error",
        "The release `failed` did not verify after the swap, see `why`; consumers have `serial` again.",
        ("serial", "failed", "why"),
    ),
    "release.taken_back": Event(
        "error",
        "The first release did not verify after the swap, see `why`; consumers have none again if `removed`.",
        ("serial", "why", "removed"),
    ),
    "release.not_put_back": Event(
        "error", "What did not verify is still what consumers get; the next release replaces it. See `why`.", ("why",)
    ),
    "release.no_space": Event(
        "warning", "A release is done, but the ledger has no space for that; it is recorded once there is some.", ("why",)
    ),
    "platform.login": Event("info", "A login at the platform succeeded.", ("email",)),
    "platform.retry": Event("warning", "A call to the platform failed and is tried again.", ("call", "why", "attempt", "retry_in_s")),
    "cdn.credentials": Event("info", "Credentials of the CDN were obtained.", ("source", "host", "uploader")),
    "cdn.upload_aborted": Event(
        "info", "An upload that a killed process had left was removed from the store, if `aborted`.", ("key", "aborted")
    ),
    "cdn.uploads_left": Event(
        "info", "At the start, noted uploads could not be aborted, see `why`; the next release attempt does it.", ("why",)
    ),
    "cdn.uploads_unlisted": Event(
        "info", "The uploader may not list uploads; of those that were left, only noted ones are removed.", ("bucket",)
    ),
    "cdn.removed": Event("info", "A versioned part beyond `publish.keep_versions` was removed from the store.", ("key",)),
    "cdn.not_removed": Event(
        "info", "An old versioned part stays in the store: the uploader may not remove it, or see `why`.", ("key", "why")
    ),
    "hardware.computed": Event("info", "The hardware string was computed and is kept from now on.", ("kept_in",)),
}
