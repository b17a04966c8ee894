"""What a finished training is compared with, and what becomes of it.

The daemon knows what each model has seen, so it says what to evaluate on, before a worker is started. What a model has seen is read from
the manifest of the dataset that it was trained on, and of those that its predecessors were fine-tuned from. Where a dataset is gone the
ledger tells as much: a media's side never changes, so what stood on the test side by then was never trained on, and what came later
neither. Of a model that was taken over only the age is known: whatever is older than its file counts as seen.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from azaion_daemon.dataset.manifest import read_manifest
from azaion_daemon.dataset.split import Side
from azaion_daemon.dataset.units import MEDIA
from azaion_daemon.errors import TrainingError
from azaion_daemon.logs import get_logger
from azaion_daemon.retention.facts import look_at_disk
from azaion_daemon.settings import Settings
from azaion_daemon.store.digests import file_digest
from azaion_daemon.store.durable import is_locked, storage
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import UNKNOWN_DIGEST, Job, Model
from azaion_daemon.training.comparison import SEEN_BY_CANDIDATE, SEEN_BY_RIVAL, Entry, Selection, TestImages, digest_of
from azaion_daemon.training.evaluation import Comparison, Evaluated, Rival
from azaion_daemon.training.gate import Verdict, judge
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec
from azaion_daemon.training.lineage import Lineage, Step, TakenOver, TrainedOn
from azaion_daemon.training.outcomes import Phase

log = get_logger(__name__)

_UNLISTED = "have names that no list can hold"


class _Known(NamedTuple):
    """What the ledger knows of one step of a lineage, beside manifests."""

    younger: set[str]
    on_test_side: set[str]

    def seen(self, entry: Entry) -> bool:
        """Whether a model may have been trained on it."""
        return entry.name not in self.younger and entry.unit not in self.on_test_side


class Judge:
    """Says what a job's model is to be compared with, and decides about it."""

    def __init__(self, settings: Settings, layout: Layout, ledger: LedgerThread, *, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._clock = clock

    def reconfigure(self, settings: Settings) -> None:
        """Judge by other settings from now on."""
        self._settings = settings

    async def prepare(self, directory: JobDirectory, spec: JobSpec) -> None:
        """Say what to evaluate on, before a worker is started. What was evaluated against another current model is evaluated again.

        While a worker has the job nothing is changed: what it evaluates against the wrong model has no verdict, and then is the time.

        Raises:
            TrainingError: The job's dataset is gone or cannot be read.
            StorageError: The disk failed or is full; preparing again goes on.
        """
        if spec.trial:
            return
        current = await self._call(self._ledger.current_model)
        sha256 = None if current is None else current.sha256
        if await asyncio.to_thread(_is_prepared, directory, sha256):
            return
        comparison = await self._compare(spec, current)
        await asyncio.to_thread(_prepare, directory, comparison)
        log.info(
            "gate.prepared",
            job=spec.id,
            rival=sha256,
            images=len(comparison.images),
            own=len(comparison.own),
            left_out=comparison.left_out,
        )

    async def verdict(self, directory: JobDirectory, result: JobResult) -> Verdict | None:
        """Decide about a model; None when it was compared with what is not the current model any more: prepare and run again.

        Raises:
            TrainingError: The result says nothing of what the model reaches.
        """
        if result.metrics is None:
            raise TrainingError(f"the result in {directory.path} has no figures to judge by; train again")
        current = await self._call(self._ledger.current_model)
        compared_with = None if result.evaluation is None else result.evaluation.rival
        if compared_with != (None if current is None else current.sha256):
            return None
        return judge(result.metrics, result.evaluation, self._settings.gate)

    async def _compare(self, spec: JobSpec, current: Model | None) -> Comparison:
        most, dataset = self._settings.gate.max_images, spec.data_yaml.parent
        images, unlisted = await asyncio.to_thread(_test_images, dataset)
        own = images.select(most)
        if not own.images:  # one must be shown something; where there is a rival this decides nothing
            own = Selection(tuple(sorted(entry.file for entry in images.entries)), digest_of(images.entries), {})
        chosen, rival = Selection((), digest_of(()), {}), None
        if current is not None:
            rival = Rival(sha256=current.sha256, onnx=await asyncio.to_thread(self._onnx_of, current), job=current.job)
            await self._leave_out_seen(images, spec, current)
            chosen = images.select(most)
        left_out = {**chosen.left_out, **({_UNLISTED: unlisted} if unlisted else {})}
        return Comparison(
            rival=rival,
            images=chosen.images,
            own=own.images,
            digest=chosen.digest,
            own_digest=own.digest,
            left_out=left_out,
            cache=self._layout.evaluations,
            max_class_drop=self._settings.gate.max_class_drop,
        )

    def _onnx_of(self, model: Model) -> Path:
        """Where the current model is kept; should that be gone, it is still in its place."""
        kept = Path(model.path)
        return kept if kept.is_file() else self._layout.onnx

    async def _leave_out_seen(self, images: TestImages, spec: JobSpec, rival: Model) -> None:
        models, jobs = await self._call(self._ledger.models), await self._call(self._ledger.jobs)
        kept = await asyncio.to_thread(lambda: [*_kept_results(self._layout), *_taken_over(self._layout, models)])
        lineage = Lineage([*_results_of(jobs), *kept], models)
        settings = spec.model_dump(mode="json", include={"started_from", "model_sha256"})
        steps = [(step, SEEN_BY_RIVAL) for step in lineage.of_model(rival)]
        steps += [(step, "may have been seen by the model that it was started from") for step in lineage.before(settings)]
        datasets = await asyncio.to_thread(_datasets, self._layout)
        for step, why in dict.fromkeys(steps):
            match step:
                case TrainedOn(dataset_id=id_) if id_ == spec.dataset_id:
                    continue  # its own, which was asked already
                case TrainedOn(dataset_id=id_) if id_ in datasets and await asyncio.to_thread(_leave_out, images, datasets[id_], why):
                    continue
                case _:
                    known = await self._known(images, step)
                    images.seen(lambda entry: known.seen(entry), why)  # noqa: B023, PLW0108 - called at once

    async def _known(self, images: TestImages, step: Step) -> _Known:
        younger = await self._call(self._ledger.younger, [entry.name for entry in images.entries], step.until)
        on_test_side = set() if isinstance(step, TakenOver) else await self._call(self._ledger.on_side, Side.TEST, step.until)
        return _Known(younger, on_test_side)


def _is_prepared(directory: JobDirectory, sha256: str | None) -> bool:
    """Whether the directory says to compare with that model, and nothing in it comes from a comparison with another one."""
    try:
        comparison = directory.read_comparison()
    except TrainingError:  # of another release
        comparison = None
    if comparison is None:
        return False
    if is_locked(directory.lock):
        return True
    if sha256 != (None if comparison.rival is None else comparison.rival.sha256):
        return False
    try:
        marker = directory.marker(Phase.EVALUATE)
        evaluated = None if marker is None else Evaluated.model_validate(marker.details, strict=False)
    except (TrainingError, ValidationError):
        return False
    return evaluated is None or sha256 == (None if evaluated.evaluation is None else evaluated.evaluation.rival)


def _prepare(directory: JobDirectory, comparison: Comparison) -> None:
    """The comparison comes last: until it is there, all of this is done again."""
    with storage("preparing an evaluation"):
        if not is_locked(directory.lock):
            if (result := directory.read_result()) is not None and result.metrics is not None:
                directory.retire_result()
            directory.reopen(Phase.EVALUATE)
        directory.write_comparison(comparison)


def _test_images(dataset: Path) -> tuple[TestImages, int]:
    """The test side of a dataset, less what was trained on under another name; and how many can be named in no list."""
    with _reading(dataset):
        test = [entry for side, entry in _entries(dataset) if side is Side.TEST]
        listed = [entry for entry in test if entry.file.splitlines() == [entry.file]]
        images = TestImages(listed)
        images.seen_in((entry for side, entry in _entries(dataset) if side is not Side.TEST), SEEN_BY_CANDIDATE)
    return images, len(test) - len(listed)


def _leave_out(images: TestImages, dataset: Path, why: str) -> bool:
    """Leave out what a dataset has on its train and valid sides; whether it could be read to its end."""
    try:
        images.seen_in((entry for side, entry in _entries(dataset) if side is not Side.TEST), why)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("gate.dataset_unreadable", dataset=dataset.name, why=f"{type(error).__name__}: {error}")
        return False
    return True


def _entries(dataset: Path) -> Iterator[tuple[Side, Entry]]:
    for line in read_manifest(dataset):
        name, image, resized = line["name"], line["image"], line.get("resized", "")
        known = image if image not in {None, UNKNOWN_DIGEST} else None
        content = f"{known or f'{dataset.name}/{name}'} {line['label']} {resized}"
        media = MEDIA + line["of"] if "of" in line else ""
        yield Side(line["split"]), Entry(name, f"{name}.{line['extension']}", line["media"], media, known, content)


@contextmanager
def _reading(dataset: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"the manifest of {dataset} cannot be read: {type(error).__name__}: {error}. Train again on another dataset."
        ) from error


def _datasets(layout: Layout) -> dict[str, Path]:
    """Where each dataset is, by its id."""
    with storage("looking for datasets"):
        return {one.id: layout.datasets / one.name for one in look_at_disk(layout).datasets}


def _results_of(jobs: list[Job]) -> Iterator[tuple[dict[str, Any], float]]:
    yield from ((job.result, job.changed) for job in jobs if job.result is not None)


def _kept_results(layout: Layout) -> list[tuple[dict[str, Any], float]]:
    """The results of the models that are kept: a ledger that was made anew does not know their jobs."""
    found = []
    for file in layout.models.glob("[!.]*/result.json"):
        try:
            result, time = JobDirectory(file.parent).read_result(), file.stat().st_mtime
        except (TrainingError, OSError):
            continue  # what is not known counts as taken over
        if result is not None:
            found.append((result.model_dump(mode="json"), time))
    return found


def _taken_over(layout: Layout, models: list[Model]) -> Iterator[tuple[dict[str, Any], float]]:
    """The checkpoints beside models that were taken over, as results without a dataset: an operator may have named a copy as the base."""
    for model in models:
        pt = Path(model.path).parent / layout.pt.name
        with suppress(OSError):
            if model.dataset_id is None:
                yield {"pt": {"sha256": file_digest(pt)}}, model.created
