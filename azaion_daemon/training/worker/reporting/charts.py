"""Charts as inline SVG: drawn for 360 pixels, so that their text can be read where a phone shows them about that wide.

Colours come from the page's style sheet, by class (`s0` to `s5`), since they differ in dark mode; a dash pattern tells the lines apart
where there is no colour. Everything is described in words, for those who do not see it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 360, 226
_LEFT, _RIGHT, _TOP = 50, 12, 12
_FLOOR = _HEIGHT - 40
_FEW = 12
"""With so few points each is marked."""
_STYLES = 6
_PLAIN, _GROUPED = (1e-4, 1e5), 1e4
"""Numbers of this size are written without an exponent; from the second on by their integers alone."""

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Line:
    """One curve. A point whose y is None or no finite number interrupts it. `style` is a CSS class; `listed` puts it into the legend."""

    name: str
    points: Sequence[Point]
    style: str
    listed: bool = True


@dataclass(frozen=True)
class Chart:
    """A chart of lines over a common x. A range is found from the points where none is given; `marks` are lines across, with a word."""

    title: str
    x_label: str
    lines: Sequence[Line]
    y_label: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    marks: Sequence[tuple[float, str]] = field(default=())
    whole_x: bool = False
    """Whether x counts something."""


def finite(value: float | None) -> bool:
    """Whether it can be drawn."""
    return value is not None and math.isfinite(value)


def number(value: float) -> str:
    """A number at an axis, as short as it can be told apart."""
    if value == 0:
        return "0"
    if _PLAIN[0] <= abs(value) < _PLAIN[1]:
        return f"{value:,.4g}" if abs(value) < _GROUPED else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most` of them."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power: float = 10 ** math.floor(math.log10(span / most))
    step: float = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if span / (factor * power) <= most + 1e-9)
    if whole:
        step = max(1, math.ceil(step))
    first = math.ceil(low / step - 1e-9)
    values = (index * step for index in count(first))
    found: list[float] = []
    for value in values:
        if value > high + span * 1e-9:
            return found
        found.append(value)
    raise AssertionError  # `count` does not end


def line_chart(chart: Chart, id_: str) -> Markup:
    """The SVG of a chart with its legend; a sentence where there is nothing to draw. `id_` must be unique in the page."""
    drawn = [(x, float(y)) for line in chart.lines for x, y in line.points if y is not None and finite(y) and finite(x)]
    if not drawn:
        return Markup('<p class="empty">There is no number to draw.</p>')
    frame = _Frame(
        *(chart.x_range or _range([x for x, _ in drawn], pad=0)),
        *(chart.y_range or _range([y for _, y in drawn], pad=0.06, from_zero=True)),
    )
    lines, words = _marks(chart.marks, frame)
    parts = [
        *_y_axis(chart, frame),
        *_x_axis(chart, frame, sorted({x for x, _ in drawn})),
        *lines,
        *(_curve(line, frame) for line in reversed(chart.lines)),  # the first one is the most important one: on top
        *words,
    ]
    svg = (
        f'<svg class="chart" role="img" aria-labelledby="{id_}-t {id_}-d" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f'<title id="{id_}-t">{escape(chart.title)}</title><desc id="{id_}-d">{escape(_describe(chart))}</desc>{"".join(parts)}</svg>'
    )
    listed = [(line.style, line.name) for line in chart.lines if line.listed]
    only_one = len(listed) == 1 and listed[0][1].casefold() == chart.title.casefold()
    return Markup(svg) + (Markup() if only_one else legend(listed))  # noqa: S704 - every text in it is escaped


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """What each style of line means."""
    key = Markup('<li><svg class="key" viewBox="0 0 22 8" aria-hidden="true"><path class="line {}" d="M1 4H21"/></svg>{}</li>')
    items = Markup().join(key.format(style, name) for style, name in entries)
    return Markup('<ul class="legend">{}</ul>').format(items)


def styles() -> Iterable[str]:
    """The CSS classes of lines, over and over."""
    return (f"s{index % _STYLES}" for index in count())


@dataclass(frozen=True)
class _Frame:
    """Where numbers are in the picture. What is beyond the range of y is drawn at its edge."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (min(max(value, self.x_low), self.x_high) - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (min(max(value, self.y_low), self.y_high) - self.y_low) / (self.y_high - self.y_low)
        return _TOP + (1 - share) * (_FLOOR - _TOP)


def _y_axis(chart: Chart, frame: _Frame) -> Iterator[str]:
    for value in ticks(frame.y_low, frame.y_high):
        y = frame.y(value)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number(value)}</text>'
    if chart.y_label:
        turned = f"translate(11 {(_TOP + _FLOOR) / 2:.1f}) rotate(-90)"
        yield f'<text class="label" transform="{turned}" text-anchor="middle">{escape(chart.y_label)}</text>'


def _x_axis(chart: Chart, frame: _Frame, values: Sequence[float]) -> Iterator[str]:
    few = chart.whole_x and len(values) <= _STYLES
    for value in values if few else ticks(frame.x_low, frame.x_high, whole=chart.whole_x):
        x = frame.x(value)
        yield f'<path class="axis" d="M{x:.1f} {_FLOOR}v4"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{_FLOOR + 16}" text-anchor="middle">{number(value)}</text>'
    yield f'<path class="axis" d="M{_LEFT} {_FLOOR}H{_WIDTH - _RIGHT}"/>'
    centre = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text class="label" x="{centre:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(chart.x_label)}</text>'


def _marks(marks: Sequence[tuple[float, str]], frame: _Frame) -> tuple[list[str], list[str]]:
    """Lines and their words; many words would lie upon each other."""
    lines, words = [], []
    for at, word in marks:
        x = frame.x(at)
        aside, anchor = (-4, "end") if x > _WIDTH * 0.7 else (4, "start")
        lines.append(f'<path class="mark" d="M{x:.1f} {_TOP}V{_FLOOR}"/>')
        words.append(f'<text class="tick over" x="{x + aside:.1f}" y="{_TOP + 8}" text-anchor="{anchor}">{escape(word)}</text>')
    return lines, words if len(words) <= _STYLES else []


def _range(values: Sequence[float], *, pad: float, from_zero: bool = False) -> tuple[float, float]:
    low, high = min(values), max(values)
    if from_zero and low >= 0 and low < high * 0.6:
        low = 0.0
    if high - low <= 1e-12 * max(abs(high), abs(low), 1e-300):
        room = abs(high) * 0.5 or 0.5
        return low - room, high + room
    room = (high - low) * pad
    return (low if from_zero and low == 0 else low - room), high + room


def _curve(line: Line, frame: _Frame) -> str:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in line.points:
        if y is not None and finite(y) and finite(x):
            runs[-1].append((frame.x(x), frame.y(y)))
        elif runs[-1]:
            runs.append([])
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in runs if len(run) > 1)
    dotted = [point for run in runs for point in run if len(run) == 1 or len(line.points) <= _FEW]
    dots = "".join(f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in dotted)
    name = f"<title>{escape(line.name)}</title>"
    return f'<g>{name}<path class="line {line.style}" d="{path}"/>{dots}</g>' if path else f"<g>{name}{dots}</g>"


def _describe(chart: Chart) -> str:
    sentences = []
    for line in chart.lines:
        points = [(x, float(y)) for x, y in line.points if y is not None and finite(y)]
        if not points or not line.listed:
            continue
        (first_x, first), (last_x, last) = points[0], points[-1]
        x, best = max(points, key=lambda point: point[1])
        sentences.append(
            f"{line.name}: {number(first)} at {number(first_x)}, {number(last)} at {number(last_x)}, "
            f"highest {number(best)} at {number(x)}; {chart.x_label}."
        )
    return " ".join(sentences)
