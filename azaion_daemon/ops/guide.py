"""The pages of the operator's guide that are made from the code, so that they cannot differ from it.

`python -m azaion_daemon.ops.guide` writes them into deploy/, and the marks into config.template.yaml: tests compare them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from azaion_daemon.logs.catalogue import CATALOGUE
from azaion_daemon.metrics.catalogue import CATALOGUE as METRICS
from azaion_daemon.ops.settings_reference import settings_page, with_marks

_HEAD = "<!-- Made by `python -m azaion_daemon.ops.guide`: change the code, not this page. -->\n"


def events_page() -> str:
    """Every event that is logged."""
    rows = ["| event | level | meaning | fields | what to do |", "|---|---|---|---|---|"]
    for name, event in CATALOGUE.items():
        fields = ", ".join(f"`{field}`" for field in event.fields)
        rows.append(f"| `{name}` | {event.level} | {event.meaning} | {fields} | {event.remedy} |")
    return "\n".join([_HEAD, "# What is logged", "", *rows, ""])


def metrics_page() -> str:
    """Every metric that Prometheus can read."""
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join([_HEAD, "# Metrics", "", *rows, ""])


def settings_md() -> str:
    """Every setting."""
    return f"{_HEAD}\n{settings_page(TEMPLATE.read_text(encoding='utf-8'))}"


TEMPLATE = Path(__file__).parents[2] / "config.template.yaml"
"""Of the checkout that this module is of."""
PAGES: Mapping[str, Callable[[], str]] = {"events.md": events_page, "metrics.md": metrics_page, "settings.md": settings_md}
"""File name in deploy/ -> what makes its text."""


def write_pages(directory: Path) -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (directory / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    TEMPLATE.write_text(with_marks(TEMPLATE.read_text(encoding="utf-8")), encoding="utf-8")
    write_pages(TEMPLATE.with_name("deploy"))
