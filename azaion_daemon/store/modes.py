"""Who may read and write what is made, whatever the umask of whoever starts a command.

The daemon's user writes, its group reads, nobody else does anything. Two exceptions, both for the daemon's user alone: secrets, and
`state/requests`, since who may put a file there commands the daemon. So a process sets `UMASK` when it starts, secrets have their mode
given where they are written, and directories that others can write to are closed at every start: whoever can rename `state` away, or put
a checkpoint into a job, is as good as the daemon.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from azaion_daemon.errors import RootError
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout

UMASK = 0o027
"""What is made without a mode of its own: directories 0750, files 0640."""
SECRET = 0o600
_WRITE_BY_OTHERS = 0o022
_OTHERS = 0o027
_NOT_OURS = 0o077


@dataclass(frozen=True, slots=True)
class Opened:
    """A directory, or a file with a secret, that was open to more users than it should be."""

    path: Path
    mode: int
    now: int
    """The mode that it has now; the same where it could not be changed."""


def close_root(layout: Layout) -> list[Opened]:
    """Take from others what they must not have of the directories that the daemon trusts; what was open.

    Directories of the annotation tree, of datasets and of models keep whom their owner lets read.

    Raises:
        RootError: One belongs to another user, who could change everything in it.
    """
    wanted = dict.fromkeys([layout.root, *layout.directories()], _WRITE_BY_OTHERS)
    inner = (path for path in layout.state.iterdir() if path.is_dir() and not path.is_symlink())
    wanted |= dict.fromkeys([layout.state, *inner], _OTHERS)
    wanted[layout.requests] = _NOT_OURS
    return [opened for path, forbidden in wanted.items() if (opened := _close(path, forbidden)) is not None]


def _close(path: Path, forbidden: int) -> Opened | None:
    found = path.stat()
    if os.geteuid() not in {0, found.st_uid} and found.st_uid != 0:
        raise RootError(
            f"{path} belongs to the user {found.st_uid}, who could change everything in it. Look at what is there, then give it to the "
            f"user of the daemon: chown -R {os.geteuid()} {path}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if not mode & forbidden:
        return None
    try:
        path.chmod(mode & ~forbidden)
    except OSError:  # root's, or on a filesystem without modes: said, and not worth a standstill
        return Opened(path, mode, mode)
    return Opened(path, mode, stat.S_IMODE(path.stat().st_mode))


def secret_files(settings: Settings, config: Path) -> list[Path]:
    """Files outside of the root that may hold secrets: the configuration, what it is made from, and those that it names."""
    named = (settings.publish.cdn_credentials_file, settings.stream.client_key_file)
    return [config, config.with_name(".env"), *(file for file in named if file is not None)]


def open_secrets(*files: Path) -> list[Opened]:
    """Of files that hold secrets those that others can read, or more than their owner can write. One that is not there is passed over."""
    found = []
    for file in files:
        with suppress(OSError):  # whoever needs it says so
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & _OTHERS:
                found.append(Opened(file, mode, mode))
    return found
