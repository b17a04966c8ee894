"""Tables for people, in plain text."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime


def table(rows: Sequence[Sequence[str]], *, right: Collection[int]) -> list[str]:
    """The lines of a table; the columns of `right` are numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def moment(iso: str) -> str:
    """A time, to the minute."""
    return f"{datetime.fromisoformat(iso).astimezone(UTC):%Y-%m-%d %H:%M}Z"
