"""The confusion matrix as inline SVG, and the most frequent confusions in words, which is what one looks for in a large one."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

_FEW = 12
"""With so few classes the numbers stand in their cells."""
_CELLS = {4: 46, _FEW: 36, 40: 20}
"""The side of a cell for so many labels at most."""
_TITLED = 300
"""So many cells at most, the largest ones, tell their numbers where the pointer is: the page must stay small."""
_LEAST_CELL, _NARROW = 14, 16
"""With more labels; and below which side the names are smaller."""
_LETTER, _LABEL_LETTERS = 6.4, 17
_SHADES = 0.55
"""From this share on the shade is so dark that its number is white."""


class Confused(NamedTuple):
    """Objects of one class that the model took for another, or overlooked, or saw where there is nothing."""

    true: str
    predicted: str
    objects: int
    share: float
    """Of all that are `true`."""


def frequent(labels: Sequence[str], matrix: Sequence[Sequence[int]], most: int = 8) -> list[Confused]:
    """The largest cells off the diagonal. Rows are what was predicted, columns what is true; the last of both is the background."""
    totals = [sum(row[column] for row in matrix) for column in range(len(labels))]
    last = len(labels) - 1
    found = [
        Confused(
            labels[column] if column < last else "nothing",
            labels[row] if row < last else "overlooked",
            value,
            value / totals[column],
        )
        for row, values in enumerate(matrix)
        for column, value in enumerate(values)
        if row != column and value > 0
    ]
    return sorted(found, key=lambda one: -one.objects)[:most]


def matrix_chart(labels: Sequence[str], matrix: Sequence[Sequence[int]], id_: str) -> Markup:
    """The SVG: a cell's shade is its share of its column. Rows are what was predicted, columns what is true."""
    few = len(labels) <= _FEW
    cell = next((side for most, side in _CELLS.items() if len(labels) <= most), _LEAST_CELL)
    side = cell * len(labels)
    edge = round(14 + _LETTER * min(_LABEL_LETTERS, max(map(len, labels))))
    width, height = edge + side + 4, edge + side + 22
    totals = [sum(row[column] for row in matrix) for column in range(len(labels))]
    parts = []
    for index, label in enumerate(labels):
        middle = edge + (index + 0.5) * cell
        text = f"<title>{escape(label)}</title>{escape(shortened(label, _LABEL_LETTERS))}"
        small = "tick small" if cell < _NARROW else "tick"
        parts.append(f'<text class="{small}" x="{edge - 6}" y="{middle + 3.5:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<text class="{small}" transform="translate({middle + 3.5:.1f} {edge - 6}) rotate(-90)">{text}</text>')
    grid = "".join(f"M{edge} {at}h{side}M{at} {edge}v{side}" for at in range(edge, edge + side + 1, cell))
    parts.append(f'<path class="grid" d="{grid}"/>')
    cells = ((value, row, column) for row, values in enumerate(matrix) for column, value in enumerate(values) if value > 0)
    for rank, (value, row, column) in enumerate(sorted(cells, reverse=True)):
        share = value / totals[column]
        x, y = edge + column * cell, edge + row * cell
        said = f"{labels[column]} taken for {labels[row]}: {value:,} ({share:.0%})" if row != column else f"{labels[row]}: {value:,}"
        title = f"<title>{escape(said)}</title>" if rank < _TITLED else ""
        parts.append(
            f'<rect class="{"hit" if row == column else "miss"}" x="{x}" y="{y}" width="{cell}" height="{cell}" '
            f'fill-opacity="{0.08 + 0.92 * share:.2f}">{title}</rect>'
        )
        if few:
            tone = "cell on" if share > _SHADES else "cell"
            parts.append(f'<text class="{tone}" x="{x + cell / 2}" y="{y + cell / 2 + 4}" text-anchor="middle">{value:,}</text>')
    parts.append(f'<text class="label" x="{edge + side / 2}" y="{height - 5}" text-anchor="middle">columns: true; rows: predicted</text>')
    right = sum(matrix[index][index] for index in range(len(labels)))
    described = escape(f"{right:,} objects were recognised as what they are. The most frequent confusions are listed beside.")
    # As wide as it is drawn for, where there is room; a large one is scrolled on a phone.
    least = min(width, 288) if few else width
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg class="chart matrix" role="img" aria-labelledby="{id_}-t {id_}-d" viewBox="0 0 {width} {height}" '
        f'style="max-width:{width}px;min-width:{least}px">'
        f'<title id="{id_}-t">Confusion matrix</title><desc id="{id_}-d">{described}</desc>{"".join(parts)}</svg>'
    )


def shortened(text: str, letters: int) -> str:
    """At most so many letters; the end of a class's name has the mode, so the middle goes."""
    if len(text) <= letters:
        return text
    end = letters // 3
    return f"{text[: letters - end - 1]}…{text[len(text) - end :]}"
