"""What no single module can promise: who imports what, and that the catalogue of events is the truth."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import azaion_daemon
from azaion_daemon.logs.catalogue import CATALOGUE

PACKAGE = Path(azaion_daemon.__file__).parent
HEAVY = ["torch", "ultralytics", "torchvision", "onnxruntime", "aiobotocore", "numpy", "matplotlib"]
METHODS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}


@pytest.mark.parametrize("module", ["daemon", "cli", "conducting.conductor"])
def test_the_daemon_starts_without_heavy_libraries(module: str) -> None:
    program = f"import json, sys, azaion_daemon.{module}; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


@pytest.mark.parametrize(
    "module", ["daemon", "conducting.conductor", "ingest.pipeline", "dataset.snapshot", "publish.release", "stream.consumer"]
)
def test_the_product_does_not_know_the_sandbox(module: str) -> None:
    program = f"import sys, azaion_daemon.{module}; print([name for name in sys.modules if name.startswith('azaion_daemon.sandbox')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


class Logged(NamedTuple):
    """A call of a logger."""

    where: str
    event: str
    level: str
    fields: frozenset[str]


BY_THE_LOG_ITSELF = {"library.said", "log.lost"}
"""Not logged by calling a logger; tests/unit/test_logs.py looks at them."""
LOGS = PACKAGE / "logs"
OWN_OUTPUT = {
    "sandbox/*.py",  # programs for people: stdout is their data, stderr their messages
    "training/worker/*.py",  # the standard output of a worker is worker.log
}
SETS_A_LEVEL = {"stream/session.py"}
"""rstream's, whose debug lines hold whole frames."""


def logger_calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {*METHODS, "critical", "log", "warn"}:
            receiver = ast.unparse(node.func.value)
            if receiver.split(".")[-1] in {"log", "_log", "logger"}:
                yield node


@cache
def logged_events() -> tuple[Logged, ...]:
    return tuple(found for path in sorted(PACKAGE.rglob("*.py")) for found in _events_in(path))


def _events_in(path: Path) -> Iterator[Logged]:
    for node in logger_calls(path):
        match node:
            case ast.Call(func=ast.Attribute(attr=method), args=[ast.Constant(value=str(name)), *_]) if method in METHODS:
                fields = {"exception" if one.arg == "exc_info" else str(one.arg) for one in node.keywords}
                implied = {"exception"} if method == "exception" else set()
                yield Logged(f"{path.relative_to(PACKAGE)}:{node.lineno}", name, METHODS[method], frozenset(fields | implied))


def test_every_event_that_is_logged_stands_in_the_catalogue() -> None:
    assert {f"{one.where}: {one.event}" for one in logged_events() if one.event not in CATALOGUE} == set()


def test_every_event_is_logged_at_the_level_that_the_catalogue_gives() -> None:
    wrong = {f"{one.where}: {one.event} at {one.level}" for one in logged_events() if CATALOGUE[one.event].level != one.level}
    assert wrong == set()


def test_every_event_of_the_catalogue_is_logged_somewhere() -> None:
    assert CATALOGUE.keys() - {one.event for one in logged_events()} == BY_THE_LOG_ITSELF


def test_every_field_that_is_logged_stands_in_the_catalogue() -> None:
    unknown = {f"{one.where}: {one.event} {field}" for one in logged_events() for field in one.fields - {*CATALOGUE[one.event].fields}}
    assert unknown == set()


def test_every_field_of_the_catalogue_is_logged_somewhere() -> None:
    logged: dict[str, set[str]] = {}
    for one in logged_events():
        logged.setdefault(one.event, set()).update(one.fields)
    silent = {f"{name} {field}" for name, seen in logged.items() for field in CATALOGUE[name].fields if field not in seen}
    assert silent == set()


def test_events_are_names_and_never_sentences_with_values_in_them() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in logger_calls(path):
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            assert isinstance(node.func, ast.Attribute)
            assert node.func.attr in METHODS, f"{where} logs by {node.func.attr}"
            assert [type(one) for one in node.args] == [ast.Constant], f"{where} logs {ast.unparse(node)}"
            assert all(one.arg is not None for one in node.keywords), f"{where} hides its fields behind **"


def test_every_warning_and_error_says_what_to_do() -> None:
    silent = {
        name for name, event in CATALOGUE.items() if event.level in {"warning", "error"} and not event.remedy.endswith((".", ")", "`"))
    }
    assert silent == set()


def test_nothing_is_said_past_the_log() -> None:
    """Commands speak by click; the daemon by `get_logger`, which holds what is logged against the catalogue."""
    past: set[str] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if LOGS in path.parents or any(inside.match(pattern) for pattern in OWN_OUTPUT):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in {"print", "warnings.warn", "traceback.print_exc", "traceback.print_exception"} or (
                called.startswith(("logging.", "structlog.")) and str(inside) not in SETS_A_LEVEL
            ):
                past.add(f"{inside}:{node.lineno} {called}")  # type: ignore[attr-defined]
    assert past == set()


def test_loggers_have_a_name_by_which_they_are_found() -> None:
    """The tests above look for calls of `log` and `_log`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("get_logger("):
                assert ast.unparse(node.targets[0]) in {"log", "_log"}, f"{path.name}:{node.lineno}"
