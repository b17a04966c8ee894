"""A small part of a dataset, to try a training on: a few images of each side, the same ones for the same annotations."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.counts import count
from azaion_daemon.dataset.entries import Entry
from azaion_daemon.dataset.plan import DatasetPlan
from azaion_daemon.dataset.split import Side
from azaion_daemon.sections import DatasetSettings

SIZES: Mapping[Side, int] = MappingProxyType({Side.TRAIN: 64, Side.VALID: 16, Side.TEST: 16})
"""How many images at most."""


def take_sample(plan: DatasetPlan, classes: Classes) -> DatasetPlan:
    """Of each side a few images, chosen by hash, those with objects first. No media is given a side by it."""
    entries = tuple(
        sorted(
            (entry for side in Side for entry in sorted((one for one in plan.entries if one.side is side), key=_turn)[: SIZES[side]]),
            key=lambda entry: entry.annotation.name,
        )
    )
    return DatasetPlan(entries, {}, {}, count(entries, (), classes))


def of_a_sample(settings: DatasetSettings) -> DatasetSettings:
    """How a sample is judged: what matters of its amounts was judged on the whole."""
    return settings.model_copy(update={"min_images": 1, "min_objects": 1, "require_every_class": False})


def _turn(entry: Entry) -> tuple[bool, bytes]:
    return not entry.class_ids, hashlib.sha256(entry.annotation.name.encode()).digest()
