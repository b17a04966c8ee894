"""What a changed configuration means for a daemon that runs: which settings take effect now, and which wait for a restart."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from azaion_daemon.sections import Reload
from azaion_daemon.settings import Settings, reload_marks

M = TypeVar("M", bound=BaseModel)

_TAKEN = {
    "api": frozenset({Reload.LIVE}),
    "publish": frozenset({Reload.LIVE}),
    "stream": frozenset({Reload.LIVE}),
    "trigger": frozenset({Reload.LIVE}),
    "dataset": frozenset({Reload.NEXT_JOB}),
    "training": frozenset({Reload.NEXT_JOB}),
    "export": frozenset({Reload.NEXT_JOB}),
    "gate": frozenset({Reload.LIVE}),
    "retention": frozenset({Reload.LIVE}),
}
"""The sections whose parts take new settings while they work, and of which kinds."""


@dataclass(frozen=True)
class ReloadPlan:
    """What to do with a new configuration."""

    running: Settings
    """What the daemon works with from now on."""
    applied: tuple[str, ...]
    """The dotted paths of the settings that take effect now."""
    next_job: tuple[str, ...]
    """Those that take effect when the next training job is formed."""
    restart_required: tuple[str, ...]
    """Those that differ from what the daemon works with, and stay as they were until it is started again."""


def plan_reload(before: Settings, after: Settings) -> ReloadPlan:
    """Split what has changed by when it takes effect. `before` is what the daemon works with, not what the file said last."""
    marks = reload_marks()
    changed = list(differences(before, after))
    taken = [path for path in changed if _is_taken(path, marks[path])]
    return ReloadPlan(
        running=_with_changes(before, after, taken),
        applied=tuple(path for path in taken if marks[path] is Reload.LIVE),
        next_job=tuple(path for path in taken if marks[path] is Reload.NEXT_JOB),
        restart_required=tuple(path for path in changed if path not in taken),
    )


def differences(before: BaseModel, after: BaseModel, prefix: str = "") -> Iterator[str]:
    """The dotted paths of the settings whose values differ."""
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield prefix + name


def _is_taken(path: str, mark: Reload) -> bool:
    section = path.partition(".")[0]
    return mark in _TAKEN.get(section, ())


def _with_changes(before: M, after: M, paths: Iterable[str]) -> M:
    """`before` with the values that `after` has at these dotted paths."""
    below: dict[str, list[str]] = {}
    for path in paths:
        name, _, rest = path.partition(".")
        below.setdefault(name, []).append(rest)
    update = {
        name: _with_changes(getattr(before, name), getattr(after, name), rests) if any(rests) else getattr(after, name)
        for name, rests in below.items()
    }
    return before.model_copy(update=update)
