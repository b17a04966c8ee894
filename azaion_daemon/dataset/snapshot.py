"""A snapshot of the validated annotations: a dataset that can be named and repeated, and that nothing changes afterwards.

It is formed under a temporary name, synced, and renamed when it is complete: what has a name is whole, whatever the moment of a crash. Its
files are hard links: no file of the tree is ever changed in place, so later edits and deletes do not reach into it. Its directories stay
writable, since the trainer puts its label cache there.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from azaion_daemon.dataset import documents
from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.counts import Counts
from azaion_daemon.dataset.disk import Disk, measure_disk
from azaion_daemon.dataset.entries import Entry, Exclusion, Reason
from azaion_daemon.dataset.linking import ImageSource, link_or_copy
from azaion_daemon.dataset.plan import DatasetPlan
from azaion_daemon.dataset.readiness import Code, Finding, judge
from azaion_daemon.dataset.split import Side
from azaion_daemon.errors import DatasetError, DatasetPlaceError
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.store.durable import FilesystemSync, fsync_directory, storage, write_new
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import Annotation

_FORMING = ".forming-"
_READ_ONLY = 0o440


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A complete dataset: what the dataset stage hands on."""

    id: str
    """The SHA-256 of its manifest and classes: the same content has the same id on any machine."""
    path: Path
    position: int | None
    """The stream position that it shows."""
    counts: Counts
    class_names: tuple[str, ...]
    remarks: tuple[Finding, ...]
    """What is worth a word, though it can be trained on."""

    @property
    def name(self) -> str:
        """Its directory's name."""
        return self.path.name

    @property
    def data_yaml(self) -> Path:
        """The file that a trainer is given."""
        return self.path / "data.yaml"


def remove_debris(layout: Layout) -> list[str]:
    """Remove datasets that a crash left unfinished; their names."""
    debris = sorted(layout.datasets.glob(_FORMING + "*"))
    with storage("removing unfinished datasets"):
        for directory in debris:
            shutil.rmtree(directory)
    return [directory.name.removeprefix(_FORMING) for directory in debris]


def form_snapshot(
    plan: DatasetPlan,
    layout: Layout,
    classes: Classes,
    settings: DatasetSettings,
    *,
    position: int | None,
    now: datetime,
    record_sides: Callable[[Mapping[str, Side]], None],
    image_of: Callable[[Annotation], ImageSource] | None = None,
    training_bytes: int = 0,
    proceed: Callable[[], None] = lambda: None,
    into: Path | None = None,
) -> Snapshot:
    """Form a dataset on disk. The tree must not change meanwhile. Blocks, for seconds with many annotations.

    Args:
        plan: What it is to hold.
        layout: Where everything lies.
        classes: The classes that the plan was made with.
        settings: Those that the plan was made with.
        position: The stream position that the plan shows.
        now: The date that it is named after.
        record_sides: Makes the sides of new media durable; called before the dataset gets its name.
        image_of: Which file stands for an annotation's image; by default that in the tree.
        training_bytes: How much disk the training will need beside the dataset.
        proceed: Called before each annotation; whatever it raises gives the dataset up.
        into: The directory that it becomes, in the place of one that is there; by default a new one among the datasets, named after `now`.

    Raises:
        DatasetError: It could not be trained on, and every problem is named; or a file may not be linked.
        StorageError: The disk failed or is full.
        Exception: What `proceed` raises.

    Whatever is raised, nothing is left.
    """
    disk = measure_disk(layout, plan.entries, settings, training_bytes)
    remarks_or_refusal(plan, classes, settings, disk)
    final = into or _free_name(layout.datasets, f"azaion-{now:%Y-%m-%d}")
    forming = final.with_name(_FORMING + final.name)
    try:
        with storage("forming a dataset"):
            if forming.exists():  # left by one that failed, on a disk that did not let it be removed
                shutil.rmtree(forming)
            if final.exists():
                shutil.rmtree(final)
            _make_directories(forming)
            sync = FilesystemSync(forming)
            try:
                lines, missing = _fill(forming, plan.entries, layout, image_of, proceed)
                kept = plan.without(missing, classes)
                remarks = remarks_or_refusal(kept, classes, settings, None)
                manifest = b"".join(lines)
                snapshot = Snapshot(documents.dataset_id(manifest, classes), final, position, kept.counts, classes.names, remarks)
                _describe(forming, snapshot, manifest, kept, classes, settings, now)
                proceed()
                sync()
            finally:
                sync.close()
            record_sides(plan.new_sides)
            forming.rename(final)
            fsync_directory(final.parent)
    except BaseException:
        shutil.rmtree(forming, ignore_errors=True)
        raise
    return snapshot


def remarks_or_refusal(plan: DatasetPlan, classes: Classes, settings: DatasetSettings, disk: Disk | None) -> tuple[Finding, ...]:
    """What is worth a word of a dataset.

    Raises:
        DatasetError: It could not be trained on, and every problem is named.
    """
    problems, remarks = judge(plan.counts, classes, settings, disk)
    if problems:
        kind = DatasetPlaceError if all(problem.code is Code.TOO_LITTLE_DISK for problem in problems) else DatasetError
        raise kind("the annotations cannot be trained on:\n" + "\n".join(f"  {problem}" for problem in problems))
    return remarks


def _free_name(datasets: Path, name: str) -> Path:
    number = 1
    while (path := datasets / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def _make_directories(forming: Path) -> None:
    for side in Side:
        (forming / side / "images").mkdir(parents=True)
        (forming / side / "labels").mkdir()


def _fill(
    forming: Path,
    entries: Iterable[Entry],
    layout: Layout,
    image_of: Callable[[Annotation], ImageSource] | None,
    proceed: Callable[[], None],
) -> tuple[list[bytes], dict[str, Exclusion]]:
    """Put every annotation's files in their place; the lines of the manifest, and what the tree lacks."""
    images, labels = str(layout.images(Home.VALIDATED)), str(layout.labels(Home.VALIDATED))
    places = {side: str(forming / side) for side in Side}
    lines: list[bytes] = []
    missing: dict[str, Exclusion] = {}
    for entry in entries:
        proceed()
        row, place = entry.annotation, places[entry.side]
        if image_of is None:
            source, suffix, resized = f"{images}/{row.name}.{row.extension}", f".{row.extension}", None
        else:
            path, resized = image_of(row)
            source, suffix = str(path), path.suffix
        label, image = f"{place}/labels/{row.name}.txt", f"{place}/images/{row.name}{suffix}"
        lacking = "label"
        try:
            link_or_copy(f"{labels}/{row.name}.txt", label)
            lacking = "image"
            link_or_copy(source, image)
        except FileNotFoundError:
            Path(label).unlink(missing_ok=True)
            missing[row.name] = Exclusion(Reason.NOT_IN_TREE, f"the tree lacks its {lacking}")
        else:
            lines.append(documents.manifest_line(entry, suffix, resized))
    return lines, missing


def _describe(
    forming: Path, snapshot: Snapshot, manifest: bytes, kept: DatasetPlan, classes: Classes, settings: DatasetSettings, now: datetime
) -> None:
    rest = documents.description(
        snapshot.id,
        snapshot.name,
        kept.counts,
        classes,
        settings,
        position=snapshot.position,
        created=now,
        remarks=snapshot.remarks,
    )
    for name, content in (
        ("manifest.jsonl", manifest),
        ("excluded.jsonl", documents.exclusions(kept.excluded)),
        ("data.yaml", documents.data_yaml(snapshot.path, classes)),
        ("dataset.json", rest),
    ):
        write_new(forming / name, content, mode=_READ_ONLY)
