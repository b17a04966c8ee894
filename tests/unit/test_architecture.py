"""What no single module can promise: who imports what, and that the catalogue of events is the truth."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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


@cache
def logged_events() -> tuple[tuple[str, str, str], ...]:
    """Every literal event that is passed to a logger: where, its name, its level."""
    return tuple(found for path in sorted(PACKAGE.rglob("*.py")) for found in _events_in(path))


def _events_in(path: Path) -> Iterator[tuple[str, str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log" | "_log" | "logger") | ast.Attribute(attr="log" | "_log"), attr=method),
                args=[ast.Constant(value=str(name)), *_],
            ) if method in METHODS:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", name, METHODS[method]


def test_every_event_that_is_logged_stands_in_the_catalogue() -> None:
    assert {f"{where}: {name}" for where, name, _ in logged_events() if name not in CATALOGUE} == set()


def test_every_event_is_logged_at_the_level_that_the_catalogue_gives() -> None:
    wrong = {f"{where}: {name} at {level}" for where, name, level in logged_events() if CATALOGUE.get(name, (level,))[0] != level}
    assert wrong == set()


def test_every_event_of_the_catalogue_is_logged_somewhere() -> None:
    assert set(CATALOGUE) - {name for _, name, _ in logged_events()} == set()


def test_events_are_names_and_never_sentences_with_values_in_them() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and node.args:
                receiver = ast.unparse(node.func.value)
                if receiver.split(".")[-1] in {"log", "_log", "logger"}:
                    assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno} logs {ast.unparse(node.args[0])}"
                    assert len(node.args) == 1, f"{path.name}:{node.lineno} passes values that are not fields"
