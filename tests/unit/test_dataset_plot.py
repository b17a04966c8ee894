"""A dataset as a picture: a whole PNG whose texts are legible, whatever the dataset."""

import sys
from array import array
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from azaion_daemon.dataset.split import Side
from azaion_daemon.ops.dataset_plot import _STYLE, Content, draw, gather, picture
from azaion_daemon.ops.datasets import shown
from azaion_daemon.store.ledger import Ledger
from tests.unit.test_datasets import FIRST_DAY, Site, rows_of

PNG = b"\x89PNG\r\n\x1a\n"
DAY = 86400.0
NOW = 1_780_000_000.0
ODD_NAMES = ["Car", "Trailer of a kind that has a very long name indeed", "Човен", "50 % $x_1$ & <b>", "a\\frac{b}"]


def content(classes: int, *, boxes: int = 500, days: float = 60) -> Content:
    def tally(number: int) -> dict[str, Any]:
        counts = {side: (10_000 // (1 + number * number)) // (1 + place) for place, side in enumerate(Side)}
        return {"id": number, "name": f"{ODD_NAMES[number % 5]}({number})", "objects": counts, "images": counts}

    document = {
        "name": "azaion-2026-04-01",
        "id": "0123456789abcdef",
        "created": FIRST_DAY.isoformat(),
        "images": dict.fromkeys(Side, 1000),
        "objects": dict.fromkeys(Side, boxes),
        "classes": [tally(number) for number in range(classes)],
    }
    spread = array("f", [(number * 37 % 100 + 0.5) / 100 for number in range(boxes)])
    sizes = array("f", [0.001 + number / max(boxes, 1) / 2 for number in range(boxes)])
    times = {side: array("d", [NOW + days * DAY * number / 40 for number in range(41)]) for side in Side}
    return Content(document, spread, spread[::-1], sizes, sizes[::-1], times)


@pytest.mark.parametrize("classes", [0, 1, 2, 25, 45, 60])
def test_no_text_is_clipped_and_no_class_name_covers_another(classes: int) -> None:
    with mpl.rc_context(_STYLE):
        figure = picture(content(classes))
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert drawn.x0 >= 0
        assert drawn.y0 >= 0
        assert drawn.x1 <= width
        assert drawn.y1 <= height
        names = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
        assert not any(one.overlaps(other) for one, other in pairwise(names))


@pytest.mark.parametrize(
    "what",
    [content(2, boxes=0), content(2, boxes=1, days=0), content(2, days=0.1), content(2, days=4000), Content(content(3).document)],
    ids=["no boxes", "one box", "one shift", "many years", "nothing"],
)
def test_anything_can_be_drawn(what: Content) -> None:
    assert draw(what).startswith(PNG)


def test_a_dataset_is_drawn_from_its_labels_and_what_the_ledger_knows(tmp_path: Path) -> None:
    site = Site(tmp_path)
    made = site.form(rows_of(10, created_at=NOW), FIRST_DAY)
    site.put([one._replace(name=f"{one.name}x", created_at=None, first_seen=NOW + DAY) for one in rows_of(3)])
    site.form([*rows_of(8, created_at=NOW), *(one._replace(name=f"{one.name}x", first_seen=NOW + DAY) for one in rows_of(3))], FIRST_DAY)
    ledger = Ledger(site.layout.ledger, read_only=True)
    newest = gather(shown(site.layout, None), ledger, now=NOW)
    ledger.close()
    assert sorted(time for side in Side for time in newest.times[side]) == [NOW] * 8 + [NOW + DAY] * 3
    assert (len(newest.cx), set(newest.width), newest.undated) == (11, {0.25}, 0)
    target = tmp_path / "picture.png"
    result = site.run("show", made.name, "--plot", str(target))
    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir() if "picture" in path.name] == ["picture.png"]


def test_annotations_that_the_ledger_has_forgotten_are_counted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    made = site.form(rows_of(10), FIRST_DAY)
    other = Site(tmp_path / "other")
    ledger = Ledger(other.layout.ledger, read_only=True)
    assert gather(shown(site.layout, made.name), ledger, now=NOW).undated == 10
    ledger.close()


@pytest.mark.parametrize("odd", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC), datetime(1999, 12, 31, tzinfo=UTC)])
def test_one_odd_date_neither_ends_nor_stretches_the_picture(tmp_path: Path, odd: datetime) -> None:
    site = Site(tmp_path)
    first, *others = rows_of(10, created_at=NOW)
    site.form([first._replace(created_at=odd.timestamp()), *others], FIRST_DAY)
    ledger = Ledger(site.layout.ledger, read_only=True)
    found = gather(shown(site.layout, None), ledger, now=NOW)
    ledger.close()
    assert ([time for side in Side for time in found.times[side]], found.misdated) == ([NOW] * 9, 1)
    with mpl.rc_context(_STYLE):
        over_time = picture(found).axes[3]
        assert over_time.get_xlabel() == "time of the annotation, UTC; 1 with an impossible date"
        begins, ends = over_time.get_xlim()
    assert ends - begins < 1
    assert site.run("show", "--plot", str(tmp_path / "picture.png")).exit_code == 0


def test_what_cannot_be_drawn_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Content) -> bytes:
        raise OverflowError("date value out of range")

    site = Site(tmp_path)
    made = site.form(rows_of(10), FIRST_DAY)
    monkeypatch.setattr("azaion_daemon.ops.dataset_plot.draw", fail)
    result = site.run("show", "--plot", str(tmp_path / "picture.png"))
    assert (result.exit_code, f"{made.name} cannot be drawn: OverflowError" in result.stderr) == (78, True)


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    site.form(rows_of(10), FIRST_DAY)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "azaion_daemon.ops.dataset_plot")
    result = site.run("show", "--plot", str(tmp_path / "picture.png"))
    assert (result.exit_code, "azaion-daemon[plot]" in result.stderr) == (78, True)


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.form(rows_of(10), FIRST_DAY)
    result = site.run("show", "--plot", str(tmp_path / "nowhere" / "picture.png"))
    assert (result.exit_code, "cannot be written" in result.stderr) == (78, True)
