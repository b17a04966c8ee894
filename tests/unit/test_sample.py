"""A sample of a dataset: small, the same each time, with objects on every side."""

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.counts import count
from azaion_daemon.dataset.entries import Entry
from azaion_daemon.dataset.plan import DatasetPlan
from azaion_daemon.dataset.sample import SIZES, take_sample
from azaion_daemon.dataset.split import Side
from azaion_daemon.store.layout import Home
from tests.unit.builders import CLASSES, row

NAMES = Classes(tuple(f"c{number}" for number in range(80)), CLASSES)


def plan_of(images: dict[Side, int], *, with_objects: int) -> DatasetPlan:
    """So many images of each side, of which every n-th has an object."""
    entries = tuple(
        Entry(row(Home.VALIDATED, name=f"{side}-{number:04}"), f"media:{number}", side, (1,) if number % with_objects == 0 else ())
        for side, total in images.items()
        for number in range(total)
    )
    return DatasetPlan(entries, {}, {"media:1": Side.TRAIN}, count(entries, (), NAMES))


def test_it_is_small_and_every_side_has_objects_however_few_there_are() -> None:
    sample = take_sample(plan_of({Side.TRAIN: 700, Side.VALID: 200, Side.TEST: 100}, with_objects=50), NAMES)
    assert sample.counts.images == SIZES
    assert sample.counts.objects == {Side.TRAIN: 14, Side.VALID: 4, Side.TEST: 2}
    assert [entry.annotation.name for entry in sample.entries] == sorted(entry.annotation.name for entry in sample.entries)
    assert not sample.new_sides


def test_it_is_the_same_for_the_same_annotations_and_no_more_than_there_is() -> None:
    plan = plan_of({Side.TRAIN: 300, Side.VALID: 9, Side.TEST: 5}, with_objects=1)
    sample = take_sample(plan, NAMES)
    assert sample == take_sample(plan, NAMES)
    assert sample.counts.images == {Side.TRAIN: 64, Side.VALID: 9, Side.TEST: 5}
    train = [entry.annotation.name for entry in sample.entries if entry.side is Side.TRAIN]
    assert train != [f"train-{number:04}" for number in range(64)]  # by hash: neighbours of one video would say little
