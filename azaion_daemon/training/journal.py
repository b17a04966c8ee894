"""Files of one JSON document a line, which are only ever added to. A line counts when its newline is there."""

import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from azaion_daemon.store.durable import fsync_directory, replace_durably, storage
from azaion_daemon.training.document import Document

_D = TypeVar("_D", bound=Document)


def append_line(file: Path, document: Document) -> None:
    """Add a line, durably. What a crash has left of an earlier one is removed first; one that finds no space leaves nothing.

    Raises:
        StorageError: It cannot be written.
    """
    with storage("Adding to"):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "r+b", buffering=0) as journal:
            content = journal.read()
            whole = content.rfind(b"\n") + 1
            journal.truncate(whole)
            journal.seek(whole)
            try:
                line = memoryview(document.model_dump_json().encode() + b"\n")
                while line:
                    line = line[journal.write(line) :]
                os.fsync(journal.fileno())
            except OSError:
                journal.truncate(whole)
                raise
        if not content:
            fsync_directory(file.parent)


def read_lines(file: Path, kind: type[_D]) -> list[_D]:
    """The documents, the oldest first. A history is no reason to fail: lines that are torn or of another release are left out."""
    return read_whole(file, kind)[0]


def read_whole(file: Path, kind: type[_D]) -> tuple[list[_D], int]:
    """The documents, the oldest first, and how many lines were left out since they are torn or of another release."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return [], 0
    *lines, unfinished = content.split(b"\n")
    found, left_out = [], int(unfinished != b"")
    for line in lines:
        try:
            found.append(kind.parse(line))
        except ValidationError:
            left_out += 1
    return found, left_out


def replace_lines(file: Path, documents: list[_D]) -> None:
    """Put other documents in the place of those that there are, durably."""
    with storage("Rewriting"):
        replace_durably(file, b"".join(document.model_dump_json().encode() + b"\n" for document in documents))
