"""What the kernel and the daemon say of the daemon's process, every few seconds."""

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

_KINDS = re.compile(r"^(socket|pipe|anon_inode:\[?\w+\]?)")
_PARTS = ("jobs", "requests", "releases", "incoming", "evaluations", "resized")


@dataclass(frozen=True)
class Sample:
    """One look. Sizes in bytes; `at` in seconds since the soak began; `quiet`: nothing was under way, and had not been for a while."""

    at: float
    quiet: bool
    rss: int
    pss: int
    anonymous: int
    descriptors: dict[str, int]
    """By kind: sockets, pipes, files by their name under the root, ..."""
    threads: int
    children: int
    zombies: int
    tasks: int | None
    loop_lag_s: float | None
    ledger: int
    wal: int
    state: dict[str, int]
    """What lies below the root's `state`, by directory."""


def take(pid: int, root: Path, at: float, *, quiet: bool) -> Sample:
    """Look at the process and at what it keeps.

    Raises:
        OSError: It is gone.
        psutil.Error: The same.
    """
    memory = _memory(pid)
    children = psutil.Process(pid).children(recursive=True)
    status = _status(root)
    told = status.get("process") or {}
    state = root / "state"
    return Sample(
        at=at,
        quiet=quiet,
        rss=memory["Rss"],
        pss=memory["Pss"],
        anonymous=memory["Anonymous"],
        descriptors=_descriptors(pid, root),
        threads=sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()),
        children=len(children),
        zombies=sum(_is_zombie(child) for child in children),
        tasks=told.get("tasks"),
        loop_lag_s=told.get("loop_lag_s"),
        ledger=_size(state / "ledger.db"),
        wal=_size(state / "ledger.db-wal"),
        state={part: _below(state / part) for part in _PARTS if (state / part).is_dir()},
    )


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}


def _descriptors(pid: int, root: Path) -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            target = str(descriptor.readlink())
            kind = _KINDS.match(target)
            kinds[kind[0] if kind else target.removeprefix(f"{root}/")] += 1
    return dict(kinds)


def _is_zombie(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return False


def _status(root: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        document: dict[str, Any] = json.loads((root / "state" / "status.json").read_bytes())
        return document
    return {}


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _below(directory: Path) -> int:
    return sum(_size(Path(where) / name) for where, _, names in os.walk(directory) for name in names)


class Sampler:
    """Looks again and again, on a thread, while the context lasts."""

    def __init__(self, pid: int, root: Path, *, every_s: float, began: float, is_quiet: Callable[[], bool]) -> None:
        self.samples: list[Sample] = []
        self._pid = pid
        self._root = root
        self._every_s = every_s
        self._began = began
        self._is_quiet = is_quiet
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="soak-samples")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(self._every_s):
            quiet = self._is_quiet()
            try:
                sample = take(self._pid, self._root, time.monotonic() - self._began, quiet=quiet)
            except (OSError, psutil.Error):  # it has ended; who waits for it says so
                return
            if quiet == self._is_quiet():
                self.samples.append(sample)
