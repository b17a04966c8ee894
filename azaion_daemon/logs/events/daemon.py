"""The daemon: what is logged about it."""

from azaion_daemon.logs.event import Event

EVENTS: dict[str, Event] = {
    "daemon.starting": Event("info", "Configuration is read; recovery begins.", ("version", "pid", "config", "root")),
    "daemon.ready": Event("info", "Recovery is done; the daemon works.", ("seconds",)),
    "daemon.stopping": Event("info", "A signal asked the daemon to stop; the batch in hand is finished."),
    "daemon.stopped": Event("info", "Everything is written; the process ends."),
    "daemon.failed": Event(
        "error",
        "The daemon ends because of what `error` says.",
        ("error", "kind"),
        "Do what `error` says. Exit status 78 means that it is not started again before that, 74 that the disk failed (`dmesg`).",
    ),
    "daemon.crashed": Event(
        "error",
        "A fault of ours: please report it with the traceback.",
        ("exception",),
        "Report it with this line. It starts again by itself and goes on from the ledger.",
    ),
    "daemon.stray_error": Event(
        "warning",
        "A library's own task failed; what relies on it notices by itself.",
        ("what", "error", "repeated", "for_s"),
        "Nothing: the parts that rely on it notice. Report it when it comes again and again.",
    ),
    "request.answered": Event("info", "What a command asked for was done, or refused; see `error`.", ("kind", "arguments", "error")),
    "health.ailing": Event(
        "error",
        "A part of the daemon does not get on: it has been at `what` for `seconds`, which is too long. systemd restarts the daemon soon.",
        ("part", "what", "seconds"),
        "Look at the disk and the kernel's log: mostly a call to the disk does not return. A training goes on meanwhile. Where the disk is "
        "just slow, raise WatchdogSec of the unit.",
    ),
    "health.recovered": Event("info", "A part that was ailing gets on again.", ("part", "what")),
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
    "metrics.listening": Event("info", "Metrics can be read at this address.", ("listen",)),
    "metrics.public": Event(
        "warning",
        "Metrics can be read from other machines, without a login.",
        ("listen",),
        "Set `metrics.listen` to an address such as 127.0.0.1:9464, or let a firewall keep others out.",
    ),
    "metrics.failed": Event(
        "warning",
        "Metrics cannot be served, see `why`; the daemon works on, and tries again every `retry_in_s`.",
        ("listen", "why", "retry_in_s"),
        "Find who has the port (`ss -ltnp`), or set `metrics.listen` to an address of this machine and restart.",
    ),
    "metrics.crashed": Event(
        "error", "A fault of ours in the metrics; the daemon works on.", ("exception",), "Please report it with the traceback."
    ),
    "config.reloaded": Event(
        "info",
        "The configuration was read again: `applied` takes effect now, `next_job` with the next job, `restart_required` with a restart.",
        ("applied", "next_job", "restart_required"),
    ),
    "config.reload_failed": Event(
        "error",
        "The new configuration cannot be used, see `error`; everything stays as it was.",
        ("error", "exception"),
        "Correct what `error` names, in .env or config.template.yaml, then `systemctl reload azaion-daemon` again; until then a restart "
        "would end with exit 78.",
    ),
    "config.model_key_missing": Event(
        "warning",
        "No AZAION_MODEL_KEY: models are trained, but releases wait.",
        (),
        "Set AZAION_MODEL_KEY in `.env`, then `systemctl reload azaion-daemon`.",
    ),
    "thread.failed": Event(
        "error",
        "A thread ended by an exception: a fault of ours or of a library.",
        ("thread", "exception"),
        "Report it with this line. Restart the daemon if it does not get on.",
    ),
    "python.unraisable": Event(
        "warning",
        "An exception where none can be caught, such as in a destructor.",
        ("what", "exception"),
        "Nothing. Report it when it comes again and again.",
    ),
    "python.warning": Event(
        "warning", "A library, or Python, warns of `message`.", ("category", "message", "where", "repeated", "for_s"), "Nothing. Report it."
    ),
    "library.said": Event(
        "warning",
        "A library logged a warning or, at level `error`, an error.",
        ("logger", "message", "exception", "repeated", "for_s"),
        "Nothing: what it means for the daemon is told by an event of its own.",
    ),
    "log.lost": Event(
        "warning",
        "Lines were lost since the last such line (`count`) and the start (`total`), because of `why`.",
        ("count", "total", "why"),
        "See to whoever reads the log (journald's limits, a full disk). `status` and the ledger have what matters.",
    ),
}
