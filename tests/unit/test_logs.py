"""One JSON object a line, from us and from libraries, and nothing that waits for a reader."""

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TextIO

import pytest
import structlog

from azaion_daemon.logs import dropped_lines, get_logger, logging_to, set_level
from azaion_daemon.logs.catalogue import CATALOGUE, Event

OURS = "azaion_daemon.test"


@contextmanager
def lines(level: str = "info") -> Iterator[list[dict[str, Any]]]:
    stream = io.StringIO()
    found: list[dict[str, Any]] = []
    with logging_to(stream, level=level, style="json"):
        yield found
    found += [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_is_a_json_object_with_its_first_fields_in_order() -> None:
    with lines() as found:
        get_logger(OURS).info("daemon.ready", seconds=1.5, path="/x")
    (line,) = found
    assert list(line)[:4] == ["timestamp", "level", "service", "event"]
    assert (line["level"], line["service"], line["event"], line["seconds"]) == ("info", "azaion-daemon", "daemon.ready", 1.5)
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None


def test_libraries_lines_have_the_same_form_and_their_name() -> None:
    with lines() as found:
        logging.getLogger("rstream.client").warning("lost %s after %d s", "it", 5)
    (line,) = found
    assert list(line)[:4] == ["timestamp", "level", "service", "event"]
    assert (line["level"], line["event"], line["logger"]) == ("warning", "lost it after 5 s", "rstream.client")


def test_libraries_are_heard_from_warning_on_whatever_our_level() -> None:
    with lines("debug") as found:
        logging.getLogger("rstream.client").info("whole frames")
        logging.getLogger("rstream.client").debug("whole frames")
        get_logger(OURS).debug("ours")
    assert [line["event"] for line in found] == ["ours"]


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_decides(level: str, heard: int) -> None:
    with lines(level) as found:
        log = get_logger(OURS)
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)("daemon.ready")
    assert len(found) == heard


def test_the_level_can_change_while_it_runs() -> None:
    with lines("error") as found:
        log = get_logger(OURS)
        log.info("before")
        set_level("info")
        log.info("after")
    assert [line["event"] for line in found] == ["after"]


def test_an_exception_is_one_line_with_its_traceback() -> None:
    with lines() as found:
        try:
            int("why\nnot")
        except ValueError:
            get_logger(OURS).exception("daemon.crashed")
            logging.getLogger("library").exception("failed")
    assert len(found) == 2
    assert all("ValueError: invalid literal" in line["exception"] for line in found)


@pytest.mark.parametrize("value", [b"\xff", {1, 2}, object(), {"a": b"x"}, float("nan"), "line\nbreak", "\ud800", 10**30, None])
def test_a_value_of_any_kind_is_one_line(value: object) -> None:
    with lines() as found:
        get_logger(OURS).info("daemon.ready", value=value)
    assert len(found) == 1


def test_fields_bound_to_a_context_are_on_every_line() -> None:
    with lines() as found, structlog.contextvars.bound_contextvars(job="j1"):
        get_logger(OURS).info("job.state")
    assert found[0]["job"] == "j1"


def test_lines_come_out_in_their_order_and_all_before_the_end() -> None:
    with lines() as found:
        for number in range(5000):
            get_logger(OURS).info("ingest.batch", number=number)
    assert [line["number"] for line in found] == list(range(5000))


def test_a_pretty_log_is_no_json_and_has_no_colour_off_a_terminal() -> None:
    stream = io.StringIO()
    with logging_to(stream, level="info", style="pretty"):
        get_logger(OURS).info("daemon.ready", seconds=1)
    assert "daemon.ready" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_what_was_before_comes_back() -> None:
    before = logging.getLogger().handlers[:]
    with lines():
        assert logging.getLogger().handlers != before
    assert logging.getLogger().handlers == before


def test_nothing_blocks_when_nobody_reads() -> None:
    """The pipe takes 64 KiB and the queue its lines; the rest is lost, and so is the wait for a reader at the end."""
    reading, writing = os.pipe()
    logged, ended = threading.Event(), threading.Event()
    lost: list[int] = []

    def work(stream: TextIO) -> None:
        with logging_to(stream, level="info", style="json"):
            for number in range(20_000):
                get_logger(OURS).info("ingest.batch", number=number)
            lost.append(dropped_lines())
            logged.set()
        ended.set()

    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as stream:
        before = {*threading.enumerate()}
        thread = threading.Thread(target=work, args=(stream,), daemon=True)
        thread.start()
        in_time = (logged.wait(20), ended.wait(10))
        stuck = {*threading.enumerate()} - before
        draining = threading.Thread(target=lambda: [*iter(lambda: reader.read(1 << 20), b"")])
        draining.start()
        for one in stuck:
            one.join(20)
        stream.close()
        draining.join(20)
    assert in_time == (True, True), "logging, or the end of the process, waited for the reader"
    assert 5_000 < lost[0] < 20_000


@pytest.mark.parametrize(("name", "entry"), CATALOGUE.items())
def test_the_catalogue_is_well_formed(name: str, entry: Event) -> None:
    assert name.count(".") == 1
    assert name == name.lower()
    assert entry.level in {"debug", "info", "warning", "error"}
    assert entry.meaning.endswith(".")
