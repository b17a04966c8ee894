"""What was found out, for people."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click
from rich.console import Console

from azaion_daemon.ops.doctor.findings import Outcome
from azaion_daemon.ops.tables import table

_COLOURS = {Outcome.OK: "green", Outcome.WARNING: "yellow", Outcome.BROKEN: "red", Outcome.UNCHECKED: "cyan"}


@contextmanager
def telling(stream: TextIO) -> Iterator[Callable[[int, Sequence[str]], None]]:
    """Says on a terminal how far it is, in a line that goes again; nothing elsewhere."""
    console = Console(file=stream)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda _, __: None
        return
    with console.status("Looking …") as status:
        yield lambda done, busy: status.update(f"{done} looked at; now: {', '.join(busy)}")


def render_doctor(document: dict[str, Any], *, colour: bool = False) -> str:
    """A line for each subject, and below it what to do."""
    findings = document["findings"]
    lines = table([[one["outcome"], one["subject"], one["detail"]] for one in findings], right=())
    indent = " " * (max(len(one["outcome"]) for one in findings) + 2)
    told = []
    for line, one in zip(lines, findings, strict=True):
        outcome = Outcome(one["outcome"])
        shown = click.style(outcome.value, fg=_COLOURS[outcome], bold=outcome is Outcome.BROKEN) if colour else outcome.value
        told.append(shown + line[len(outcome.value) :])
        if one["remedy"]:
            told.append(f"{indent}-> {one['remedy']}")
    return "\n".join([*told, _conclusion(Counter(one["outcome"] for one in findings))])


def _conclusion(outcomes: Counter[str]) -> str:
    broken, warned, unchecked = outcomes[Outcome.BROKEN], outcomes[Outcome.WARNING], outcomes[Outcome.UNCHECKED]
    end = "Everything that was checked is as it should be."
    if broken:
        end = f"{broken} {'thing is' if broken == 1 else 'things are'} broken: the daemon could not do all of its work."
    elif warned:
        end = "Nothing that was checked is broken; see what is warned of."
    return f"{end} {f'{unchecked} could not be checked.' if unchecked else ''}".strip()
