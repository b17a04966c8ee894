"""Logging: one JSON object a line, events with fields. All event names are in `azaion_daemon.logs.catalogue`.

Writing happens on a thread of its own behind a bounded queue, so that a reader that stalls cannot stall the event loop.
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


def more_talkative(one: str, other: str) -> str:
    """The one of two levels that lets more through."""
    return min(one, other, key=lambda level: logging.getLevelNamesMapping()[level.upper()])


def set_level(level: str) -> None:
    """Log from `level` on. Libraries stay at `warning`: at `debug` rstream would log whole frames, images included."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("azaion_daemon").setLevel(level.upper())


def dropped_lines() -> int:
    """How many lines were lost since nobody read them."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, _LineQueue))


class _LineQueue(logging.handlers.QueueHandler):
    """Hands records to the writing thread as they are: they are formatted there, in the same process."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            super().enqueue(record)
        except queue.Full:  # nobody reads: losing lines is better than stopping the daemon
            self.dropped += 1


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
