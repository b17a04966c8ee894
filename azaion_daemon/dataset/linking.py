"""Files of a dataset: hard links to the tree, copies only where links cannot be."""

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from azaion_daemon.errors import DatasetError

_NO_LINKS = {errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP}


class ImageSource(NamedTuple):
    """The file that stands for an annotation's image in a dataset. Like every file that is linked, it is never changed in place."""

    path: Path
    """Its suffix is that of the name in the dataset."""
    resized: str | None = None
    """What was made of the annotation's own image, in a few words that are the same on any machine; None when it is that image itself."""


def link(source: Path, target: Path) -> None:
    """Give a file another name.

    Raises:
        DatasetError: The file may not be linked.
        OSError: The disk failed or is full, or the file does not exist.
    """
    try:
        os.link(source, target)
    except PermissionError as error:
        raise DatasetError(
            f"{source} cannot be linked: it belongs to another user, and fs.protected_hardlinks forbids that. Give all files of the "
            "annotation tree to the user that the daemon runs as."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)
