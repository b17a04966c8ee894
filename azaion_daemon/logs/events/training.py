"""Training and the gate: what is logged about it."""

from azaion_daemon.logs.event import Event

EVENTS: dict[str, Event] = {
    "job.state": Event("info", "A job changed its state.", ("job", "state", "before", "why")),
    "job.weights": Event(
        "info",
        "What a job's training starts from; `why` says why that is not what training.start_from asks for.",
        ("job", "started_from", "model", "sha256", "why"),
    ),
    "job.failed": Event(
        "error",
        "A job ended without a model; see `why`. What is to `blame` must change, or may pass.",
        ("job", "why", "blame"),
        "Do what `why` says; `azaion-daemon train logs JOB` has the worker's words. For `blame` data or settings change these first.",
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
        "warning",
        "A job waits for a GPU, or for space; see `why`.",
        ("job", "why", "repeated", "for_s"),
        "Nothing when other trainings have the GPUs. Else do what `why` says.",
    ),
    "worker.retried": Event(
        "warning",
        "A worker ended for a cause that may pass; after `pause_s` the job goes on from its last checkpoint.",
        ("job", "why", "attempt", "pause_s"),
        "Nothing, unless it comes again: `azaion-daemon train logs JOB`.",
    ),
    "worker.stray": Event(
        "warning",
        "A worker lives although its job has ended; it is ended, or `why` says what hinders that.",
        ("job", "why"),
        "Nothing, unless `why` names a process that cannot be ended: end it by hand, or restart the machine.",
    ),
    "worker.ended": Event("info", "A worker process ended.", ("job", "pid", "status", "signal")),
    "report.not_stamped": Event(
        "warning",
        "The verdict about a model is not in its report, see `why`; the ledger has it.",
        ("job", "why"),
        "Nothing: `azaion-daemon model show` has the verdict. Mend what `why` says for the next one.",
    ),
    "gate.prepared": Event(
        "info",
        "What a job's model is evaluated on, and compared with (`rival`); `left_out` counts test images by reason.",
        ("job", "rival", "images", "own", "left_out"),
    ),
    "gate.dataset_unreadable": Event(
        "warning",
        "What a model was trained on cannot be read; the ledger is asked instead.",
        ("dataset", "why"),
        "Nothing. Should the disk have faults (`dmesg`), see to them.",
    ),
    "worker.hung": Event(
        "error",
        "A worker lives, but does not get on, see `why`; everything of its job is ended, and it is tried again.",
        ("job", "pid", "why"),
        "Nothing for one. Again and again: the driver (`dmesg | grep -i xid`), the disk or the memory; `azaion-daemon train logs JOB`.",
    ),
    "worker.gpu_not_free": Event(
        "error",
        "A GPU was not given back after its worker was ended; see `why` for what to do.",
        ("job", "why"),
        "Do what `why` says: `nvidia-smi` names the processes; at worst the GPU is reset or the machine restarted.",
    ),
    "worker.other_release": Event(
        "warning",
        "The release that a job began with is `gone`: it goes on with this one.",
        ("job", "gone", "instead"),
        "Nothing, unless results must be comparable to the last digit. Do not remove versions that jobs refer to.",
    ),
    "model.current": Event("info", "A model became the current one.", ("job", "sha256", "map50", "map50_95")),
    "model.promoted": Event("info", "An operator made a kept model the current one again, for what `why` says.", ("sha256", "job", "why")),
}
