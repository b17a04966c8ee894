"""What a changed configuration means for a daemon that runs: which settings take effect now, and which wait for a restart."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from azaion_daemon.settings import Reload, Settings, reload_marks

_NOT_YET = frozenset({"stream.queue_bytes"})
"""Live by their mark, but held by parts that take no new settings."""


@dataclass(frozen=True)
class ReloadPlan:
    """What to do with a new configuration."""

    running: Settings
    """What the daemon works with from now on."""
    applied: tuple[str, ...]
    """The dotted paths of the settings that take effect now."""
    restart_required: tuple[str, ...]
    """Those that differ from what the daemon works with, and stay as they were until it is started again."""


def plan_reload(before: Settings, after: Settings) -> ReloadPlan:
    """Split what has changed by when it takes effect. `before` is what the daemon works with, not what the file said last."""
    marks = reload_marks()
    changed = list(differences(before, after))
    applied = tuple(path for path in changed if _takes_effect(path, marks[path]))
    stream = {path.removeprefix("stream."): getattr(after.stream, path.removeprefix("stream.")) for path in applied}
    return ReloadPlan(
        running=before.model_copy(update={"stream": before.stream.model_copy(update=stream)}),
        applied=applied,
        restart_required=tuple(path for path in changed if path not in applied),
    )


def differences(before: BaseModel, after: BaseModel, prefix: str = "") -> Iterator[str]:
    """The dotted paths of the settings whose values differ."""
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield prefix + name


def _takes_effect(path: str, mark: Reload) -> bool:
    return path.startswith("stream.") and mark is Reload.LIVE and path not in _NOT_YET
