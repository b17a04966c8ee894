"""Tree and ledger for operators: taking over, and comparing the two, in the daemon when one runs."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

from azaion_daemon.errors import OperatorError
from azaion_daemon.index.build import NAMED, IndexReport
from azaion_daemon.index.check import Checker
from azaion_daemon.index.findings import CheckReport, Difference, Finding
from azaion_daemon.index.rebuild import NOT_RESTORED, RebuildReport
from azaion_daemon.index.takeover import InitReport, known_classes
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.ingest.writer import Writer
from azaion_daemon.ops.requests import ask
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import lock_holder
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.root import lock_root, open_root

_WAIT_S = 3600.0
_WAIT_DEEP_S = 24 * 3600.0
"""All images are read."""


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
        "annotations": {home.value: count for home, count in report.annotations.items()},
        "pending": report.pending,
        "flagged": dict(report.flagged),
        "moved_home": report.moved_home,
        "seconds": report.seconds,
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


def rebuild_document(report: RebuildReport) -> dict[str, Any]:
    """What a new ledger holds, for programs."""
    return {
        "index": index_document(report.index),
        "offset": report.offset,
        "media": report.media,
        "media_lost": report.index.media_lost,
        "models": report.models,
        "current": report.current,
        "releases": report.releases,
        "trained_on": report.trained_on,
        "changed_since": report.changed_since,
        "contradictions": report.contradictions[:NAMED],
        "unreadable": report.unreadable[:NAMED],
        "old_ledger": report.old_ledger,
        "not_restored": list(NOT_RESTORED),
    }


def render_rebuild(report: RebuildReport, settings: Settings) -> str:
    """What a new ledger holds, for people."""
    lines = render_index(report.index)
    lines.append(f"Restored: the sides of {report.media:,} media, {report.models} models, {report.releases} releases.")
    lines += _listed(report.contradictions, "sides contradict an earlier dataset, which counts: a manifest is damaged or was edited")
    lines += _listed(report.unreadable, "records cannot be read")
    if report.trained_on is None:
        lines.append("No dataset of a model is left: everything counts as new, and the next training may be due at once.")
    else:
        lines.append(f"Last trained on: {report.trained_on}, and {report.changed_since:,} annotations count as changed since.")
    if report.index.media_lost:
        lines.append(f"The media of {report.index.media_lost:,} annotations is lost: what has no side of its own goes to train.")
    lines += [f"Not restored: {what}." for what in NOT_RESTORED]
    if report.old_ledger is not None:
        lines.append(f"The ledger from before is {report.old_ledger}.")
    lines.append(f"The stream {settings.stream.name} will be read from offset {report.offset} on.")
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


def check(settings: Settings, layout: Layout, *, deep: bool, repair: bool) -> dict[str, Any]:
    """Compare tree and ledger: in the daemon when one runs, else here.

    Raises:
        OperatorError: The root cannot be used, is in use by another command, or the daemon did not answer.
        StorageError: The disk failed or is full.
    """
    open_root(layout)
    if lock_holder(layout.lock) is None:
        with lock_root(layout):
            return asyncio.run(_check_alone(settings, layout, deep=deep, repair=repair))
    answer = ask(layout, "index_check", {"deep": deep, "repair": repair}, wait_s=_WAIT_DEEP_S if deep else _WAIT_S)
    if answer is None:
        raise OperatorError("the daemon has just ended; ask again")
    if not answer["ok"]:
        raise OperatorError(answer["error"])
    report: dict[str, Any] = answer["report"]
    return report


async def check_beside(
    pipeline: Pipeline, settings: Settings, layout: Layout, ledger: LedgerThread, *, deep: bool, repair: bool
) -> dict[str, Any]:
    """Compare tree and ledger while messages are taken."""
    with _checker(settings, layout, ledger, pipeline.at_rest, deep=deep, repair=repair, offline=False) as (checker, _):
        return check_document(await checker.run(), layout)


async def _check_alone(settings: Settings, layout: Layout, *, deep: bool, repair: bool) -> dict[str, Any]:
    ledger = LedgerThread(Ledger(layout.ledger))
    try:
        with _checker(settings, layout, ledger, nullcontext, deep=deep, repair=repair, offline=True) as (checker, writer):
            if repair:
                await ledger(writer.recover)
            return check_document(await checker.run(), layout)
    finally:
        ledger.close()


@contextmanager
def _checker(
    settings: Settings,
    layout: Layout,
    ledger: LedgerThread,
    rest: Callable[[], AbstractAsyncContextManager[None]],
    *,
    deep: bool,
    repair: bool,
    offline: bool,
) -> Iterator[tuple[Checker, Writer]]:
    writer = Writer(settings.stream.name, ledger.ledger, layout)
    try:
        yield (
            Checker(
                layout,
                ledger,
                writer,
                rest,
                extensions=frozenset(settings.ingest.image_extensions),
                known_classes=known_classes(layout),
                deep=deep,
                repair=repair,
                offline=offline,
            ),
            writer,
        )
    finally:
        writer.close()


def check_document(report: CheckReport, layout: Layout) -> dict[str, Any]:
    """What a check has found, for programs and for the way from the daemon."""
    return {
        "annotations": report.annotations,
        "files": report.files,
        "seconds": report.seconds,
        "unplaced": report.unplaced,
        "staged": {"count": len(report.staged), "first": report.staged[:NAMED]},
        "differences": {finding.value: report.counts[finding] for finding in Finding if report.counts[finding]},
        "repaired": report.repaired,
        "left": report.left,
        "first": [_difference(one, layout) for one in report.first],
        "left_alone": {"count": len(report.left_alone), "first": [asdict(one) for one in report.left_alone[:NAMED]]},
    }


def _difference(difference: Difference, layout: Layout) -> dict[str, str]:
    file = difference.file
    return {
        "kind": difference.finding.value,
        "annotation": file.name,
        "home": file.home.value,
        "file": str(file.path(layout).relative_to(layout.root)),
        "repair": difference.finding.remedy,
    }


def render_check(document: dict[str, Any]) -> str:
    """What a check has found, for people."""
    lines = [f"{one['kind']:<40} {one['file']}: {one['repair']}" for one in document["first"]]
    total = sum(document["differences"].values())
    if total > len(lines):
        lines.append(f"and {total - len(lines):,} more")
    if document["staged"]["count"]:
        lines.append(f"{document['staged']['count']:,} staged images that no row names: the next start removes them")
    if document["unplaced"]:
        lines.append(f"{document['unplaced']:,} annotations that a crash left between ledger and tree: the next start places them")
    if document["left_alone"]["count"]:
        lines.append(f"{document['left_alone']['count']:,} files that are not annotations': left alone")
    compared = f"{document['annotations']:,} annotations and {document['files']:,} files compared in {document['seconds']:.1f} s"
    outcome = f"differences: {total:,}, repaired: {document['repaired']:,}" if total else "no difference"
    return "\n".join([*lines, f"{compared}; {outcome}"])
