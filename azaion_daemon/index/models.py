"""The model that a server had before the daemon came."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from azaion_daemon.store.digests import file_digest
from azaion_daemon.store.durable import fsync_directory, storage
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Model

_KEPT = "azaion-taken-over"


def existing_model(layout: Layout, known: Mapping[str, Model] = MappingProxyType({})) -> Model | None:
    """The current model by its file, which is one of those `known` by their digest, or one without a job; None when there is none.

    The latter is kept in a directory of its own, as a hard link, since the next model takes its name.

    Raises:
        StorageError: It cannot be read, or the disk is full.
    """
    if not layout.onnx.is_file():
        return None
    with storage("reading the current model"):
        digest = file_digest(layout.onnx)
        created = layout.onnx.stat().st_mtime
    if digest in known:
        return replace(known[digest], current=True)
    kept = layout.models / _KEPT
    with storage("keeping the current model"):
        kept.mkdir(exist_ok=True)
        for file in (layout.onnx, layout.pt):
            if file.is_file():
                _keep(file.resolve(), kept / file.name)
        fsync_directory(kept)
        fsync_directory(layout.models)
    return Model(digest, None, None, {}, str(kept / layout.onnx.name), current=True, created=created)


def _keep(file: Path, kept: Path) -> None:
    kept.unlink(missing_ok=True)
    try:
        os.link(file, kept)
    except OSError:  # another user's file, or another filesystem behind a symbolic link
        shutil.copyfile(file, kept)
