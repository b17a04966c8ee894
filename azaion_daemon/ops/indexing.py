"""Tree and ledger for operators: what `init` found."""

from dataclasses import asdict
from typing import Any

from azaion_daemon.index.build import NAMED, IndexReport
from azaion_daemon.index.takeover import InitReport
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout


def init_document(report: InitReport) -> dict[str, Any]:
    """What `init` made and found, for programs."""
    return {
        "id": report.root.id,
        "index": None if report.index is None else index_document(report.index),
        "offset": report.offset,
        "model": None if report.model is None else report.model.sha256,
    }


def index_document(report: IndexReport) -> dict[str, Any]:
    """What was found in a tree, for programs. Of the files that are named one by one there are only the first."""
    return {
        **asdict(report),
        "left_alone": {"count": len(report.left_alone), "first": [asdict(one) for one in report.left_alone[:NAMED]]},
        "moved_aside": {"count": len(report.moved_aside), "first": report.moved_aside[:NAMED]},
    }


def render_init(report: InitReport, settings: Settings, layout: Layout) -> str:
    """What `init` made and found, for people."""
    lines = [f"{layout.root} is ready (id {report.root.id})."]
    if report.index is not None and (any(report.index.annotations.values()) or report.index.left_alone):
        lines += render_index(report.index)
        if report.offset is None:
            lines.append(
                f"No offset.yaml: the stream {settings.stream.name} will be read from stream.start_from: {settings.stream.start_from}."
            )
    if report.offset is not None:
        lines.append(f"The stream {settings.stream.name} will be read from offset {report.offset} on; that message is taken again.")
    if report.model is not None:
        lines.append(f"{layout.onnx} is the current model ({report.model.sha256[:12]}); how good it is is not known.")
    if not layout.classes.exists():
        lines.append(f"Put the platform's class list into {layout.classes} before the daemon is run.")
    return "\n".join(lines)


def render_index(report: IndexReport) -> list[str]:
    """What was found in a tree, for people."""
    counts = ", ".join(f"{count:,} {home}" for home, count in report.annotations.items())
    lines = [f"Annotations indexed in {report.seconds:.1f} s: {counts}; {report.pending:,} revisions wait for validation."]
    if report.flagged:
        lines.append("Kept out of datasets: " + ", ".join(f"{count:,} whose {what}" for what, count in report.flagged.items()) + ".")
    if report.moved_home:
        lines.append(f"{report.moved_home:,} images lay in another home than their annotation, and were moved to it.")
    lines += _listed(report.moved_aside, "files had no place, and were moved aside; nothing was deleted")
    lines += _listed([f"{one.path} {one.why}" for one in report.left_alone], "files are not annotations', and were left alone")
    return lines


def _listed(things: list[str], what: str) -> list[str]:
    if not things:
        return []
    more = [f"  and {len(things) - NAMED:,} more"] if len(things) > NAMED else []
    return [f"{len(things):,} {what}:", *(f"  {thing}" for thing in things[:NAMED]), *more]
