"""One JSON object a line, from us and from libraries, and nothing that waits for a reader."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import pytest
from pydantic import SecretStr

from azaion_daemon.logs import get_logger, logging_to, set_level
from azaion_daemon.logs.catalogue import CATALOGUE, Event
from azaion_daemon.logs.checking import UncataloguedWarning
from azaion_daemon.sandbox.operator import Operator, RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.training.states import JobState

OURS = "azaion_daemon.test"
FIRST = {"timestamp", "level", "service", "event"}


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def log_failure(message: str) -> None:
    def fail() -> None:
        raise ValueError(message)

    try:
        fail()
    except ValueError:
        get_logger(OURS).exception("daemon.crashed")


@contextmanager
def lines(level: str = "info") -> Iterator[list[dict[str, Any]]]:
    stream = io.StringIO()
    found: list[dict[str, Any]] = []
    with logging_to(stream, level=level, style="json"):
        yield found
    found += [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_is_a_json_object_with_its_first_fields_in_order() -> None:
    with lines() as found:
        get_logger(OURS).info("daemon.ready", seconds=1.5)
    (line,) = found
    assert list(line)[:4] == ["timestamp", "level", "service", "event"]
    assert (line["level"], line["service"], line["event"], line["seconds"]) == ("info", "azaion-daemon", "daemon.ready", 1.5)
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None


def test_libraries_lines_have_the_same_form_and_their_name() -> None:
    with lines() as found:
        logging.getLogger("rstream.client").warning("lost %s after %d s", "it", 5)
    (line,) = found
    assert list(line)[:4] == ["timestamp", "level", "service", "event"]
    assert (line["level"], line["event"], line["logger"], line["message"]) == (
        "warning",
        "library.said",
        "rstream.client",
        "lost it after 5 s",
    )
    assert {*line} - FIRST == {*CATALOGUE["library.said"].fields} - {"exception"}


def test_libraries_are_heard_from_warning_on_whatever_our_level() -> None:
    with lines("debug") as found:
        logging.getLogger("rstream.client").info("whole frames")
        logging.getLogger("rstream.client").debug("whole frames")
        chatty = logging.getLogger("chatty")
        chatty.setLevel(logging.DEBUG)
        chatty.info("not for us")
        get_logger(OURS).info("daemon.ready")
    assert [line["event"] for line in found] == ["daemon.ready"]


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_decides(level: str, heard: int) -> None:
    with lines(level) as found:
        log = logging.getLogger(OURS)
        for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            log.log(number, {"event": "daemon.ready"})
    assert len(found) == heard


def test_the_level_can_change_while_it_runs() -> None:
    with lines("error") as found:
        log = get_logger(OURS)
        log.info("daemon.starting")
        set_level("info")
        log.info("daemon.ready")
    assert [line["event"] for line in found] == ["daemon.ready"]


def test_an_exception_is_one_line_with_its_traceback() -> None:
    with lines() as found:
        try:
            int("why\nnot")
        except ValueError:
            get_logger(OURS).exception("daemon.crashed")
            logging.getLogger("library").exception("failed")
    assert len(found) == 2
    assert all("ValueError: invalid literal" in line["exception"] for line in found)


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\xff\xd8 an image", "<11 bytes>"),
        ({2, 1}, [1, 2]),
        ({"a": b"x", 5: Path("/x")}, {"a": "<1 bytes>", "5": "/x"}),
        (Unspeakable(), "<Unspeakable>"),
        (float("nan"), "nan"),
        ("line\nbreak \x1b[31m", "line\nbreak \x1b[31m"),
        ("\ud800", "\ud800"),
        ([10**5000], ["<a number of 16610 bits>"]),
        (JobState.FORMING, "forming"),
        (SecretStr("hush"), "**********"),
        (None, None),
        ([[[[[[[1]]]]]]], [[[[["<list of 1>"]]]]]),
    ],
)
def test_a_value_of_any_kind_is_one_line_of_json(value: object, said: object) -> None:
    with lines() as found:
        get_logger(OURS).info("job.state", why=value)
    assert [line["why"] for line in found] == [said]


def test_a_hostile_value_makes_no_endless_line() -> None:
    stream = io.StringIO()
    huge: dict[str, object] = {"x" * 10_000 + str(number): ["y" * 100_000] * 500 for number in range(300)}
    with logging_to(stream, level="info", style="json"):
        get_logger(OURS).info("job.state", why=huge, job="z" * 1_000_000)
    (line,) = stream.getvalue().splitlines()
    assert len(line) < 200_000
    assert json.loads(line)["job"].startswith("zzz")


def test_of_a_long_traceback_the_end_is_kept() -> None:
    with lines() as found:
        log_failure("a" * 50_000 + " the end")
    assert found[0]["exception"].startswith("Traceback (most recent call last)")
    assert found[0]["exception"].endswith("the end")
    assert len(found[0]["exception"]) < 20_000


def test_what_changes_after_it_was_logged_does_not_change_the_line() -> None:
    names = ["a"]
    with lines() as found:
        for _ in range(1000):
            get_logger(OURS).info("job.state", why=names)
            names.append("b")
    assert found[0]["why"] == ["a"]


def test_a_logger_complains_about_what_is_not_in_the_catalogue_and_logs_it_all_the_same() -> None:
    with lines() as found, warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        get_logger(OURS).info("no.such_event", x=1)
        get_logger(OURS).warning("daemon.ready", seconds=1)
        get_logger(OURS).info("daemon.ready", minutes=1)
    assert [line["event"] for line in found] == ["no.such_event", "daemon.ready", "daemon.ready"]
    assert [str(complaint.message) for complaint in complaints] == [
        "the event no.such_event is not in the catalogue",
        "daemon.ready is logged at warning, not info",
        "daemon.ready has no minutes in the catalogue",
    ]
    assert {complaint.category for complaint in complaints} == {UncataloguedWarning}
    with pytest.raises(UncataloguedWarning):  # as in every other test
        get_logger(OURS).info("no.such_event")


def test_in_production_the_complaint_is_a_line_too() -> None:
    with lines() as found, warnings.catch_warnings():
        warnings.simplefilter("default")
        get_logger(OURS).info("no.such_event")
    assert [line["event"] for line in found] == ["python.warning", "no.such_event"]
    assert (found[0]["category"], found[0]["message"]) == ("UncataloguedWarning", "the event no.such_event is not in the catalogue")


def test_a_daemon_that_logs_outside_the_catalogue_fails_the_test_that_runs_it(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    with (
        operator.log.open("w") as file,
        logging_to(file, level="info", style="json"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        get_logger(OURS).info("daemon.ready", minutes=1)
    with pytest.raises(SandboxError, match=r"daemon\.ready has no minutes in the catalogue"):
        RunningDaemon(operator, [], {})._check_events()


def test_an_exception_that_ends_a_thread_is_a_line() -> None:
    def fail() -> None:
        raise ValueError("in vain")

    with lines() as found:
        thread = threading.Thread(target=fail, name="worker-7")
        thread.start()
        thread.join()
    (line,) = found
    assert (line["level"], line["event"], line["thread"]) == ("error", "thread.failed", "worker-7")
    assert line["exception"].endswith("ValueError: in vain")


def test_an_exception_in_a_destructor_is_a_line() -> None:
    class Bad:
        def __del__(self) -> None:
            raise ValueError("on the way out")

    with lines() as found:
        Bad()
    (line,) = found
    assert (line["event"], "on the way out" in line["exception"]) == ("python.unraisable", True)


def test_what_a_library_repeats_is_folded() -> None:
    with lines() as found:
        for number in range(100):
            logging.getLogger("aiobotocore").warning("attempt %d failed", number)
        logging.getLogger("aiobotocore").error("gave up")
    assert [line["repeated"] for line in found] == [1, 2, 4, 8, 16, 32, 64, 1]
    assert found[6]["message"] == "attempt 63 failed"


def test_a_library_whose_arguments_do_not_fit_is_heard() -> None:
    with lines() as found:
        text, arguments = "%d of %d", ("x",)
        logging.getLogger("sloppy").warning(text, *arguments)
    assert found[0]["message"] == "%d of %d"


def test_lines_come_out_in_their_order_and_all_before_the_end() -> None:
    with lines() as found:
        for number in range(5000):
            get_logger(OURS).info("ingest.batch", messages=number)
    assert [line["messages"] for line in found] == list(range(5000))


def test_a_pretty_log_is_no_json_and_has_no_colour_off_a_terminal() -> None:
    stream = io.StringIO()
    with logging_to(stream, level="info", style="pretty"):
        get_logger(OURS).info("daemon.ready", seconds=1)
    assert "daemon.ready" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_a_terminal_has_colours_unless_somebody_wants_none(no_colour: str, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    monkeypatch.setenv("NO_COLOR", no_colour)
    stream = Terminal()
    with logging_to(stream, level="info", style="auto"):
        get_logger(OURS).info("daemon.ready", seconds=1)
    assert ("\x1b[" in stream.getvalue()) is coloured


@pytest.mark.parametrize("sly", ["\x1b[2J", "a\nb 2026-01-01 [error] daemon.failed", "\r\x1b]0;title\x07", "\x9b31m", "a\u202eb", "\u2028"])
def test_no_value_acts_upon_a_terminal_or_begins_a_line(sly: str) -> None:
    stream = io.StringIO()
    with logging_to(stream, level="info", style="pretty"):
        get_logger(OURS).info("job.state", why=sly, job={sly: [sly]})
        logging.getLogger("library").warning("%s", sly)
        log_failure(sly)
    text = stream.getvalue()
    assert all(one.isprintable() for line in text.split("\n") for one in line)
    assert [line[:4].isspace() or "Z [" in line[:32] for line in text.rstrip("\n").split("\n")].count(False) == 0
    assert sum("daemon.crashed" in line for line in text.split("\n")) == 1


def test_what_was_before_comes_back() -> None:
    hooks = threading.excepthook, sys.unraisablehook, warnings.showwarning
    with lines():
        assert hooks[0] is not threading.excepthook
    assert hooks == (threading.excepthook, sys.unraisablehook, warnings.showwarning)
    before = logging.getLogger().handlers[:]
    with lines():
        assert logging.getLogger().handlers != before
    assert logging.getLogger().handlers == before


def test_nothing_blocks_when_nobody_reads() -> None:
    """The pipe takes 64 KiB and the queue its lines; the rest is lost, and so is the wait for a reader at the end."""
    reading, writing = os.pipe()
    logged, ended = threading.Event(), threading.Event()

    def work(stream: TextIO) -> None:
        with logging_to(stream, level="info", style="json"):
            for number in range(20_000):
                get_logger(OURS).info("ingest.batch", messages=number)
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


def test_lines_that_did_not_fit_are_counted_and_told() -> None:
    reading, writing = os.pipe()
    found: list[bytes] = []
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        with logging_to(stream, level="info", style="json") as output:
            for number in range(15_000):  # a pipe of 64 KiB and a queue of 10,000 lines
                get_logger(OURS).info("ingest.batch", messages=number)
            assert 0 < output.lost < 5000
            draining = threading.Thread(target=lambda: found.extend(reader))
            draining.start()
        stream.close()
        draining.join(20)
    events = [json.loads(line) for line in found]
    told = [event for event in events if event["event"] == "log.lost"]
    assert sum(event["count"] for event in told) == told[-1]["total"] == output.lost
    assert told[-1]["why"] == "they came faster than they were read"
    assert len(events) - len(told) + output.lost == 15_000
    assert {*told[0]} - FIRST == {*CATALOGUE["log.lost"].fields}


def test_a_reader_that_goes_away_costs_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream, logging_to(stream, level="info", style="json") as output:
        get_logger(OURS).info("daemon.ready")
        wait_until(lambda: output.lost == 1)
        get_logger(OURS).info("daemon.stopping")
        wait_until(lambda: output.lost == 2)


def test_a_full_disk_behind_the_log_tears_no_line(tmp_path: Path) -> None:
    """A limit on the file's size stands for the disk: the write that crosses it is cut short, those after it fail."""
    program = """
import resource, signal, sys
from azaion_daemon.logs import get_logger, logging_to
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = get_logger("azaion_daemon.test")
def wait(lost):
    while output.lost < lost:
        pass
with logging_to(sys.stdout, level="info", style="json") as output:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
    for event in ("daemon.starting", "daemon.ready", "daemon.stopping"):
        log.info(event)
    wait(2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.info("daemon.stopped")
"""
    path = tmp_path / "log"
    with path.open("wb") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True, timeout=60)
    first, torn, *rest = path.read_text().splitlines()
    assert json.loads(first)["event"] == "daemon.starting"
    assert not torn.endswith("}")
    events = [json.loads(line) for line in rest]
    assert [event["event"] for event in events] == ["daemon.stopped", "log.lost"]
    assert (events[1]["count"], events[1]["why"]) == (2, "File too large")


def test_a_terminal_that_others_have_made_non_blocking_gets_every_line() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    found: list[bytes] = []
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        draining = threading.Thread(target=lambda: found.extend(reader))
        with logging_to(stream, level="info", style="json") as output:
            for number in range(2000):
                get_logger(OURS).info("ingest.batch", messages=number)
            draining.start()
        stream.close()
        draining.join(20)
    assert output.lost == 0
    assert [json.loads(line)["messages"] for line in found] == list(range(2000))


@pytest.mark.parametrize(("name", "entry"), CATALOGUE.items())
def test_the_catalogue_is_well_formed(name: str, entry: Event) -> None:
    assert name.count(".") == 1
    assert name == name.lower()
    assert entry.level in {"debug", "info", "warning", "error"}
    assert entry.meaning.endswith(".")
    assert len(set(entry.fields) | FIRST) == len(entry.fields) + len(FIRST), "a field is named twice, or as one that every line has"
