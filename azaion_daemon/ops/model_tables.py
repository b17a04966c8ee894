"""What `ops.models` says of models, for people."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from azaion_daemon.logs.tidying import printable
from azaion_daemon.ops.tables import moment, table

_WIDTH = 120


def render_list(models: Sequence[dict[str, Any]]) -> str:
    """Every model, one line each, and below those that are not kept, why."""
    if not models:
        return "There is no model yet."
    head = ["model or job", "is", "mAP50", "mAP50-95", "from", "dataset", "release"]
    rows = [
        [
            one["id"][:12] if one["sha256"] == one["id"] else one["id"],
            "gone (its files)" if one["state"] == "gone" else one["state"],
            _share(one["map50"]),
            _share(one["map50_95"]),
            moment(one["created"]),
            one["dataset"] or "",
            "" if one["serial"] is None else f"{one['serial']} {one['release']}",
        ]
        for one in models
    ]
    first, *others = table([head, *rows], right={2, 3})
    lines = [first]
    for one, line in zip(models, others, strict=True):
        lines.append(line)
        if one["state"] in {"held", "rejected"} and one["why"]:
            lines += _filled(one["why"], "    ")
    return "\n".join(lines)


def render_shown(document: dict[str, Any]) -> str:
    """Everything that is known of a model."""
    lines = [f"{document['id']}, {document['state']}"]
    facts = {
        "job": document["job"],
        "dataset": document["dataset"] and f"{document['dataset']} (id {str(document['dataset_id'])[:12]})",
        "from": moment(document["created"]),
        "current since": document["current_since"] and moment(document["current_since"]),
        "releases": ", ".join(f"{one['serial']} {one['state']}" for one in document["releases"]),
        "file": document["path"],
        "report": document["report"],
        "seconds": ", ".join(f"{phase} {seconds:.0f}" for phase, seconds in document["seconds"].items()),
        "starts": document["attempts"],
        "versions": ", ".join(f"{name} {version}" for name, version in document["versions"].items()),
    }
    for name, value in facts.items():
        if value:
            lines += textwrap.wrap(f"{name:14}{printable(str(value))}", _WIDTH, subsequent_indent=" " * 14, break_long_words=False)
    return "\n".join([*lines, *_verdict(document["verdict"]), *_figures(document)])


def _verdict(verdict: Mapping[str, Any] | None) -> Iterator[str]:
    while verdict:
        when = datetime.fromtimestamp(verdict["time"], UTC).isoformat() if isinstance(verdict.get("time"), int | float) else None
        yield ""
        yield f"{str(verdict.get('decision')).capitalize()} by the {verdict.get('by')}{f', {moment(when)}' if when else ''}:"
        yield from _filled(str(verdict.get("reason")), "    ")
        checks = verdict.get("checks") or []
        if checks:
            rows = [[one["name"], _number(one["value"], one), _number(one["limit"], one), "ok" if one["ok"] else "below"] for one in checks]
            yield from (f"    {line}" for line in table([["looked at", "is", "at least", ""], *rows], right={1, 2}))
        verdict = verdict.get("before")


def _figures(document: Mapping[str, Any]) -> Iterator[str]:
    own, compared = document["metrics"], document["compared_on"]
    if own:
        yield ""
        yield (
            f"On its own {own['images']:,} test images with {own['instances']:,} instances: mAP50 {_share(own['map50'])}, "
            f"mAP50-95 {_share(own['map50_95'])}"
        )
    if compared is None:
        if own:
            yield from _classes(own, None)
        return
    yield ""
    left_out = "; ".join(f"{count:,} {why}" for why, count in (compared["left_out"] or {}).items())
    yield from _filled(
        f"Compared with {compared['rival'][:12]} on {compared['images']:,} images that neither was trained on"
        f"{f' ({left_out})' if left_out else ''}{': ' + compared['problem'] if compared['problem'] else ''}",
        "",
    )
    yield from _classes(compared["candidate"], compared["current"])


def _classes(mine: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> list[str]:
    """The classes that have instances, each beside the current model's figure."""
    there = {} if theirs is None else {one["name"]: one for one in theirs["classes"]}
    head = ["mAP50-95 of", "instances", "images", "this", "current", "difference"]
    rows = [["all", f"{mine['instances']:,}", f"{mine['images']:,}", *_beside(mine, theirs)]]
    rows += [
        [one["name"], f"{one['instances']:,}", f"{one['images']:,}", *_beside(one, there.get(one["name"]))]
        for one in mine["classes"]
        if one["instances"]
    ]
    if theirs is None:
        head, rows = head[:4], [row[:4] for row in rows]
    return table([head, *rows], right=set(range(1, len(head))))


def _beside(mine: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> list[str]:
    one, other = mine["map50_95"], None if theirs is None else theirs["map50_95"]
    return [_share(one), _share(other), "" if one is None or other is None else f"{one - other:+.3f}"]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _number(value: float, check: Mapping[str, Any]) -> str:
    return f"{value:,.0f}" if check.get("counts") else f"{value:.3f}"


def _filled(text: str, indent: str) -> list[str]:
    words = printable(" ".join(text.split()))
    return textwrap.wrap(words, _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False)
