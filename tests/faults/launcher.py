"""The unmodified daemon, with faults at named points: `AZAION_FAULTS='[…]' python -m tests.faults.launcher run --config …`.

The product knows nothing of this. The launcher wraps the calls through which a process reaches its disk (open, write, rename, link,
unlink, syncfs, fsync, SQLite's transactions), gives each call a name from the path that it touches, and then runs the daemon's own
command line. A point is `{phase}.{step}.{when}`:

phase   `recovery` and `replay` while the pipeline does these, else `work`
step    what happens to which file, see `_step_of_*`; a step on the annotation tree outside `Tree.place_all` is called `stray-…`
when    `before` or `after` the call; `half`: of a write, when the first half of the bytes is in the file

`AZAION_FAULTS` is a JSON list of `Fault`s. `AZAION_FAULT_CENSUS` names a file that gets every point that is reached, once a process, and
a line `fault {point}` for each fault that is done.
"""

import builtins
import errno
import functools
import io
import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from azaion_daemon.cli import main as daemon
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.ingest.tree import Tree
from azaion_daemon.store.durable import FilesystemSync

FAULTS = "AZAION_FAULTS"
CENSUS = "AZAION_FAULT_CENSUS"

P = ParamSpec("P")
T = TypeVar("T")

_HOMES = {"data": "validated", "data-seed": "seed", "data_deleted": "deleted"}
_WRITING = os.O_WRONLY | os.O_RDWR
_real_open, _real_write, _real_close, _real_file = os.open, os.write, os.close, builtins.open


@dataclass(frozen=True)
class Fault:
    """What happens at a point: from its `hit`-th time on (counted from 1), `times` times."""

    point: str
    do: Literal["kill", "ENOSPC", "EDQUOT", "EROFS", "EIO"] = "kill"
    hit: int = 1
    times: int = 1


def environment(*faults: Fault, census: Path) -> dict[str, str]:
    """The variables that make the launcher do these faults."""
    return {FAULTS: json.dumps([asdict(fault) for fault in faults]), CENSUS: str(census)}


class _Points:
    """Counts what is reached and does what was ordered there."""

    def __init__(self) -> None:
        self._faults = {fault["point"]: Fault(**fault) for fault in json.loads(os.environ[FAULTS])}
        self._census = _real_open(os.environ[CENSUS], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._hits: dict[str, int] = {}
        self._lock = threading.Lock()
        self.phase = "work"
        self.placing = 0

    def reach(self, step: str, when: str, *paths: object) -> None:
        """Be at a point. Raises OSError when that was ordered."""
        if fault := self.due(step, when):
            self.do(fault, *paths)

    def due(self, step: str, when: str) -> Fault | None:
        """Be at a point; the fault that is to be done now."""
        point = f"{self.phase}.{step}.{when}"
        with self._lock:
            hits = self._hits[point] = self._hits.get(point, 0) + 1
            if hits == 1:
                _real_write(self._census, f"{point}\n".encode())
        fault = self._faults.get(point)
        return fault if fault is not None and fault.hit <= hits < fault.hit + fault.times else None

    def do(self, fault: Fault, path: object = None, second: object = None) -> None:
        """Do a fault."""
        _real_write(self._census, f"fault {fault.point}\n".encode())
        if fault.do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, fault.do)
        raise OSError(number, os.strerror(number), path, None, second)


points: _Points


@contextmanager
def _around(step: str | None, *paths: object) -> Iterator[None]:
    if step is None:
        yield
        return
    points.reach(step, "before", *paths)
    yield
    points.reach(step, "after", *paths)


# What a path means


def _whole(path: Any, directory: int | None = None) -> Path:
    text = os.fsdecode(path)
    if directory is not None and not text.startswith("/"):
        return _path_of(directory) / text
    return Path(text)


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _area(path: Path) -> tuple[str, str]:
    """The directory's kind and, in the annotation tree, the home; empty where faults are not looked for."""
    parent = path.parent
    if parent.name in {"images", "labels"} and parent.parent.name in _HOMES:
        return parent.name.removesuffix("s"), _HOMES[parent.parent.name]
    return (parent.name if parent.name in {"incoming", "quarantine"} else ""), ""


def _in_tree(step: str) -> str:
    return step if points.placing else f"stray-{step}"


def _step_of_appearing(source: Path, target: Path) -> str | None:
    match _area(target):
        case "label", "seed" if (target.parents[2] / "data" / "labels" / target.name).exists():
            return _in_tree("label-pending")
        case "label", home:
            return _in_tree(f"label-{home}")
        case "image", _:
            return _in_tree("image-place" if _area(source)[0] == "incoming" else "image-move")
        case "incoming", _:
            return _in_tree("label-link")
        case "quarantine", _:
            return f"quarantine-{target.suffix[1:]}"
    return None


def _step_of_removing(path: Path) -> str | None:
    if not os.path.lexists(path):
        return None
    match _area(path):
        case ("label" | "image") as kind, _:
            return _in_tree(f"{kind}-remove")
        case ("incoming" | "quarantine") as kind, _:
            return f"{kind}-remove-{path.suffix[1:]}"
    return None


def _step_of_opening(path: Path, *, to_write: bool) -> str | None:
    match _area(path), to_write:
        case (("label" | "image") as kind, _), True:
            return _in_tree(f"{kind}-write")
        case (("label" | "image") as kind, _), False:
            return f"{kind}-read"
        case ("incoming", _), True:
            return "image-write" if path.suffix == ".image" else _in_tree("label-write")
        case ("quarantine", _), True:
            return "quarantine-write"
    return None


# The calls


def _wrap_renames() -> None:
    def moving(real: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(real)
        def move(source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **options: Any) -> None:
            with _around(_step_of_appearing(_whole(source, src_dir_fd), _whole(target, dst_dir_fd)), source, target):
                real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **options)

        return move

    def removing(real: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(real)
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            with _around(_step_of_removing(_whole(path, dir_fd)), path):
                real(path, dir_fd=dir_fd)

        return remove

    for name in ("replace", "rename", "link"):
        setattr(os, name, moving(getattr(os, name)))
    for name in ("unlink", "remove"):
        setattr(os, name, removing(getattr(os, name)))


_written_for: dict[int, str] = {}
"""The step that each descriptor is written for."""


def _open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    step = _step_of_opening(_whole(path, dir_fd), to_write=bool(flags & _WRITING))
    if step is not None:
        points.reach(step, "before", path)
    descriptor = _real_open(path, flags, mode, dir_fd=dir_fd)
    if step is not None and flags & _WRITING:
        _written_for[descriptor] = step
    return descriptor


def _write(descriptor: int, data: Any) -> int:
    step = _written_for.get(descriptor)
    if step is not None and (fault := points.due(step, "half")):
        view = memoryview(data)
        _real_write(descriptor, view[: len(view) // 2])
        points.do(fault, str(_path_of(descriptor)))
    return _real_write(descriptor, data)


def _close(descriptor: int) -> None:
    _written_for.pop(descriptor, None)
    _real_close(descriptor)


class _WrittenFile(io.FileIO):
    def write(self, data: Any, /) -> int:
        return _write(self.fileno(), data)

    def close(self) -> None:
        if not self.closed:
            _written_for.pop(self.fileno(), None)
        super().close()


def _file(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
    if isinstance(file, int):
        if file not in _written_for:
            return _real_file(file, mode, buffering, *arguments, **options)
        raw = _WrittenFile(file, mode.replace("b", ""))
        return raw if buffering == 0 else io.BufferedWriter(raw)
    step = _step_of_opening(_whole(file), to_write=not mode.startswith("r"))
    if step is not None:
        points.reach(step, "before", file)
    return _real_file(file, mode, buffering, *arguments, **options)


def _fsync(real: Callable[[int], None], descriptor: int) -> None:
    path = _path_of(descriptor)
    in_quarantine = "quarantine" in {path.name, path.parent.name}
    with _around("quarantine-fsync" if in_quarantine else None, str(path)):
        real(descriptor)


class _Connection(sqlite3.Connection):
    """Its transactions are points, named by what they record."""

    _records = "other"

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._note(sql)
        try:
            with _around("begin" if sql.startswith("BEGIN") else f"commit-{self._records}" if sql == "COMMIT" else None):
                return super().execute(sql, *parameters)
        except OSError as error:
            raise _as_sqlite_says_it(error) from error

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self._note(sql)
        return super().executemany(sql, parameters)

    def _note(self, sql: str) -> None:
        if sql.startswith("BEGIN"):
            self._records = "other"
        elif "INTO position" in sql:
            self._records = "batch"
        elif "SET dirty=NULL" in sql:
            self._records = "clear"


def _as_sqlite_says_it(error: OSError) -> sqlite3.OperationalError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    said = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
    said.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
    return said


# The product's own names: as few as can be


def _in_phase(name: str, real: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @functools.wraps(real)
    async def work(*args: P.args, **kwargs: P.kwargs) -> T:
        before, points.phase = points.phase, name
        try:
            return await real(*args, **kwargs)
        finally:
            points.phase = before

    return work


def _wrap_the_product() -> None:
    place, opened, sync = Tree.place_all, FilesystemSync.__init__, FilesystemSync.__call__
    steps: dict[FilesystemSync, str] = {}

    def placing(tree: Tree, *args: Any, **kwargs: Any) -> Any:
        points.reach("place", "before")
        points.placing += 1
        try:
            return place(tree, *args, **kwargs)
        finally:
            points.placing -= 1

    def opening(self: FilesystemSync, directory: Path) -> None:
        opened(self, directory)
        steps[self] = "sync-incoming" if directory.name == "incoming" else "sync-tree"

    def syncing(self: FilesystemSync) -> None:
        with _around(steps[self]):
            sync(self)

    for owner, name, wrapped in (
        (Tree, "place_all", placing),
        (FilesystemSync, "__init__", opening),
        (FilesystemSync, "__call__", syncing),
        (Pipeline, "recover", _in_phase("recovery", Pipeline.recover)),
        (Pipeline, "replay", _in_phase("replay", Pipeline.replay)),
    ):
        setattr(owner, name, wrapped)


def main() -> None:
    """Run a command of the daemon with faults."""
    global points  # noqa: PLW0603 - one process has one set of them
    points = _Points()
    _wrap_renames()
    for module, name, wrapped in (
        (os, "open", _open),
        (os, "write", _write),
        (os, "close", _close),
        (os, "fsync", functools.partial(_fsync, os.fsync)),
        (io, "open", _file),  # what os.fdopen and Path.open call
        (builtins, "open", _file),
        (sqlite3, "connect", functools.partial(sqlite3.connect, factory=_Connection)),
    ):
        setattr(module, name, wrapped)
    _wrap_the_product()
    daemon.main(args=sys.argv[1:], prog_name="azaion-daemon")


if __name__ == "__main__":
    main()
