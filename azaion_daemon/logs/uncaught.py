"""What Python itself would print on stderr, past every log: warnings, exceptions that end a thread, exceptions that nobody can catch."""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog

from azaion_daemon.logs.folding import Repeats


@contextmanager
def uncaught_to(log: structlog.stdlib.BoundLogger) -> Iterator[None]:
    """Log it instead, until the context ends."""
    repeats = Repeats()
    before = threading.excepthook, sys.unraisablehook, warnings.showwarning

    def thread_failed(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_type is SystemExit:
            return
        error = failed.exc_value or failed.exc_type()
        log.error("thread.failed", thread=failed.thread and failed.thread.name, exc_info=error)

    def unraisable(failed: "sys.UnraisableHookArgs") -> None:
        what = failed.err_msg or "Exception ignored in"
        log.warning("python.unraisable", what=f"{what}: {failed.object!r}", exc_info=failed.exc_value)

    def warned(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
    ) -> None:
        del file, line
        where = f"{filename}:{lineno}"
        if (seen := repeats.count(where, str(message))) is not None:
            log.warning(
                "python.warning", category=category.__name__, message=str(message), where=where, repeated=seen.times, for_s=seen.for_s
            )

    threading.excepthook, sys.unraisablehook, warnings.showwarning = thread_failed, unraisable, warned
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook, warnings.showwarning = before
