"""The ledger for commands: read beside a running daemon, and when none runs."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from azaion_daemon.errors import RootError
from azaion_daemon.store.database import sqlite_errors
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger


@contextmanager
def reading(layout: Layout) -> Iterator[Ledger]:
    """The ledger, for reading only.

    Raises:
        RootError: There is none.
        StorageError: It cannot be read.
    """
    with sqlite_errors(f"reading {layout.ledger}"), closing(Ledger(layout.ledger, read_only=True)) as ledger:
        yield ledger


def unreadable(error: OSError) -> RootError:
    """The error for the operator that stands for a file that cannot be read."""
    return RootError(f"{error.filename} cannot be read: {error.strerror}. Run this as the user of the daemon.")
