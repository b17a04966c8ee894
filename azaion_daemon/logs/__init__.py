"""Logging: one JSON object a line, events with fields. All event names are in `azaion_daemon.logs.catalogue`.

Writing happens on a thread of its own behind a bounded queue, so that a reader that stalls cannot stall the event loop.
"""

import atexit
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO, cast

import structlog

from azaion_daemon.logs.checking import Logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.logs.output import Fields, LogOutput, line
from azaion_daemon.logs.tidying import printable, printable_value, tidied
from azaion_daemon.logs.uncaught import uncaught_to


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; `name` is its `__name__`."""
    return cast("structlog.stdlib.BoundLogger", structlog.wrap_logger(None, wrapper_class=Logger, logger_factory_args=(name,)))


@contextmanager
def logging_to(stream: TextIO, *, level: str, style: Literal["auto", "json", "pretty"]) -> Iterator[LogOutput]:
    """Send every log line of the process to `stream` until the context ends, then flush.

    `auto` is pretty on a terminal and JSON elsewhere. What libraries log, and what Python itself would print, comes in the same form.
    """
    pretty = style == "pretty" or (style == "auto" and stream.isatty())
    output = LogOutput(stream, _Pretty(colours=stream.isatty() and not os.environ.get("NO_COLOR")) if pretty else _json)
    root = logging.getLogger()
    previous = root.handlers[:]
    root.handlers = [_Intake(output)]
    set_level(level)
    structlog.configure(
        processors=[structlog.processors.format_exc_info, _tidy, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a cached logger would keep its level for ever
    )
    output.start()
    atexit.register(output.stop)
    try:
        with uncaught_to(get_logger(__name__)):
            yield output
    finally:
        atexit.unregister(output.stop)
        output.stop()
        root.handlers = previous
        structlog.reset_defaults()


def more_talkative(one: str, other: str) -> str:
    """The one of two levels that lets more through."""
    return min(one, other, key=lambda level: logging.getLevelNamesMapping()[level.upper()])


def set_level(level: str) -> None:
    """Log from `level` on. Libraries stay at `warning`: at `debug` rstream would log whole frames, images included."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("azaion_daemon").setLevel(level.upper())


class _Intake(logging.Handler):
    """Takes the records of the process, ours and those of libraries, and hands them on as plain fields: what they hold may change later."""

    def __init__(self, output: LogOutput) -> None:
        super().__init__()
        self._output = output
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        if isinstance(record.msg, dict):
            fields = dict(record.msg)
            self._output.put(line(level, fields.pop("event"), record.created, **fields))
        elif record.levelno >= logging.WARNING:  # a library may have set its own level lower
            self._take(record, level)

    def _take(self, record: logging.LogRecord, level: str) -> None:
        seen = self._repeats.count(record.name, str(record.msg))
        if seen is None:
            return
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - its arguments do not fit its text: that is no reason to lose it
            message = str(record.msg)
        fields = {"logger": record.name, "message": message, **_exception_of(record), "repeated": seen.times, "for_s": seen.for_s}
        self._output.put(line(level, "library.said", record.created, **tidied(fields)))


def _exception_of(record: logging.LogRecord) -> dict[str, str]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    return {"exception": logging.Formatter().formatException(record.exc_info)}


def _tidy(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return tidied(event)


def _json(fields: Fields) -> str:
    """ASCII alone: no control character, and nothing that is not valid, gets through."""
    return json.dumps(fields)


class _Pretty:
    """A line for people. What a value holds cannot move the cursor, change colours or begin a line of its own."""

    def __init__(self, *, colours: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)

    def __call__(self, fields: Fields) -> str:
        shown: dict[str, Any] = printable_value({name: value for name, value in fields.items() if name != "service"})
        if (traceback := fields.get("exception")) is not None:
            shown["exception"] = "\n".join(f"    {printable(one)}" for one in str(traceback).split("\n"))
        return str(self._render(None, "", shown))
