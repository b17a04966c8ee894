"""Logging: one JSON object a line, events with fields, and the catalogue of every event name.

An event name is stable: operators alert on it. `CATALOGUE` lists all of them with their level and what they mean; a test holds the source
against it. Writing happens on a thread of its own behind a bounded queue, so that a reader that stalls cannot stall the event loop.
"""

import atexit
import logging
import logging.handlers
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal, TextIO

import structlog

SERVICE = "azaion-daemon"
_QUEUE_LINES = 10_000
_FLUSH_S = 3.0
_WAKE_S = 0.1

CATALOGUE: dict[str, tuple[str, str]] = {
    # The daemon
    "daemon.starting": ("info", "Configuration is read; recovery begins."),
    "daemon.ready": ("info", "Recovery is done; the daemon works."),
    "daemon.stopping": ("info", "A signal asked the daemon to stop; the batch in hand is finished."),
    "daemon.stopped": ("info", "Everything is written; the process ends."),
    "daemon.failed": ("error", "The daemon ends because of what `error` says."),
    "daemon.crashed": ("error", "A fault of ours: please report it with the traceback."),
    "daemon.stray_error": ("warning", "A library's own task failed; what relies on it notices by itself."),
    "request.answered": ("info", "What a command asked for was done, or refused; see `error`."),
    "config.reloaded": (
        "info",
        "The configuration was read again: `applied` takes effect now, `next_job` with the next job, `restart_required` with a restart.",
    ),
    "config.reload_failed": ("error", "The new configuration cannot be used, see `error`; everything stays as it was."),
    "config.model_key_missing": ("warning", "No AZAION_MODEL_KEY: models are trained, but releases wait."),
    # The stream
    "stream.connecting": ("info", "A connection is tried; `attempt` counts since the last success."),
    "stream.connected": ("info", "Subscribed at `offset`."),
    "stream.disconnected": (
        "warning",
        "There is no connection; it is tried again after `retry_in_s`. A `why` is logged at its 1st, 2nd, 4th ... time (`repeated`).",
    ),
    "stream.start_outside": (
        "warning",
        "stream.start_from is not in the stream: one before `first` means `first`, one after `last` is waited for.",
    ),
    "stream.begun": ("info", "The first message of a stream is taken; positions are its offsets and `base`."),
    "stream.position_unverified": ("info", "The position was imported, so nothing can be compared with the message there."),
    "stream.mismatch": (
        "error",
        "The message at the ledger's position is not the one that was consumed: another or a truncated stream (`kind`, a guess).",
    ),
    "stream.gap_accepted": ("warning", "stream.on_mismatch is `continue`: `missing` offsets are gone, and the next message is taken."),
    "stream.begun_anew": ("warning", "stream.on_mismatch is `continue`: a new stream is taken from its beginning."),
    # Ingest
    "ingest.recovered": ("info", "Annotations that a crash left between ledger and tree were placed."),
    "ingest.batch": ("info", "A batch is committed and in the tree."),
    "ingest.message_quarantined": (
        "warning",
        "A message could not be decoded or applied; it is kept in the quarantine.",
    ),
    "ingest.rejected_transition": (
        "warning",
        "A message asked for what its annotation's state does not allow; see `why`.",
    ),
    "ingest.unknown_role": (
        "warning",
        "A role that the platform's contract does not name; taken for a non-validating one.",
    ),
    "ingest.image_lost": ("error", "The ledger knows an image that no directory holds; the annotation is flagged."),
    "ingest.replayed": ("info", "A quarantined message was applied after all, as an operator asked."),
    "index.digesting": ("info", "A dataset waits until the images of an indexed tree are read; `left` is how many."),
    "index.digested": ("info", "The images of an indexed tree are read; their digests are known."),
    "ingest.paused": ("warning", "No more messages are taken until the cause is gone; see `why`."),
    "ingest.left_unfinished": ("warning", "A stop found no space to finish in; nothing is lost, the next start goes on. See `why`."),
    "ingest.resumed": ("info", "Messages are taken again."),
    # Dataset
    "trigger.due": ("info", "A training job is due, because of `why`."),
    "dataset.forming": ("info", "A dataset is being formed."),
    "dataset.formed": ("info", "A dataset is complete under its name; `remarks` are what dataset.json says of it."),
    "dataset.resizing": ("info", "Images are being reduced to the training size; `done` `of` those that were not yet."),
    "dataset.resized": ("info", "Images were reduced; `outcomes` counts what became of them."),
    "dataset.resized_pruned": ("info", "Resized images that no dataset uses were removed."),
    "dataset.resizer_died": ("warning", "A process that resizes images has ended; another one goes on with its work."),
    "dataset.debris_removed": ("info", "A dataset that a crash left unfinished was removed."),
    "retention.evaluations_pruned": ("info", "Evaluations that were not used for the longest time were removed."),
    "retention.removed": (
        "info",
        "A dataset, a model or (a part of) a job's directory was removed, because of `why`; that gave `freed_bytes`.",
    ),
    "retention.failed": ("warning", "Something cannot be read or removed, see `why`; it is tried again, once a day at least."),
    # Training
    "job.state": ("info", "A job changed its state."),
    "job.weights": ("info", "What a job's training starts from; `why` says why that is not what training.start_from asks for."),
    "job.failed": ("error", "A job ended without a model; see `why`. What is to `blame` must change, or may pass."),
    "worker.started": ("info", "A worker process was started for a job."),
    "worker.adopted": ("info", "A worker that outlived the daemon was found and is awaited."),
    "worker.epoch": ("info", "A worker finished an epoch; `remaining_s` is what its pace makes of the epochs that are left."),
    "worker.epochs_before": ("info", "A training had come so far before this daemon took it up: the last epoch that had ended."),
    "worker.phase": ("info", "A worker entered another phase."),
    "job.judged": ("info", "It was decided about a job's model; `decision` and `why`, `by` the gate or an operator."),
    "worker.waiting": ("warning", "A job waits for a GPU, or for space; see `why`, which is logged again when it changes."),
    "worker.retried": ("warning", "A worker ended for a cause that may pass; after `pause_s` the job goes on from its last checkpoint."),
    "worker.stray": ("warning", "A worker lives although its job has ended; it is ended, or `why` says what hinders that."),
    "worker.ended": ("info", "A worker process ended."),
    "report.not_stamped": ("warning", "The verdict about a model is not in its report, see `why`; the ledger has it."),
    "gate.prepared": ("info", "What a job's model is evaluated on, and compared with (`rival`); `left_out` counts test images by reason."),
    "gate.dataset_unreadable": ("warning", "What a model was trained on cannot be read; the ledger is asked instead."),
    "worker.hung": ("error", "A worker lives, but does not get on, see `why`; everything of its job is ended, and it is tried again."),
    "worker.gpu_not_free": ("error", "A GPU was not given back after its worker was ended; see `why` for what to do."),
    "worker.other_release": ("warning", "The release that a job began with is `gone`: it goes on with this one."),
    "model.current": ("info", "A model became the current one."),
    "model.promoted": ("info", "An operator made a kept model the current one again, for what `why` says."),
    # Publishing
    "release.started": ("info", "A model is being encrypted and uploaded."),
    "release.part_uploaded": ("info", "A part is stored and verified."),
    "release.part_gone": ("warning", "A stored part of a release under way is not there any more, or not here: it is uploaded anew."),
    "release.verified": ("info", "What consumers download was joined, decrypted and compared."),
    "release.manifest": ("info", "The signed manifest of a release is stored; `key` is the id of the public key to verify it with."),
    "release.manifest_unknown": (
        "warning",
        "A manifest in the object store was not signed with our key: its serial number counts, unless it is absurd.",
    ),
    "release.serial_raised": ("warning", "A release was given another serial number, since its own is not above what was published."),
    "release.rolled_back": ("warning", "An operator has an older model published again, because of `why`; it is the current one now."),
    "release.published": ("info", "A release is complete."),
    "release.waiting": ("warning", "A release waits for what `why` says."),
    "release.not_run": ("warning", "What consumers get could not be run here, see `why`; it was compared byte by byte all the same."),
    "release.put_back": ("error", "The release `failed` did not verify after the swap, see `why`; consumers have `serial` again."),
    "release.taken_back": ("error", "The first release did not verify after the swap, see `why`; consumers have none again if `removed`."),
    "release.not_put_back": ("error", "What did not verify is still what consumers get; the next release replaces it. See `why`."),
    "release.no_space": ("warning", "A release is done, but the ledger has no space for that; it is recorded once there is some."),
    "platform.login": ("info", "A login at the platform succeeded."),
    "platform.retry": ("warning", "A call to the platform failed and is tried again."),
    "cdn.credentials": ("info", "Credentials of the CDN were obtained."),
    "cdn.upload_aborted": ("info", "An upload that a killed process had left was removed from the store, if `aborted`."),
    "cdn.uploads_left": ("info", "At the start, noted uploads could not be aborted, see `why`; the next release attempt does it."),
    "cdn.uploads_unlisted": ("info", "The uploader may not list uploads; of those that were left, only noted ones are removed."),
    "cdn.removed": ("info", "A versioned part beyond `publish.keep_versions` was removed from the store."),
    "cdn.not_removed": ("info", "An old versioned part stays in the store: the uploader may not remove it, or see `why`."),
    "hardware.computed": ("info", "The hardware string was computed and is kept from now on."),
}


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; `name` is its `__name__`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def logging_to(stream: TextIO, *, level: str, style: Literal["auto", "json", "pretty"]) -> Iterator[None]:
    """Send every log line of the process to `stream` until the context ends, then flush.

    `auto` is pretty on a terminal and JSON elsewhere. Lines of libraries come out in the same form, with `logger` set.
    """
    pretty = style == "pretty" or (style == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if not pretty else structlog.processors.ExceptionPrettyPrinter(file=stream),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty()) if pretty else structlog.processors.JSONRenderer(default=str)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _order_fields, renderer],
    )
    output = logging.StreamHandler(stream)
    output.setFormatter(formatter)
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_LINES)
    listener = _Writer(lines, output)
    root = logging.getLogger()
    previous = root.handlers[:]
    root.handlers = [_LineQueue(lines)]
    set_level(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a cached logger would keep its level for ever
    )
    listener.start()
    atexit.register(listener.stop)
    try:
        yield
    finally:
        atexit.unregister(listener.stop)
        listener.stop()
        root.handlers = previous
        structlog.reset_defaults()


def set_level(level: str) -> None:
    """Log from `level` on. Libraries stay at `warning`: at `debug` rstream would log whole frames, images included."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("azaion_daemon").setLevel(level.upper())


class _LineQueue(logging.handlers.QueueHandler):
    """Hands records to the writing thread as they are: they are formatted there, in the same process."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):  # nobody reads: losing lines is better than stopping the daemon
            super().enqueue(record)


class _Writer:
    """The writing thread. Its end waits for the last lines, but not for ever for a reader that has stalled.

    (The standard library's QueueListener cannot be stopped while its queue is full.)
    """

    def __init__(self, lines: "queue.Queue[logging.LogRecord]", output: logging.Handler) -> None:
        self._lines = lines
        self._output = output
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        while not (self._ending.is_set() and self._lines.empty()):
            with suppress(queue.Empty):
                self._output.handle(self._lines.get(timeout=_WAKE_S))

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(_FLUSH_S)


def _order_fields(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    first = {"timestamp": event.pop("timestamp", None), "level": event.pop("level", None), "service": SERVICE}
    return {**first, "event": event.pop("event", ""), **event}
