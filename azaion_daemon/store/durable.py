"""Files that are whole or not there, whatever the moment of a power cut.

A new file becomes durable in three steps, and each is needed: without the fsync of the file its name may survive with no bytes; without
the rename a reader may see half of it; without the fsync of the directory the name itself may be gone. A failed fsync is never tried
again: the kernel may have dropped the dirty pages and then report success.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from azaion_daemon.errors import DiskFullError, RootError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_TEMPORARY = ".tmp"
_COPY_BYTES = 1 << 20
_LOCK_TRIES = 4
_LOCK_PAUSE_S = 0.05
_libc = ctypes.CDLL(None, use_errno=True)


def storage_error(error: OSError, doing: str, *, syncing: bool = False) -> StorageError:
    """The error for the operator that stands for a failed file operation.

    While `syncing`, a full disk is a failed disk: the kernel has dropped what it could not write, and the next sync would not miss it.
    """
    where = f" {error.filename}" if error.filename else ""
    where += f" -> {error.filename2}" if error.filename2 else ""
    what = f"{doing}{where}: {error.strerror or error}"
    if error.errno in _FULL and not syncing:
        return DiskFullError(f"{what}. Free some space; nothing is lost and work goes on by itself.")
    return StorageError(f"{what}. Check the disk and the kernel's log, then start the daemon again.")


@contextmanager
def storage(doing: str, *, syncing: bool = False) -> Iterator[None]:
    """Turn any OSError inside into the StorageError that says what was being done; `syncing` as in `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, syncing=syncing) from error


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, content: bytes, *, mode: int = 0o640) -> None:
    """Write a file that may not be whole after a crash: for names that nobody reads before a later sync."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]


@contextmanager
def replacing(path: Path, *, mode: int = 0o640) -> Iterator[BinaryIO]:
    """A file that takes the place of another, durably, when the context ends; left by an error, nothing has changed.

    The temporary name is hidden and lies in the same directory.
    """
    temporary = _temporary(path)
    try:
        # No link is followed: where the group may make files, as beside config.yaml, one would lead the write to any file of ours.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)  # the umask must not decide about secrets
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_durably(path: Path, content: bytes, *, mode: int = 0o640) -> None:
    """Put a whole file in the place of another, durably."""
    with replacing(path, mode=mode) as file:
        file.write(content)


def copy_durably(source: Path, target: Path, *, mode: int = 0o640) -> None:
    """Put a copy of a file in the place of another, durably, in constant memory."""
    with source.open("rb") as original, replacing(target, mode=mode) as copy:
        shutil.copyfileobj(original, copy, _COPY_BYTES)


def replace_atomically(path: Path, content: bytes, *, mode: int = 0o640) -> None:
    """As `replace_durably`, without the syncs: for what is rewritten every second and worthless after a crash."""
    temporary = _temporary(path)
    write_new(temporary, content, mode=mode)
    temporary.replace(path)


def remove_temporaries(*directories: Path) -> None:
    """Remove what a killed process has left in these directories: files that were to replace others. By the only writer there."""
    for directory in directories:
        for path in directory.glob(f".*{_TEMPORARY}"):
            path.unlink(missing_ok=True)  # a process that outlived the killed one may just have renamed it


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")


def write_json(path: Path, document: Any, *, mode: int = 0o640) -> None:
    """A JSON document, durably replaced."""
    replace_durably(path, json.dumps(document, indent=1, ensure_ascii=False, default=str).encode() + b"\n", mode=mode)


class FilesystemSync:
    """`syncfs` on a descriptor that is held open, so that write errors since the last call are reported to us."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __call__(self) -> None:
        """Make everything written so far on the filesystem durable.

        Raises:
            OSError: Some write since the last call failed; what is on disk is unknown.
        """
        if _libc.syncfs(self._descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


@contextmanager
def exclusive_lock(path: Path, *, busy: str) -> Iterator[None]:
    """Hold a flock on `path`, with our pid in it, until the context ends or the process dies.

    Raises:
        RootError: Another process holds it, and the message is `busy` and its pid; or the file cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:  # a filesystem that its kernel has made read-only looks writable until one tries
        raise RootError(
            f"{path} cannot be written: {error.strerror}. Check the disk and the kernel's log, and the file's owner."
        ) from error
    try:
        for patience in range(_LOCK_TRIES, 0, -1):  # `lock_holder` may have it for a moment
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if patience == 1:
                    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                    raise RootError(f"{busy} (pid {holder})") from None
                time.sleep(_LOCK_PAUSE_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether some process holds an `exclusive_lock`."""
    return _content_while_locked(path) is not None


def lock_holder(path: Path) -> int | None:
    """The pid of the process that holds an `exclusive_lock`; None when nobody does. A pid that merely stands in a file proves nothing."""
    content = _content_while_locked(path)
    return int(content) if content is not None and content.isdigit() else None


def _content_while_locked(path: Path) -> bytes | None:
    """What its holder has written into a lock file; None when nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 32, 0).strip()
    else:
        return None
    finally:
        os.close(descriptor)
