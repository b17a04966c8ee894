"""Files of a dataset: hard links to the tree, copies only where links cannot be."""

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from azaion_daemon.errors import DatasetPlaceError

_NO_LINKS = {errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP}


class ImageSource(NamedTuple):
    """The file that stands for an annotation's image in a dataset. Like every file that is linked, it is never changed in place."""

    path: Path
    """Its suffix is that of the name in the dataset."""
    resized: str | None = None
    """What was made of the annotation's own image, in a few words that are the same on any machine; None when it is that image itself."""


def link_or_copy(source: str, target: str) -> None:
    """Give a file another name; where that cannot be, to a copy, which is durable after the next sync of its filesystem.

    Raises:
        DatasetPlaceError: The permissions of the source forbid it.
        OSError: The disk failed or is full, or the source does not exist.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS and not _cannot_be_linked_by_anyone(source, error):
            raise _named(source, error) from error
        _copy(source, target)


def _cannot_be_linked_by_anyone(source: str, error: OSError) -> bool:
    """EPERM has two meanings: this filesystem has no links (or this file may not have any), or it is another user's."""
    return error.errno == errno.EPERM and os.geteuid() in {0, Path(source).stat().st_uid}


def _copy(source: str, target: str) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise _named(source, error) from error


def _named(source: str, error: OSError) -> OSError | DatasetPlaceError:
    """The error for the operator where permissions are at fault."""
    match error.errno:
        case errno.EPERM:
            return DatasetPlaceError(
                f"{source} cannot be linked by the user {os.geteuid()}: it belongs to the user {Path(source).stat().st_uid}, and "
                "fs.protected_hardlinks forbids that. Give all files of the annotation tree to the user that the daemon runs as (chown -R)."
            )
        case errno.EACCES:
            return DatasetPlaceError(
                f"{source} cannot be read by the user {os.geteuid()}. Give all files of the annotation tree to the user that the daemon "
                "runs as (chown -R)."
            )
    return error
