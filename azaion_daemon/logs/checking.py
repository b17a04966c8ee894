"""A logger that holds what it is given against the catalogue.

An event, a level or a field outside it is a fault of ours: a warning, which the tests take for an error and production logs beside the
event itself, which is never lost.
"""

import warnings
from collections.abc import Collection, Iterator
from typing import Any

import structlog

from azaion_daemon.logs.catalogue import CATALOGUE


class UncataloguedWarning(UserWarning):
    """Something was logged that is not in the catalogue."""


def faults(event: str | None, level: str, fields: Collection[str]) -> Iterator[str]:
    """What of an event is outside the catalogue."""
    if (entry := CATALOGUE.get(event or "")) is None:
        yield f"the event {event} is not in the catalogue"
        return
    if level != entry.level:
        yield f"{event} is logged at {level}, not {entry.level}"
    given = {"exception" if name == "exc_info" else name for name in fields}
    if unknown := sorted(given - {*entry.fields}):
        yield f"{event} has no {', '.join(unknown)} in the catalogue"


class Logger(structlog.stdlib.BoundLogger):
    """A logger of events."""

    def _proxy_to_logger(self, method_name: str, event: str | None = None, *event_args: str, **event_kw: Any) -> Any:
        raised = method_name == "exception"
        for fault in faults(event, "error" if raised else method_name, [*event_kw, *(["exc_info"] if raised else [])]):
            warnings.warn(fault, UncataloguedWarning, stacklevel=3)
        return super()._proxy_to_logger(method_name, event, *event_args, **event_kw)
