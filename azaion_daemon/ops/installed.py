"""What the scripts in deploy/ ask of an installed version: `python -P -m azaion_daemon.ops.installed QUESTION CONFIG ...`.

An answer is lines on standard output. What cannot be answered is an error: the scripts then leave everything as it is.
"""

import argparse
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from azaion_daemon.errors import AzaionError, OperatorError
from azaion_daemon.ops.reading import reading
from azaion_daemon.ops.status import read_status
from azaion_daemon.settings import load_settings
from azaion_daemon.store.database import sqlite_errors
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.root import identify_root
from azaion_daemon.training.jobs import JobDirectory


def interpreters(layout: Layout) -> Iterator[str]:
    """The Python of each job whose training has not ended: it is resumed by that one, so its version must stay.

    Raises:
        AzaionError: The root or its ledger cannot be read.
    """
    identify_root(layout)
    with reading(layout) as ledger:
        unfinished = [job.id for job in ledger.jobs() if job.ended is None]
    for job in unfinished:
        if python := JobDirectory(layout.jobs / job).read_interpreter():
            yield python


def copy_ledger(layout: Layout, to: Path) -> None:
    """Copy the ledger as of one moment, beside a daemon that writes.

    Raises:
        AzaionError: There is no root, or SQLite cannot read or write.
    """
    identify_root(layout)
    with (
        sqlite_errors(f"copying {layout.ledger} to {to}"),
        closing(sqlite3.connect(f"{layout.ledger.as_uri()}?mode=ro", uri=True, timeout=30)) as source,
        closing(sqlite3.connect(to)) as target,
    ):
        source.backup(target)


def is_running(layout: Layout, pid: int) -> bool:
    """Whether the daemon is that process and says that it works."""
    status = read_status(layout)
    return (status.get("state"), status.get("pid")) == ("running", pid)


def main(arguments: list[str]) -> int:
    """Answer one question; the process's exit status."""
    parser = argparse.ArgumentParser(prog="azaion_daemon.ops.installed", description="What the scripts in deploy/ ask.")
    questions = parser.add_subparsers(dest="question", required=True)
    for name in ("root", "interpreters", "copy-ledger", "running"):
        questions.add_parser(name).add_argument("config", type=Path)
    questions.choices["copy-ledger"].add_argument("to", type=Path)
    questions.choices["running"].add_argument("pid", type=int)
    asked = parser.parse_args(arguments)
    try:
        layout = Layout.of(load_settings(asked.config).directories)
        match asked.question:
            case "root":
                sys.stdout.write(f"{_one_line(layout.root)}\n")
            case "interpreters":
                sys.stdout.writelines(f"{python}\n" for python in interpreters(layout))
            case "copy-ledger":
                copy_ledger(layout, asked.to)
            case _:
                return 0 if is_running(layout, asked.pid) else 1
    except AzaionError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _one_line(path: Path) -> str:
    """A path that a unit file can name."""
    if not str(path).isprintable():
        raise OperatorError(f"directories.root is {str(path)!r}: systemd cannot be told of a path with such characters")
    return str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
