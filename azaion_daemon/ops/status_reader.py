"""The whole status for a command: what the daemon said, what is so, what is wrong with the configuration's file, and what needs somebody.

It must be had when it is needed most, so a configuration file that cannot be used any more does not stand in its way.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from azaion_daemon import __version__
from azaion_daemon.errors import ConfigError
from azaion_daemon.ops.attention import Attention, Level, attention, attention_document
from azaion_daemon.ops.status import read_status
from azaion_daemon.sections import DirectorySettings
from azaion_daemon.settings import load_settings
from azaion_daemon.store.layout import Layout

EXIT_NOT_RUNNING = 3
"""As `systemctl status` has it."""
_CLOCK_S = 1.0


class StatusReader:
    """Reads the status again and again; the configuration only when its file has changed."""

    def __init__(self, config: Path, root: Path | None = None) -> None:
        """`root` is looked at in place of the one that the configuration names.

        Raises:
            ConfigError: The configuration cannot be used, not even to find the root.
        """
        self._config = config
        self._root = root
        self._stamp: tuple[int, int, int] | None = None
        self._problem: str | None = None
        self._layout: Layout | None = None if root is None else Layout(root)
        self._look_at_file()

    def read(self, now: datetime) -> dict[str, Any]:
        """Everything that is known now; `now` is in the reader's time zone."""
        with suppress(ConfigError):  # the root that was found before is as good
            self._look_at_file()
        assert self._layout is not None
        document = read_status(self._layout)
        config = document.get("config")
        config = dict(config) if isinstance(config, Mapping) else {}
        document["config"] = {**config, "file_problem": self._problem, "file_is_newer": self._is_newer(config)}
        found = [*attention(document, now), *_versions(document), *_newer(document)]
        return {**document, "attention": attention_document(found)}

    def _look_at_file(self) -> None:
        stamp = self._stat()
        if self._layout is not None and stamp is not None and stamp == self._stamp:
            return
        try:
            settings = load_settings(self._config)
        except ConfigError as error:
            self._problem = str(error)
            if self._layout is None:
                self._layout = _root_of_broken(self._config, error)
        else:
            self._problem = None
            if self._root is None:
                self._layout = Layout.of(settings.directories)
        self._stamp = stamp

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self._config.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _is_newer(self, config: Mapping[str, Any]) -> bool:
        """Whether the file was written after the daemon has read it, and it has not been asked to read it since."""
        last = config.get("last_reload")
        known = [config.get("loaded_at"), last.get("at") if isinstance(last, Mapping) else None]
        times = [one for one in known if isinstance(one, int | float)]
        with suppress(OSError):
            return (
                bool(times) and config.get("path") == str(self._config.absolute()) and self._config.stat().st_mtime > max(times) + _CLOCK_S
            )
        return False


def _root_of_broken(config: Path, error: ConfigError) -> Layout:
    """The root that a configuration names which is wrong elsewhere."""
    with suppress(OSError, ValueError, yaml.YAMLError, ValidationError):
        document = yaml.safe_load(config.read_text(encoding="utf-8"))
        if isinstance(document, dict):
            return Layout.of(DirectorySettings.model_validate(document.get("directories")))
    raise ConfigError(f"{error}\nThe status can be seen all the same: name the root with --root") from error


def _versions(document: Mapping[str, Any]) -> list[Attention]:
    theirs = document.get("version")
    if document.get("state") == "stopped" or not theirs or theirs == __version__:
        return []
    what = f"the daemon that runs is version {theirs}, this command {__version__}"
    return [
        Attention(Level.NOTE, what, "After an upgrade: systemctl restart azaion-daemon (a training under way goes on with its own version)")
    ]


def _newer(document: Mapping[str, Any]) -> list[Attention]:
    if document.get("state") == "stopped" or not document["config"]["file_is_newer"]:
        return []
    return [
        Attention(
            Level.NOTE, "the configuration file was written after the daemon has read it", "To apply it: systemctl reload azaion-daemon"
        )
    ]
