"""What a changed configuration means for a daemon that runs: which settings take effect now, and which wait for a restart."""

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from azaion_daemon.errors import ConfigError, ReleaseError
from azaion_daemon.publish.credentials import parse_credentials
from azaion_daemon.sections import Reload
from azaion_daemon.settings import Settings, reload_marks
from azaion_daemon.stream.tls import tls_context

M = TypeVar("M", bound=BaseModel)

Take = Callable[[Settings], None]
"""Has a part of the daemon work with other settings from now on."""


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
    by_mark = {mark: tuple(path for path in changed if marks[path] is mark) for mark in Reload}
    applied, next_job = by_mark[Reload.LIVE], by_mark[Reload.NEXT_JOB]
    return ReloadPlan(_with_changes(before, after, applied + next_job), applied, next_job, by_mark[Reload.RESTART])


def check_files(settings: Settings) -> None:
    """Read every file that the settings name for connections: what cannot be used must be known before any part relies on it. Blocks.

    Raises:
        ConfigError: One is missing, unreadable or not what it should be.
    """
    tls_context(settings.stream)
    _check_certificates("api.ca_file", settings.api.ca_file)
    _check_certificates("publish.cdn_ca_file", settings.publish.cdn_ca_file)
    if (credentials := settings.publish.cdn_credentials_file) is not None:
        try:
            parse_credentials(credentials.read_bytes(), source=f"publish.cdn_credentials_file {credentials}")
        except OSError as error:
            raise ConfigError(f"publish.cdn_credentials_file: {credentials} cannot be read: {error.strerror or error}") from error
        except ReleaseError as error:
            raise ConfigError(str(error)) from error


def tell(parts: Sequence[Take], before: Settings, after: Settings) -> None:
    """Have all parts work with other settings, or none: when one of them cannot, it and those before it go back to what they had.

    Raises:
        Exception: What that part has raised. A part that cannot go back either is named by a note.
    """
    told: list[Take] = []
    try:
        for take in parts:
            told.append(take)
            take(after)
    except Exception as error:
        for take in reversed(told):
            try:
                take(before)
            except Exception as again:  # noqa: BLE001 - the others must go back all the same
                error.add_note(f"and what was told could not be taken back ({type(again).__name__}): restart the daemon")
        raise


def differences(before: BaseModel, after: BaseModel, prefix: str = "") -> Iterator[str]:
    """The dotted paths of the settings whose values differ."""
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield prefix + name


def _check_certificates(setting: str, file: Path | None) -> None:
    if file is None:
        return
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{setting}: {file} is not a readable file of certificates: {why}") from error


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
