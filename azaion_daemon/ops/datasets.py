"""Datasets for operators: which there are and when they go, what one holds, and what one would hold now.

The documents are for programs too: their keys stay. Counts are those of `dataset.counts`, as they stand in dataset.json.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from azaion_daemon.dataset.classes import load_classes
from azaion_daemon.dataset.counts import counts_document
from azaion_daemon.dataset.disk import measure_disk, training_bytes
from azaion_daemon.dataset.manifest import contents_of_dataset, contents_of_entries, growth
from azaion_daemon.dataset.plan import plan_dataset
from azaion_daemon.dataset.readiness import judge
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import OperatorError
from azaion_daemon.ops.reading import reading, unreadable
from azaion_daemon.retention.facts import living_workers, look_at_disk
from azaion_daemon.retention.removal import bytes_of_its_own
from azaion_daemon.retention.rules import DatasetOnDisk, Facts, Fate, decide
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import replace_durably
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.root import identify_root


def listed(settings: Settings, layout: Layout, *, now: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Every dataset, the newest first, with what refers to it and when it goes; and what cannot be read.

    Raises:
        RootError: The root or its ledger cannot be read.
    """
    identify_root(layout)
    try:
        on_disk = look_at_disk(layout)
        with reading(layout) as ledger:
            facts = Facts(
                on_disk.datasets,
                on_disk.job_directories,
                ledger.jobs(),
                ledger.models(),
                ledger.releases(),
                living_workers(layout, on_disk.job_directories),
                on_disk.model_directories,
            )
        verdicts = decide(facts, settings.retention, now=now).datasets
        return [
            {
                **{
                    key: _described(layout.datasets / one.name).get(key)
                    for key in ("name", "id", "created", "position", "images", "objects")
                },
                "bytes_of_its_own": bytes_of_its_own(layout.datasets / one.name),
                "referred_by": list(one.referred_by),
                "goes": one.fate is Fate.GOES,
                "goes_when": _goes_when(one.fate, one.referred_by, one.why),
            }
            for one in verdicts
        ], list(on_disk.unreadable)
    except OSError as error:
        raise unreadable(error) from error


def _goes_when(fate: Fate, referred_by: tuple[str, ...], why: str) -> str:
    if referred_by:
        return "nothing refers to it"
    return "at the next pass" if fate is Fate.GOES else why.removeprefix("until ")


def shown(layout: Layout, wanted: str | None) -> dict[str, Any]:
    """What a dataset holds: its dataset.json, where it is, and how it has grown since the one before.

    Raises:
        OperatorError: There is no such dataset, or it cannot be read.
    """
    identify_root(layout)
    try:
        datasets = sorted(look_at_disk(layout).datasets, key=lambda one: one.recency)
        found = _find(datasets, wanted)
        path = layout.datasets / found.name
        before = [one.name for one in datasets if one.recency < found.recency][-1:]
        document = _described(path)
        if "classes" not in document:
            raise OperatorError(f"{found.name} was formed by an earlier version, which did not count what it holds")
        return {
            **document,
            "path": str(path),
            "growth": _growth(layout, before, lambda: contents_of_dataset(path)),
        }
    except OSError as error:
        raise unreadable(error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OperatorError(f"the manifests of {layout.datasets} cannot be read: {type(error).__name__}: {error}") from error


def _find(datasets: list[DatasetOnDisk], wanted: str | None) -> DatasetOnDisk:
    """By name, or by the beginning of the id; of several with the same content the newest. The newest of all by default."""
    if not datasets:
        raise OperatorError("there is no dataset yet; what one would hold now is shown by: azaion-daemon dataset build --dry-run")
    if wanted is None:
        return datasets[-1]
    found = [one for one in datasets if one.name == wanted] or [one for one in datasets if wanted and one.id.startswith(wanted)]
    if len({one.id for one in found}) != 1:
        which = ", ".join(one.name for one in found)
        what = f"{wanted} stands for several datasets: {which}" if found else f"there is no dataset {wanted}"
        raise OperatorError(f"{what}. See: azaion-daemon dataset list")
    return found[-1]


def planned(settings: Settings, layout: Layout) -> dict[str, Any]:
    """What a dataset would hold if it were formed now. Reads the ledger only, beside a running daemon too.

    Raises:
        OperatorError: The root, its ledger or classes.json cannot be read.
    """
    identify_root(layout)
    classes = load_classes(layout.classes)
    with reading(layout) as ledger:
        newest = ledger.position(settings.stream.name)
        sides = {media: Side(side) for media, side in ledger.sides().items()}
        plan = plan_dataset(ledger.in_home(Home.VALIDATED), sides, classes, settings.dataset, key=settings.stream.name)
        undigested = ledger.undigested_count(Home.VALIDATED)
    try:
        datasets = sorted(look_at_disk(layout).datasets, key=lambda one: one.recency)
        grown = _growth(layout, [one.name for one in datasets][-1:], lambda: contents_of_entries(plan.entries))
    except OSError as error:
        raise unreadable(error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OperatorError(f"the manifest of {datasets[-1].name} cannot be read: {type(error).__name__}: {error}") from error
    disk = measure_disk(layout, plan.entries, settings.dataset, training_bytes(layout.models / settings.training.model))
    problems, remarks = judge(plan.counts, classes, settings.dataset, disk)
    return {
        "position": None if newest is None else newest.position,
        **counts_document(plan.counts, classes),
        "new_media": len(plan.new_sides),
        "undigested": undigested,
        "problems": [problem._asdict() for problem in problems],
        "remarks": [remark._asdict() for remark in remarks],
        "growth": grown,
    }


def _growth(layout: Layout, before: list[str], after: Callable[[], Any]) -> dict[str, Any] | None:
    """`before` is a name, or none when there is no dataset to compare with."""
    return asdict(growth(before[0], contents_of_dataset(layout.datasets / before[0]), after())) if before else None


def _described(dataset: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((dataset / "dataset.json").read_bytes())
    return document


def plotted(document: dict[str, Any], layout: Layout, picture: Path, *, now: float) -> None:
    """Draw a dataset that was shown into a PNG file.

    Raises:
        OperatorError: Matplotlib is missing, the dataset cannot be drawn, or the file cannot be written.
    """
    try:
        from azaion_daemon.ops.dataset_plot import draw, gather  # noqa: PLC0415 - heavy, and not always installed
    except ModuleNotFoundError as error:
        raise OperatorError(f"{error.name} is not installed; pictures need: pip install 'azaion-daemon[plot]'") from error
    try:
        with reading(layout) as ledger:
            content = gather(document, ledger, now=now)
    except OSError as error:
        raise unreadable(error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OperatorError(f"{document['path']} is damaged: {type(error).__name__}: {error}") from error
    try:
        png = draw(content)
    except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:  # of figures that a picture cannot have
        raise OperatorError(
            f"{document['name']} cannot be drawn: {type(error).__name__}: {error}. What it holds is told without --plot."
        ) from error
    try:
        replace_durably(picture, png, mode=0o644)
    except OSError as error:
        raise OperatorError(f"{picture} cannot be written: {error.strerror}") from error
