"""What the models that are left were trained on, for the trigger: else a new ledger would have everything trained on at once."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from azaion_daemon.dataset.manifest import Content, contents_of_dataset, differing
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Job, Model
from azaion_daemon.training.states import JobState

_RESTORED = "restored by index rebuild"


@dataclass(frozen=True, slots=True)
class Judged:
    """The newest dataset that a model was trained on, and what it saw."""

    model: Model
    dataset: str
    position: int
    contents: dict[str, Content]
    excluded: Collection[str]
    """Names of what was looked at and left out."""


def newest_judged(layout: Layout, models: Sequence[Model]) -> tuple[Judged | None, list[str]]:
    """What is known of it, None where no dataset of any model is left; and what cannot be read."""
    by_id = {model.dataset_id: model for model in sorted(models, key=lambda model: model.created) if model.dataset_id is not None}
    found: list[tuple[int, float, Path, Model]] = []
    unreadable: list[str] = []
    for file in sorted(layout.datasets.glob("[!.]*/dataset.json")):
        try:
            document = json.loads(file.read_bytes())
            if (model := by_id.get(document.get("id"))) is not None and document["position"] is not None:
                found.append((int(document["position"]), file.stat().st_mtime, file.parent, model))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            unreadable.append(f"{file.parent.name}/dataset.json: {type(error).__name__}: {error}")
    for position, _, path, model in sorted(found, key=lambda one: one[:3], reverse=True):
        try:
            return Judged(model, path.name, position, contents_of_dataset(path), _excluded(path)), unreadable
        except (OSError, ValueError, KeyError, TypeError) as error:  # an older one makes more count as changed, never less
            unreadable.append(f"{path.name}, as what was trained on: {type(error).__name__}: {error}")
    return None, unreadable


def restore_judged(ledger: Ledger, judged: Judged, last: int) -> int:
    """Have the trigger count from that dataset on; how many annotations differ from it. `last` is the position that all rows are as of.

    An image that was replaced since is not noticed where its digest is not known; a label is.
    """
    rows = {row.name: Content.of(row) for row in ledger.in_home(Home.VALIDATED)}
    changed = differing(judged.contents, rows) - set(judged.excluded)
    # What differs counts as changed at the last position, and so the mark lies before it: the dataset may be as of a later message than
    # the one that is gone on from, and no change must ever be taken for one that it has.
    mark = max(min(judged.position, last - 1), 0)
    ledger.date_training(changed, max(last, 1))
    model = judged.model
    ledger.put_job(
        Job(
            id=model.job or judged.dataset,
            state=JobState.RELEASED,
            reason=_RESTORED,
            created=model.created,
            changed=model.created,
            why=f"{_RESTORED}: model {model.sha256[:12]} was trained on {judged.dataset}",
            dataset=judged.dataset,
            position=mark,
            judged=True,
            audit=ledger.due.mark().audit,
            ended=model.created,
        ),
        actor="operator",
    )
    return len(changed)


def _excluded(dataset: Path) -> frozenset[str]:
    with (dataset / "excluded.jsonl").open("rb") as lines:
        return frozenset(json.loads(line)["name"] for line in lines)
