"""The pages of the operator's guide that are made from the code, so that they cannot differ from it.

`python -m azaion_daemon.ops.guide` writes them into deploy/, and the marks into config.template.yaml: tests compare them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from azaion_daemon.logs.catalogue import AREAS, Event
from azaion_daemon.metrics.catalogue import CATALOGUE as METRICS
from azaion_daemon.ops.settings_reference import settings_page, with_marks

_HEAD = "<!-- Made by `python -m azaion_daemon.ops.guide`: change the code, not this page. -->\n"


_EVENTS_HEAD = """# What is logged

The daemon logs on its standard output, which systemd hands to the journal: one JSON object a line, or lines for people when that is a
terminal (`log.format` says otherwise). Every line begins with the same four fields; those of the event follow.

    {"timestamp": "2026-05-04T08:30:00.123456Z", "level": "warning", "service": "azaion-daemon", "event": "release.waiting", ...}

- `timestamp` is UTC. `level` is debug, info, warning or error; `log.level` says from which on lines are written, and a reload changes it.
- `event` is a name that stays: alert on it. Everything that differs between two lines is in the fields.
- An error wants somebody now, a warning wants to be looked at; what to do stands below. Some pass by themselves.
- A failure that repeats is logged at its 1st, 2nd, 4th, 8th ... time, and once an hour: `repeated` is how often it was seen by then,
  `for_s` for how many seconds. Another reason is logged at once. What was not seen for two hours counts as new.
- Texts are cut at 4,096 characters, an `exception` (a traceback) at 16,384. Passwords, keys and tokens are never in a line, nor images.
- Writing never holds up the daemon: when nobody reads, or the disk behind the log is full, lines are lost and counted (`log.lost`).
- A training's own output is not here but in `worker.log` of its job: `azaion-daemon train logs JOB`.

With `jq`, and `-o cat` so that the journal adds nothing:

    journalctl -u azaion-daemon -o cat --since today | jq -c 'select(.level == "warning" or .level == "error")'
    journalctl -u azaion-daemon -o cat -f | jq -r '"\\(.timestamp[11:19]) \\(.event) \\(.why // .error // "")"'
    journalctl -u azaion-daemon -o cat | jq -c 'select(.job == "20260504T083000Z")'
    journalctl -u azaion-daemon -o cat | jq -r 'select(.level != "info") | .event' | sort | uniq -c | sort -rn
    journalctl -u azaion-daemon -o cat --since -1h | jq -s 'map(select(.event == "ingest.batch").annotations) | add'
"""


def events_page() -> str:
    """Every event that is logged, by area, and what to do about it."""
    return "\n".join([_HEAD, _EVENTS_HEAD, *(_area(title, events) for title, events in AREAS.items())])


def _area(title: str, events: Mapping[str, Event]) -> str:
    rows = [f"## {title}", "", "| event | level | meaning and what to do | fields |", "|---|---|---|---|"]
    for name, event in events.items():
        said = (f"{event.meaning} **{event.remedy}**" if event.remedy else event.meaning).replace("|", r"\|")
        rows.append(f"| `{name}` | {event.level} | {said} | {' '.join(f'`{field}`' for field in event.fields)} |")
    return "\n".join([*rows, ""])


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
