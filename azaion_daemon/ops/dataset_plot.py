"""A dataset as one picture: classes by side, where boxes are and how large, and when the annotations were made."""

import io
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from azaion_daemon.dataset.manifest import read_manifest
from azaion_daemon.dataset.split import Side
from azaion_daemon.store.labels import parse_label
from azaion_daemon.store.ledger import Ledger

_COLOURS = {Side.TRAIN: "#0072B2", Side.VALID: "#E69F00", Side.TEST: "#009E73"}
"""Of Okabe and Ito: told apart by the colour-blind, and in grey by their lightness."""
_HEAT = "cividis"
_AT_ONCE = 10_000
_NAME_LENGTH = 34
_ROW_INCHES = 0.3
_CELLS = 48
_TALL = 24
"""With more classes than this the picture is higher than wide."""
_FEWEST_ROWS = 9
_STEPS_S = {
    3600: "an hour",
    6 * 3600: "in 6 hours",
    86400: "a day",
    7 * 86400: "a week",
    28 * 86400: "in 4 weeks",
    91 * 86400: "in 13 weeks",
    364 * 86400: "in 52 weeks",
}
_MOST_BARS = 60
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_DAY_S = 86400.0
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
}


@dataclass
class Content:
    """What is drawn. Boxes are shares of the image, four parallel columns; times are seconds since the epoch."""

    document: dict[str, Any]
    cx: "array[float]" = field(default_factory=lambda: array("f"))
    cy: "array[float]" = field(default_factory=lambda: array("f"))
    width: "array[float]" = field(default_factory=lambda: array("f"))
    height: "array[float]" = field(default_factory=lambda: array("f"))
    times: "dict[Side, array[float]]" = field(default_factory=lambda: {side: array("d") for side in Side})
    undated: int = 0
    """Annotations that the ledger does not know any more."""
    misdated: int = 0
    """Those whose producer's clock was wrong beyond belief: one alone would stretch the picture's time over centuries."""


def gather(document: dict[str, Any], ledger: Ledger, *, now: float) -> Content:
    """Read a dataset's labels, and when its annotations were made: as the producer says, else when they were first seen.

    A time before 2000 or more than a day after `now` is no time.

    Raises:
        OSError: A file cannot be read.
    """
    content = Content(document)
    path = Path(document["path"])
    lines = iter(read_manifest(path))
    while portion := list(islice(lines, _AT_ONCE)):
        known = ledger.annotations([line["name"] for line in portion])
        for line in portion:
            side = Side(line["split"])
            for box in parse_label((path / side / "labels" / f"{line['name']}.txt").read_text()):
                content.cx.append(box.cx)
                content.cy.append(box.cy)
                content.width.append(box.w)
                content.height.append(box.h)
            row = known.get(line["name"])
            if row is None:
                content.undated += 1
            elif _EARLIEST <= (made := row.first_seen if row.created_at is None else row.created_at) <= now + _DAY_S:
                content.times[side].append(made)
            else:
                content.misdated += 1
    return content


def draw(content: Content) -> bytes:
    """The picture, as PNG."""
    file = io.BytesIO()
    with mpl.rc_context(_STYLE):
        picture(content).savefig(file, format="png")
    return file.getvalue()


def picture(content: Content) -> Figure:
    """The picture, to be drawn in the style that `draw` sets."""
    document = content.document
    rows = len(document["classes"])
    figure = Figure(
        figsize=(16, max(9.5, 2.2 + rows * _ROW_INCHES)),
        dpi=100,
        layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.03, hspace=0.03),
    )
    figure.suptitle(_title(document), x=0.01, ha="left", fontsize=13)
    classes, positions, sizes, over_time = _panels(figure, tall=rows > _TALL)
    _classes(classes, document["classes"])
    _positions(positions, content)
    _sizes(sizes, content)
    _over_time(over_time, content)
    return figure


def _panels(figure: Figure, *, tall: bool) -> tuple[Axes, Axes, Axes, Axes]:
    """Classes on the left over the whole height; the others beside them, one below the other where there are many classes."""
    if tall:
        grid = figure.add_gridspec(3, 2, width_ratios=[1.1, 1])
        return tuple(figure.add_subplot(where) for where in (grid[:, 0], grid[0, 1], grid[1, 1], grid[2, 1]))  # type: ignore[return-value]
    grid = figure.add_gridspec(2, 3, width_ratios=[1.35, 1, 1], height_ratios=[1, 0.9])
    return tuple(figure.add_subplot(where) for where in (grid[:, 0], grid[0, 1], grid[0, 2], grid[1, 1:]))  # type: ignore[return-value]


def _title(document: dict[str, Any]) -> str:
    images, objects = document["images"], sum(document["objects"].values())
    sides = ", ".join(f"{images[side]:,} {side}" for side in Side)
    formed = datetime.fromisoformat(document["created"]).astimezone(UTC)
    counts = f"{sum(images.values()):,} images ({sides}), {objects:,} objects"
    return f"{document['name']}  ·  id {document['id'][:12]}  ·  formed {formed:%Y-%m-%d %H:%M} UTC\n{counts}"


def _classes(axes: Axes, classes: Sequence[dict[str, Any]]) -> None:
    axes.set_title("Objects of each class, by side")
    rows = np.arange(len(classes))
    thickness = 0.8 / len(Side)
    most = 1
    for number, side in enumerate(Side):
        counts = [one["objects"][side] for one in classes]
        most = max(most, *counts, 1)
        axes.barh(rows + (number - 1) * thickness, counts, thickness, color=_COLOURS[side], label=side, left=0)
    axes.set_xscale("log")
    axes.set_xlim(0.7, most * 12)
    for row, one in enumerate(classes):
        total = sum(one["objects"].values())
        beside = max(0.8, *(one["objects"][side] for side in Side)) * 1.12
        axes.text(beside, row, f"{total:,}" if total else "none", va="center", fontsize=9, color="#333333" if total else "#B00020")
    axes.set_yticks(rows, [_short(f"{one['id']}  {one['name']}") for one in classes])
    axes.set_ylim(max(len(classes), _FEWEST_ROWS) - 0.4, -0.6)
    axes.set_xlabel("objects (log scale; the number is all sides together)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
    axes.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower right", frameon=True, framealpha=0.95)


def _positions(axes: Axes, content: Content) -> None:
    axes.set_title("Where boxes are (centres)")
    edges = np.linspace(0, 100, _CELLS + 1)
    _heat(axes, np.asarray(content.cx) * 100, np.asarray(content.cy) * 100, edges, edges)
    axes.set_xlim(0, 100)
    axes.set_ylim(100, 0)
    axes.set_xlabel("% of the image's width, from the left")
    axes.set_ylabel("% of the image's height, from the top")


def _sizes(axes: Axes, content: Content) -> None:
    axes.set_title("How large boxes are")
    width, height = (np.maximum(np.asarray(values) * 100, 1e-3) for values in (content.width, content.height))
    smallest = min([0.5, *(float(np.quantile(values, 0.001)) for values in (width, height) if len(values))])
    edges = np.geomspace(smallest * 0.9, 100, _CELLS + 1)
    _heat(axes, np.clip(width, edges[0], None), np.clip(height, edges[0], None), edges, edges)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot([edges[0], 100], [edges[0], 100], color="#888888", linewidth=0.8, linestyle="--")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.set_xlabel("box width, % of the image's width (log scale)")
    axes.set_ylabel("box height, % of the image's height (log scale)")


def _heat(axes: Axes, x: Any, y: Any, x_edges: Any, y_edges: Any) -> None:
    counts, _, _ = np.histogram2d(x, y, bins=(x_edges, y_edges))
    if not counts.any():
        axes.text(0.5, 0.5, "no boxes", transform=axes.transAxes, ha="center", color="#666666")
        return
    shown = np.ma.masked_equal(counts.T, 0)
    mesh = axes.pcolormesh(x_edges, y_edges, shown, cmap=_HEAT, norm=LogNorm(1, max(2, counts.max())), rasterized=True)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30)
    bar.set_label("objects in a cell (log scale)")
    most = int(counts.max())
    ticks = [10**power for power in range(len(str(most))) if 10**power * 2 <= most]
    bar.set_ticks([*ticks, most], labels=[f"{tick:,}" for tick in (*ticks, most)])
    bar.ax.minorticks_off()


def _over_time(axes: Axes, content: Content) -> None:
    axes.set_title("When the annotations were made")
    times = [time for side in Side for time in content.times[side]]
    if not times:
        why = "the ledger knows none of them any more" if not content.misdated else f"no date can be used{_unknown(content)}"
        axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", color="#666666")
        axes.set_axis_off()
        return
    step = next((one for one in _STEPS_S if (max(times) - min(times)) / one < _MOST_BARS), max(_STEPS_S))
    first, last = int(min(times) // step), int(max(times) // step)
    starts = [datetime.fromtimestamp(number * step, UTC) for number in range(first, last + 1)]
    below = np.zeros(len(starts))
    for side in Side:
        binned = Counter(int(time // step) - first for time in content.times[side])
        counts = np.array([binned[number] for number in range(len(starts))])
        axes.bar(date2num(starts), counts, width=step / 86400 * 0.92, align="edge", bottom=below, color=_COLOURS[side], label=side)
        below += counts
    axes.set_xlim(date2num(starts[0] - timedelta(seconds=step / 2)), date2num(starts[-1] + timedelta(seconds=step * 1.5)))
    locator = AutoDateLocator(tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(visible=True, axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel(f"images {_STEPS_S[step]}")
    axes.set_xlabel(f"time of the annotation, UTC{_unknown(content)}")
    axes.legend(frameon=False, ncols=3, loc="upper left")


def _unknown(content: Content) -> str:
    forgotten = f"; {content.undated:,} not in the ledger any more" if content.undated else ""
    return forgotten + (f"; {content.misdated:,} with an impossible date" if content.misdated else "")


def _short(name: str) -> str:
    """The end has the mode, so the middle goes."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 12]}…{name[-11:]}"
