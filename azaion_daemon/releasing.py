"""What a release is of: what its manifest says of the model, and an older model that an operator wants published again."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from azaion_daemon import __version__
from azaion_daemon.errors import OperatorError, TrainingError
from azaion_daemon.health import holding
from azaion_daemon.ingest.space import Space
from azaion_daemon.logs import get_logger
from azaion_daemon.publish.manifest import ReleaseFacts
from azaion_daemon.publish.rollback import published_release
from azaion_daemon.store.kept import check_kept, put_in_place
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Model
from azaion_daemon.training.jobs import JobDirectory, JobResult
from azaion_daemon.training.outcomes import Phase

log = get_logger(__name__)


def release_facts(model: Model, layout: Layout) -> ReleaseFacts:
    """What is known of a model: from the ledger, the result that is kept beside it, and its job as long as that is there. Blocking."""
    result = _result(Path(model.path).parent)
    metrics = {name: float(value) for name, value in model.metrics.items() if isinstance(value, int | float) and math.isfinite(value)}
    shapes = {} if model.job is None else _shapes(layout.jobs / model.job)
    return ReleaseFacts(
        job=model.job,
        dataset_id=model.dataset_id,
        metrics=metrics,
        versions={"azaion-daemon": __version__, **({} if result is None else result.versions)},
        input_shape=_shape(shapes.get("input")),
        output_shape=_shape(shapes.get("output")),
    )


def _result(directory: Path) -> JobResult | None:
    try:
        return JobDirectory(directory).read_result()
    except (OSError, TrainingError):  # a manifest that says less is better than no release
        return None


def _shapes(job: Path) -> dict[str, JsonValue]:
    try:
        exported = JobDirectory(job).marker(Phase.EXPORT)
    except (OSError, TrainingError):
        return {}
    return {} if exported is None else exported.details


def _shape(value: JsonValue) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    axes = tuple(axis for axis in value if isinstance(axis, int) and axis > 0)
    return axes if axes and len(axes) == len(value) else None


class RollBack:
    """Has an older release's model published again, under a new serial.

    It becomes the current model, so that the next one is compared with what consumers have. Nothing brings back what it takes the place of
    but an operator.
    """

    def __init__(
        self, layout: Layout, ledger: LedgerThread, space: Space, order: Callable[[str], Awaitable[None]], installing: asyncio.Lock
    ) -> None:
        """`installing` is held by whoever replaces the current model's files."""
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._space = space
        self._order = order
        self._installing = installing

    async def __call__(self, serial: int, reason: str) -> dict[str, Any]:
        """Roll back to the model of a release; what was ordered. Cut short by a crash, it is to be asked for again.

        Raises:
            OperatorError: There is no such release, or its file is not kept: nothing was changed.
            StorageError: The disk failed; or it is full, and nobody waits any longer.
        """
        async with holding(self._installing, "another model, which is being installed"):
            releases = await self._call(self._ledger.releases)
            models = {model.sha256: model for model in await self._call(self._ledger.models)}
            again = published_release(releases, serial)
            model = models.get(again.model_sha256)
            if model is None:
                raise OperatorError(
                    f"the model of release {serial} ({again.model_sha256[:12]}) is not in the ledger any more: name another"
                )
            kept = Path(model.path)
            fetch = f"mkdir -p {kept.parent} && azaion-daemon model fetch {serial} --output {kept}"
            await asyncio.to_thread(check_kept, model, way_out=f"Fetch it back, then roll back: {fetch}")
            await self._space.repeat(lambda: asyncio.to_thread(put_in_place, kept, self._layout))
            release = await self._space.repeat(lambda: self._call(self._ledger.serials.roll_back, again, reason))
            log.warning("release.rolled_back", serial=release.serial, to=serial, model=model.sha256, why=reason)
            await self._space.repeat(lambda: self._order(model.sha256))
        waited = [one.serial for one in releases if one.state == "waiting" and one.serial != release.serial]
        return {"serial": release.serial, "to": serial, "model": model.sha256, "superseded": waited}
