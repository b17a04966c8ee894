"""Reading config.yaml. Unknown keys, wrong types and impossible values are refused with the path of the key."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from azaion_daemon.errors import ConfigError
from azaion_daemon.sections import (
    ApiSettings,
    DatasetSettings,
    DirectorySettings,
    ExportSettings,
    GateSettings,
    IngestSettings,
    LogSettings,
    MetricsSettings,
    PublishSettings,
    Reload,
    RetentionSettings,
    Section,
    StreamSettings,
    TrainingSettings,
    TriggerSettings,
)

FIRST_LINE = "# Rendered by azaion-daemon config render from .env and the template: change those. Without its last line it is refused."
LAST_LINE = "# End of the rendered configuration."
"""What begins so must have this line too. Half a file may be valid, and would silently be without the sections that are optional."""
_MOST_BYTES = 1 << 20
_QUOTED = re.compile(r"'(?!<)[^']{2,}'|\"[^\"]{2,}\"")


class Settings(Section):
    """The whole of config.yaml."""

    api: ApiSettings
    stream: StreamSettings
    directories: DirectorySettings
    ingest: IngestSettings = IngestSettings()
    dataset: DatasetSettings = DatasetSettings()
    trigger: TriggerSettings = TriggerSettings()
    training: TrainingSettings
    export: ExportSettings
    gate: GateSettings = GateSettings()
    publish: PublishSettings = PublishSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()


def load_settings(path: Path) -> Settings:
    """Read and validate a configuration file.

    Raises:
        ConfigError: It cannot be read, is no YAML, or holds a key or value that is not allowed; all faults are named at once.
    """
    return parse_settings(read_config(path), source=str(path))


def read_config(path: Path, *, errors: Literal["strict", "replace"] = "strict") -> str:
    """The text of a configuration file; `errors` says what becomes of bytes that are no UTF-8.

    Raises:
        ConfigError: It is not there, cannot be read, or is no file of a reasonable size: a pipe without a writer would be waited for.
    """
    try:
        with open(path, encoding="utf-8", errors=errors, opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                raise ConfigError(f"{path} cannot be read: it is no file, or one of more than {_MOST_BYTES} bytes")
            return file.read()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Make it with: azaion-daemon config render") from error
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def parse_settings(text: str, *, source: str) -> Settings:
    """Validate the text of a configuration file; `source` is what the error calls it.

    Raises:
        ConfigError: As in `load_settings`, or it was rendered and has lost its end. Values are never part of the message, since they may
            be secret.
    """
    lines = text.split("\n")
    if lines[0] == FIRST_LINE and LAST_LINE not in lines:
        raise ConfigError(f"{source} is cut short: its last line is missing. Make it again with: azaion-daemon config render")
    try:
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{where} is not valid YAML: {yaml_problem(error)}") from None
    except Exception:  # noqa: BLE001 - on tags that do not fit, dates that are none and endless nesting it raises anything
        raise ConfigError(f"{source} is not valid YAML: it holds characters or values that are not allowed") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{source} must be a mapping with the keys {', '.join(Settings.model_fields)}")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        faults = "\n".join(f"  {line}" for line in _explain(error))
        raise ConfigError(f"{source} is not a valid configuration:\n{faults}") from None


def yaml_problem(error: yaml.MarkedYAMLError) -> str:
    """What is wrong, without the words of the file: of a password that begins with *, & or ! YAML makes a name, and tells it."""
    return _QUOTED.sub("'…'", str(error.problem))


def _explain(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in fault["loc"])
        match fault["type"]:
            case "extra_forbidden":
                allowed = _allowed_keys(tuple(str(part) for part in fault["loc"][:-1]))
                yield f"{path}: unknown key; allowed here: {', '.join(allowed)}"
            case "missing":
                yield f"{path}: is missing"
            case _:
                message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
                yield (f"{path}: must be {message}" if message != fault["msg"] and "must" not in message else f"{path}: {message}")


def _allowed_keys(path: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def reload_marks(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Reload]:
    """Every setting's dotted path and how a change of it takes effect."""
    marks: dict[str, Reload] = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            marks |= reload_marks(annotation, f"{prefix}{name}.")
        else:
            (mark,) = (item for item in field.metadata if isinstance(item, Reload))
            marks[prefix + name] = mark
    return marks


def settings_document(settings: Settings) -> dict[str, Any]:
    """The settings as plain data for showing; secrets are masked."""
    return settings.model_dump(mode="json")
