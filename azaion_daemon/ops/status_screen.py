"""`status --watch`: the status over the whole terminal, drawn anew each second."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from azaion_daemon.errors import OperatorError
from azaion_daemon.ops.rows import Mood, Row
from azaion_daemon.ops.status import read_status
from azaion_daemon.ops.status_view import Part, parts_of
from azaion_daemon.store.layout import Layout

_PERIOD_S = 1.0
_WIDE = 130
"""From so many columns on there are two, in frames."""
_TALL = 30
"""From so many lines on there is room for headings."""
_LABEL = 12
_STYLES = {
    Mood.PLAIN: "",
    Mood.GOOD: "green",
    Mood.WARN: "yellow",
    Mood.BAD: "bold red",
    Mood.DIM: "dim",
    Mood.BUSY: "cyan",
}
_TITLES = {
    Part.INGEST: "Annotations",
    Part.TRAINING: "Training",
    Part.HISTORY: "Trainings before",
    Part.MODEL: "Model",
    Part.MACHINE: "Machine",
}


class StatusScreen:
    """A status as a picture that fits whatever it is drawn on."""

    def __init__(self, document: Mapping[str, Any] | None, now: datetime) -> None:
        self._document = document
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or options.size.height
        wide = width >= _WIDE
        parts = parts_of(self._document, self._now, bar=min(40, max(8, width // (4 if wide else 3) - 6)))
        head = self._head(parts.pop(Part.DAEMON))

        def draw(parts: Mapping[Part, Sequence[Row]], *, whole: bool) -> RenderableType:
            return _in_two_columns(parts, whole=whole) if wide else _stacked(parts, whole=whole, titles=height >= _TALL)

        body = draw(parts, whole=True)
        for shown in range(len(parts.get(Part.HISTORY, [])), -1, -1):
            if len(console.render_lines(body, options.update(height=None), pad=False)) < height:
                break
            # What has ended longest ago gives way first.
            body = draw({**parts, Part.HISTORY: parts.get(Part.HISTORY, [])[:shown]}, whole=False)
        yield Group(head, body)

    def _head(self, rows: Sequence[Row]) -> RenderableType:
        text = rows[0].text if rows else ""
        mood = rows[0].mood if rows else Mood.PLAIN
        line = Table.grid(expand=True)
        line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        line.add_column(justify="right", no_wrap=True)
        line.add_row(
            Text.assemble((" azaion-daemon ", "reverse bold"), " ", (text, _STYLES[mood])), Text(f"{self._now:%a %H:%M:%S}", "dim")
        )
        return line


def _stacked(parts: Mapping[Part, Sequence[Row]], *, whole: bool, titles: bool) -> RenderableType:
    drawn: list[RenderableType] = []
    for part, rows in parts.items():
        if rows:
            if titles:
                drawn += [Text(), Text(_TITLES[part], "bold")]
            drawn.append(_table(rows, one_line=not whole and part is not Part.TRAINING))
    return Group(*drawn)


def _in_two_columns(parts: Mapping[Part, Sequence[Row]], *, whole: bool) -> RenderableType:
    def frames(*which: Part) -> RenderableType:
        return Group(
            *(
                Panel(
                    _table(rows, one_line=not whole and part is not Part.TRAINING),
                    title=_TITLES[part],
                    title_align="left",
                    border_style="dim",
                )
                for part in which
                if (rows := parts.get(part))
            )
        )

    columns = Table.grid(expand=True)
    columns.add_column(ratio=3)
    columns.add_column(ratio=2)
    columns.add_row(frames(Part.TRAINING, Part.HISTORY), frames(Part.INGEST, Part.MODEL, Part.MACHINE))
    return columns


def _table(rows: Sequence[Row], *, one_line: bool) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=_LABEL, style="bold", no_wrap=True)
    table.add_column(ratio=1, no_wrap=one_line, overflow="ellipsis" if one_line else "fold")
    for row in rows:
        table.add_row(Text(row.label), Text(row.text, _STYLES[row.mood]))
    return table


def watch_status(layout: Layout, console: Console | None = None, *, read: Callable[[Layout], Any] = read_status) -> None:
    """Draw until Ctrl-C or SIGTERM.

    Raises:
        OperatorError: Standard output is no terminal that can be drawn on.
    """
    console = console or Console()
    if not console.file.isatty() or console.is_dumb_terminal:
        raise OperatorError("--watch draws over a whole terminal, and this is none. `status` says it once, `status --json` for programs.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the terminal is given back
    try:
        with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            while True:
                live.update(StatusScreen(read(layout), datetime.now().astimezone()), refresh=True)
                time.sleep(_PERIOD_S)
    except KeyboardInterrupt:
        sys.stdout.flush()
