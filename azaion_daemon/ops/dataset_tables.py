"""What `ops.datasets` says of datasets, for people."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ByteSize

from azaion_daemon.dataset.split import Side
from azaion_daemon.ops.tables import moment, table

_WIDTH = 120


def render_list(datasets: Sequence[dict[str, Any]]) -> str:
    """Every dataset, one line each."""
    if not datasets:
        return "There is no dataset yet."
    head = ["dataset", "formed", "images", "objects", "of its own", "goes when", "referred to by"]
    rows = [
        [
            one["name"],
            moment(one["created"]),
            f"{sum(one['images'].values()):,}",
            f"{sum(one['objects'].values()):,}",
            ByteSize(one["bytes_of_its_own"]).human_readable(decimal=True),
            one["goes_when"],
            "; ".join(one["referred_by"]),
        ]
        for one in datasets
    ]
    return "\n".join(table([head, *rows], right={2, 3, 4}))


def render_shown(document: dict[str, Any]) -> str:
    """What a dataset holds."""
    position = "" if document["position"] is None else f", at position {document['position']}"
    lines = [f"{document['name']} (id {document['id'][:12]}), formed {moment(document['created'])}{position}", document["path"], ""]
    return "\n".join([*lines, *_counts(document), *_grown(document), *_findings("Remarks:", document["remarks"])])


def render_planned(document: dict[str, Any]) -> str:
    """What a dataset would hold now."""
    position = "" if document["position"] is None else f", at position {document['position']}"
    lines = [f"A dataset that is formed now{position}, would hold:", "", *_counts(document), *_grown(document)]
    if document["new_media"]:
        lines.append(f"{document['new_media']:,} media are new, and would be given a side for good.")
    if document["undigested"]:
        lines.append(f"It would wait for the daemon to read {document['undigested']:,} images of a tree that was taken over.")
    lines += _findings("Remarks:", document["remarks"])
    lines += _findings("It could not be trained on:", document["problems"])
    return "\n".join(lines)


def _counts(document: dict[str, Any]) -> list[str]:
    classes, modes = document["classes"], document["modes"]
    present = [one for one in classes if sum(one["objects"].values())]
    absent = [one["name"] for one in classes if not sum(one["objects"].values())]
    head = ["", *Side, "total"]
    lines = table(
        [
            head,
            *([what, *_sides(document[what])] for what in ("images", "backgrounds", "objects", "media")),
            ["% of images", *(f"{document['shares'][side]:.1f}" for side in Side), ""],
        ],
        right=set(range(1, 5)),
    )
    headed = [*Side, "total", "in images"]
    right = set(range(1, 6))
    lines += ["", *table([["objects of class", *headed], *(_tally(f"{one['id']:>2} {one['name']}", one) for one in present)], right=right)]
    lines += ["", *table([["objects in mode", *headed], *(_tally(mode, modes[mode]) for mode in modes)], right=right), ""]
    lines += _filled(f"{len(absent)} classes without any instance: ", absent)
    excluded = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in document["excluded"].items()]
    lines += _filled("Left out: ", excluded)
    lines += _filled("Ids that no class has: ", [f"{id_} ({count:,} annotations)" for id_, count in document["unknown_classes"].items()])
    return lines


def _grown(document: dict[str, Any]) -> list[str]:
    grown = document["growth"]
    if grown is None:
        return ["There is no dataset before it."]
    return [f"Since {grown['since']}: {grown['new']:,} new, {grown['changed']:,} changed, {grown['gone']:,} gone."]


def _findings(head: str, findings: Sequence[Mapping[str, str]]) -> list[str]:
    return (
        [head, *(line for one in findings for line in _filled("  ", [f"{one['code']}: {one['what']}. {one['remedy']}."]))]
        if findings
        else []
    )


def _tally(name: str, tally: Mapping[str, Any]) -> list[str]:
    return [name, *_sides(tally["objects"]), f"{sum(tally['images'].values()):,}"]


def _sides(numbers: Mapping[str, int]) -> list[str]:
    return [*(f"{numbers[side]:,}" for side in Side), f"{sum(numbers.values()):,}"]


def _filled(what: str, things: Iterable[str]) -> list[str]:
    text = ", ".join(things)
    return textwrap.wrap(what + text, _WIDTH, subsequent_indent="    ", break_long_words=False) if text else []
