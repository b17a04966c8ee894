"""report.html as a person sees it: in a real browser, on a screen, a phone and paper."""

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest

from azaion_daemon.training.gate import Check, Decision, Verdict
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.report_verdict import stamp
from azaion_daemon.training.worker.reporting.page import render
from azaion_daemon.training.worker.reporting.samples import Samples
from tests.browsing import needs_chromium, opened
from tests.reports import NOW, SCRIPT, facts, hostile, sample

pytestmark = needs_chromium

A4_WITHOUT_MARGINS = 695  # pixels of the style sheet

# What reaches beyond the edge of the page, unless it can be scrolled there or is cut on purpose.
OVERFLOWING = """() => [...document.querySelectorAll('body *')].filter(element => {
    if (element.closest('svg') && element.tagName != 'svg') return false;
    const scrolled = element.parentElement.closest('.scroll');
    if (scrolled && getComputedStyle(scrolled).overflowX == 'auto') return false;
    const box = element.getBoundingClientRect();
    return box.width > 0 && (box.right > document.documentElement.clientWidth + 0.5 || box.left < -0.5);
}).map(element => element.outerHTML.slice(0, 120))"""
# Text that is wider than the cell, tile or caption that it stands in.
SPILLED = """() => [...document.querySelectorAll('td, th, p, dd, dt, figcaption, h1, h2, h3, .verdict, .tile, figure, li')]
    .filter(element => element.scrollWidth > element.clientWidth + 1).map(element => element.outerHTML.slice(0, 120))"""
# Texts with a contrast below 4.5 (WCAG AA) to what they stand on, but for those in charts and pictures.
FAINT = """() => {
    const parse = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = element => {
        for (let one = element; one; one = one.parentElement) {
            const colour = parse(getComputedStyle(one).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll('body *')].filter(element => !element.closest('svg, .picture')
        && [...element.childNodes].some(node => node.nodeType == 3 && node.data.trim())).filter(element => {
            const [one, other] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
            return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
        }).map(element => element.outerHTML.slice(0, 120));
}"""
MISSING_PICTURES = "() => [...document.images].filter(image => !image.complete || image.naturalWidth == 0).map(image => image.alt)"
UNNAMED = """() => [
    ...[...document.querySelectorAll('svg')].filter(svg => svg.getAttribute('aria-hidden') != 'true'
        && !(svg.getAttribute('role') == 'img' && svg.querySelector('title')?.textContent.trim())),
    ...[...document.images].filter(image => !image.alt.trim()),
    ...[...document.querySelectorAll('table')].filter(table => !table.querySelector('th[scope]')),
    ...[...document.querySelectorAll('[aria-labelledby]')].filter(element =>
        element.getAttribute('aria-labelledby').split(' ').some(id => !document.getElementById(id)?.textContent.trim())),
].map(element => element.outerHTML.slice(0, 120))"""
REPEATED_IDS = """() => { const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
    return ids.filter((id, index) => ids.indexOf(id) != index); }"""


@pytest.fixture
def ordinary(tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    names = ("car", "truck", "boat")
    file.write_text(render(facts(names), Samples((sample(names),), 1, 1)))
    return file


@pytest.fixture
def worst(tmp_path: Path) -> Path:
    """A page of hostile facts, judged twice with hostile reasons."""
    job = JobDirectory(tmp_path)
    job.report.write_text(render(*hostile()))
    checks = tuple(Check(f"mAP50-95 of {SCRIPT}{'W' * 100}", -0.3, -0.1, ok=False) for _ in range(30))
    assert stamp(job, Verdict(Decision.REJECTED, SCRIPT * 3, checks), by=SCRIPT, at=NOW, reason="r" * 400)
    assert stamp(job, Verdict(Decision.ACCEPTED, "W" * 300), by="w" * 200, at=NOW + timedelta(hours=1), reason=SCRIPT)
    return job.report


@pytest.mark.parametrize(
    ("width", "media"),
    [(1280, "screen"), (360, "screen"), (320, "screen"), (A4_WITHOUT_MARGINS, "print")],
    ids=["desk", "phone", "small", "paper"],
)
@pytest.mark.parametrize("page", ["ordinary", "worst"])
async def test_everything_is_there_and_in_its_place(
    request: pytest.FixtureRequest, page: str, width: int, media: Literal["screen", "print"]
) -> None:
    file: Path = request.getfixturevalue(page)
    async with opened(file, width=width, media=media) as looked:
        assert await looked.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert await looked.evaluate(OVERFLOWING) == []
        assert await looked.evaluate(SPILLED) == []
        assert await looked.evaluate("() => document.images.length") == (1 if page == "ordinary" else 12)
        assert await looked.evaluate(MISSING_PICTURES) == []
        assert looked.trouble == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everything_can_be_read_and_is_named(worst: Path, scheme: Literal["light", "dark"]) -> None:
    async with opened(worst, scheme=scheme) as looked:
        assert await looked.evaluate(FAINT) == []
        assert await looked.evaluate(UNNAMED) == []
        assert await looked.evaluate(REPEATED_IDS) == []
        levels = await looked.evaluate("() => [...document.querySelectorAll('h1, h2, h3')].map(heading => Number(heading.tagName[1]))")
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


async def test_whatever_comes_from_outside_is_text(worst: Path) -> None:
    async with opened(worst) as looked:
        assert await looked.page.title() == "Training 20260301T120000Z"
        assert await looked.evaluate("() => document.scripts.length") == 0
        assert await looked.evaluate("() => [...document.images].filter(image => !image.src.startsWith('data:')).length") == 0
        text = await looked.page.inner_text("main")
        assert SCRIPT in text
        assert "{{ 7 * 7 }}{% raw %}" in text
        assert await looked.evaluate("() => document.querySelectorAll('main').length") == 1
        assert await looked.evaluate("() => document.querySelectorAll('main footer').length") == 1  # nothing closed it before its end
        assert looked.trouble == []


async def test_the_newest_verdict_is_what_one_sees_first(worst: Path) -> None:
    async with opened(worst) as looked:
        assert await looked.page.locator(".decision").all_inner_texts() == ["✓\nAccepted", "✕\nRejected"]
        first = await looked.page.locator(".decision").first.bounding_box()
        assert first is not None
        assert first["y"] < 400


async def test_it_prints_on_a4(ordinary: Path) -> None:
    async with opened(ordinary) as looked:
        pdf = await looked.page.pdf(prefer_css_page_size=True)
        assert pdf.count(b"/Type /Page\n") <= 6
        assert b"/MediaBox [0 0 59" in pdf  # 595 points wide
