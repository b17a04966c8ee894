"""`status --watch`: the status over the whole terminal, drawn anew each second."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from azaion_daemon.errors import OperatorError
from azaion_daemon.ops.keys import Keys
from azaion_daemon.ops.rows import Mood, Row
from azaion_daemon.ops.status_view import Part, parts_of

_PERIOD_S = 1.0
_WIDE = 130
"""From so many columns on there are two, in frames."""
_TALL = 30
"""From so many lines on there is room for headings."""
_LABEL = 12
_ROOMY = 100
_NARROW = 50
_QUIT = "qQ\x03"
_STYLES = {
    Mood.PLAIN: "",
    Mood.GOOD: "green",
    Mood.WARN: "yellow",
    Mood.BAD: "bold red",
    Mood.DIM: "dim",
    Mood.BUSY: "cyan",
}
_TITLES = {
    Part.ATTENTION: "Needs you",
    Part.CONFIG: "Configuration",
    Part.INGEST: "Annotations",
    Part.TRAINING: "Training",
    Part.HISTORY: "Trainings before",
    Part.MODEL: "Model",
    Part.MACHINE: "Machine",
}
_STACK = (Part.ATTENTION, Part.TRAINING, Part.INGEST, Part.MODEL, Part.MACHINE, Part.HISTORY, Part.CONFIG)
"""From top to bottom where there is one column: what is left out first comes last."""
_LEFT, _RIGHT = (Part.TRAINING, Part.HISTORY), (Part.INGEST, Part.MODEL, Part.MACHINE, Part.CONFIG)
_EXPENDABLE = frozenset({Part.CONFIG, Part.HISTORY})
_FACTS = frozenset({Part.INGEST, Part.MODEL, Part.MACHINE})
"""What may be cut off at the end of a line."""

Parts = Mapping[Part, Sequence[Row]]


class StatusScreen:
    """A status as a picture that fits whatever it is drawn on."""

    def __init__(self, document: Mapping[str, Any], now: datetime) -> None:
        self._document = document
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or options.size.height
        wide = width >= _WIDE
        parts = parts_of(self._document, self._now, width=min(40, max(8, width // (5 if wide else 3) - 6)))
        head = self._head(parts.pop(Part.DAEMON), width)
        body: RenderableType = Text()
        for given, short in _ever_less(parts, columns=2 if wide else 1):
            body = _in_two_columns(given, short) if wide else _stacked(given, short, titles=height >= _TALL)
            if len(console.render_lines(body, options.update(height=None), pad=False)) < height:
                break
        yield Group(head, body)

    def _head(self, rows: Sequence[Row], width: int) -> RenderableType:
        text = rows[0].text if rows else ""
        mood = rows[0].mood if rows else Mood.PLAIN
        line = Table.grid(expand=True)
        line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        line.add_column(justify="right", no_wrap=True)
        clock = f" {self._now:%a %H:%M:%S}" if width >= _ROOMY else f" {self._now:%H:%M:%S}"
        clock += "  q quits" if width >= _NARROW else ""
        line.add_row(Text.assemble((" azaion-daemon ", "reverse bold"), " ", (text, _STYLES[mood])), Text(clock, "dim"))
        return line


def _ever_less(parts: Parts, *, columns: int) -> Iterator[tuple[Parts, frozenset[Part]]]:
    """What to draw where all of it does not fit, and which rows take one line only: what matters least gives way first."""
    yield parts, frozenset()
    history = list(parts.get(Part.HISTORY, []))
    short = _EXPENDABLE
    if columns > 1:  # beside what has ended before, where it makes no room for facts
        yield parts, short
        short |= _FACTS
    for shown in range(len(history), -1, -1):  # what has ended longest ago
        yield {**parts, Part.HISTORY: history[:shown]}, short
    left = {part: rows for part, rows in parts.items() if part not in _EXPENDABLE}
    yield left, frozenset()
    yield left, _FACTS
    said = [row for row in left.get(Part.ATTENTION, []) if row.label]
    left = {**left, Part.ATTENTION: said}  # without what to do: `status` says it
    yield left, _FACTS
    yield left, _FACTS | {Part.ATTENTION}
    for shown in range(len(said) - 1, 0, -1):
        more = Row("", f"and {len(said) - shown} more: see azaion-daemon status", Mood.WARN)
        yield {**left, Part.ATTENTION: [*said[:shown], more]}, _FACTS | {Part.ATTENTION}


def _stacked(parts: Parts, short: Collection[Part], *, titles: bool) -> RenderableType:
    drawn: list[RenderableType] = []
    for part in _STACK:
        if rows := parts.get(part):
            if titles:
                drawn += [Text(), Text(_TITLES[part], "bold")]
            drawn.append(_table(rows, one_line=part in short))
    return Group(*drawn)


def _in_two_columns(parts: Parts, short: Collection[Part]) -> RenderableType:
    def frames(*which: Part) -> RenderableType:
        return Group(*(_frame(part, rows, one_line=part in short) for part in which if (rows := parts.get(part))))

    columns = Table.grid(expand=True)
    columns.add_column(ratio=3)
    columns.add_column(ratio=2)
    columns.add_row(frames(*_LEFT), frames(*_RIGHT))
    return Group(frames(Part.ATTENTION), columns)


def _frame(part: Part, rows: Sequence[Row], *, one_line: bool) -> Panel:
    moods = {row.mood for row in rows} if part is Part.ATTENTION else set()
    border = "red" if Mood.BAD in moods else "yellow" if Mood.WARN in moods else "dim"
    return Panel(_table(rows, one_line=one_line), title=_TITLES[part], title_align="left", border_style=border)


def _table(rows: Sequence[Row], *, one_line: bool) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=_LABEL, style="bold", no_wrap=True)
    table.add_column(ratio=1, no_wrap=one_line, overflow="ellipsis" if one_line else "fold")
    for row in rows:
        table.add_row(Text(row.label), Text(row.text, _STYLES[row.mood]))
    return table


def watch_status(read: Callable[[datetime], Mapping[str, Any]], console: Console | None = None) -> None:
    """Draw what is read until q, Ctrl-C or SIGTERM.

    Raises:
        OperatorError: Standard output is no terminal that can be drawn on.
    """
    console = console or Console()
    if not console.file.isatty() or console.is_dumb_terminal:
        raise OperatorError("--watch draws over a whole terminal, and this is none. `status` says it once, `status --json` for programs.")
    with Keys() as keys, Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            now = datetime.now().astimezone()
            live.update(StatusScreen(read(now), now), refresh=True)
            if keys.wait(_PERIOD_S) & set(_QUIT):
                return
