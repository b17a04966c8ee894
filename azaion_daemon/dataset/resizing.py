"""Reduces images on all cores, in processes of their own, so that the daemon stays small and answers.

A resizer gets its work through a pipe, two images at a time, and ends when the pipe does: none outlives the daemon. One that dies (an image
that makes its decoder crash, a machine out of memory) is replaced, and its work is done again.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from azaion_daemon.children import inherited
from azaion_daemon.dataset.reduction import Kind, Outcome, Reduction
from azaion_daemon.dataset.resized_cache import remove_debris
from azaion_daemon.errors import DiskFullError, ResizeError, StorageError, gravest
from azaion_daemon.logs import get_logger
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.store.durable import storage

log = get_logger(__name__)

_AHEAD = 2
"""Images in a resizer's hands, so that it does not wait for us between two."""
_DEATHS_OF_AN_IMAGE = 3
_DEATHS_IN_A_ROW = 20
_REPORT_S = 10.0
_PROJECTED_FROM = 100
"""So many images say how large the others will be."""
_DYING_S = 5.0


class Work(NamedTuple):
    """An image to look at, and to reduce if it is too large."""

    name: str
    """The annotation's."""
    path: str
    digest: str


@dataclass
class Progress:
    """How far the resizing of a dataset's images is."""

    done: int
    total: int


class Resizing:
    """Reduces images into a cache.

    Args:
        cache: The directory; it is made when it is missing.
        reduction: What to make of them.
        max_pixels: Larger images are not decoded.
        min_free_bytes: What is left free on the disk.
        processes: How many at once; by default as many as there are cores for us.
        command: A resizer without its argument.
    """

    def __init__(
        self,
        cache: Path,
        reduction: Reduction,
        *,
        max_pixels: int,
        min_free_bytes: int,
        processes: int | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._cache = cache
        self._setup = [str(cache), reduction.size, reduction.quality, max_pixels]  # a resizer.Setup, whose module would load a decoder here
        self._min_free_bytes = min_free_bytes
        self._processes = processes or len(os.sched_getaffinity(0))
        self._command = tuple(command) if command is not None else (sys.executable, "-P", "-m", "azaion_daemon.dataset.resizer")

    async def run(self, work: Sequence[Work], on_progress: Callable[[Progress], None] = lambda _: None) -> Mapping[str, Outcome]:
        """Do it; what became of each image, by the annotation's name. When this call ends or is cancelled no resizer is left.

        Raises:
            DiskFullError: There is no space for them; what was made stays in the cache.
            ResizeError: Resizers cannot be started, or die whatever they get.
            StorageError: The disk failed.
        """
        if not work:
            return {}
        await asyncio.to_thread(self._prepare)
        failed: BaseException | None = None
        with _last_words_file() as errors:
            run = _Run(work, errors)
            try:
                async with asyncio.TaskGroup() as tasks:
                    resizers = [tasks.create_task(self._keep_resizing(run)) for _ in range(min(self._processes, len(work)))]
                    watching = tasks.create_task(self._keep_watching(run, on_progress))
                    await asyncio.wait(resizers)
                    watching.cancel()
            except* (StorageError, ResizeError) as group:
                failed = gravest(group.exceptions)
            finally:
                await asyncio.to_thread(remove_debris, self._cache)  # those that were killed had something in hand
        if failed is not None:
            raise failed
        return run.outcomes

    def _prepare(self) -> None:
        with storage("making the cache of resized images"):
            self._cache.mkdir(exist_ok=True)
        remove_debris(self._cache)

    async def _keep_resizing(self, run: "_Run") -> None:
        """One process after the other, until nothing is left to do."""
        while run.waiting:
            held: deque[Work] = deque()
            async with self._resizer(run.errors) as process:
                while held or run.waiting:
                    while run.waiting and len(held) < _AHEAD:
                        held.append(run.waiting.popleft())
                        _send(process, held[-1])
                    answer = await _answer(process)
                    if answer is None:
                        break
                    run.settle(held.popleft(), answer)
            if held:
                await asyncio.to_thread(run.give_back, held, process.returncode)

    @asynccontextmanager
    async def _resizer(self, errors: IO[bytes]) -> AsyncIterator[Process]:
        with _machine("starting a process that resizes images"):
            process = await asyncio.create_subprocess_exec(
                *self._command,
                json.dumps(self._setup),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                start_new_session=True,  # a signal to the daemon's group or its terminal must not reach it
                env=inherited(),
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):  # one that hangs in the kernel ends by itself when the disk answers
                async with asyncio.timeout(_DYING_S):
                    await process.wait()

    async def _keep_watching(self, run: "_Run", on_progress: Callable[[Progress], None]) -> None:
        """Report, and stop before the disk is full: the ingest needs it too."""
        reported = started = time.monotonic()
        while True:
            on_progress(Progress(len(run.outcomes), run.total))
            with storage("looking for space for resized images"):
                free = (await asyncio.to_thread(shutil.disk_usage, self._cache)).free
            if short := _shortage(run, free - self._min_free_bytes):
                raise DiskFullError(short)
            await asyncio.sleep(1.0)
            if time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                rate = len(run.outcomes) / (reported - started)
                log.info("dataset.resizing", done=len(run.outcomes), of=run.total, images_per_s=round(rate, 1))


class _Run:
    """What is to do and what is done."""

    def __init__(self, work: Sequence[Work], errors: IO[bytes]) -> None:
        self.waiting = deque(work)
        self.total = len(work)
        self.outcomes: dict[str, Outcome] = {}
        self.errors = errors
        self._deaths: Counter[str] = Counter()
        self._repeats = Repeats()
        self._deaths_without_work = 0
        self.made = 0
        self.made_bytes = 0

    def settle(self, work: Work, outcome: Outcome) -> None:
        """Note what became of an image. A disk that fails ends it all."""
        match outcome.kind:
            case Kind.DISK_FULL:
                raise DiskFullError(outcome.why)
            case Kind.DISK_FAILED:
                raise StorageError(outcome.why)
            case Kind.REDUCED:
                self.made += 1
                self.made_bytes += outcome.bytes
            case Kind.KEPT | Kind.UNUSABLE | Kind.GONE | Kind.REPLACED:
                pass
        self.outcomes[work.name] = outcome
        self._deaths_without_work = 0

    def give_back(self, held: Sequence[Work], status: int | None) -> None:
        """A resizer has died over the first of these. An image that ends three of them is left out.

        Raises:
            ResizeError: They do nothing but die.
        """
        suspect, *others = held
        self._deaths[suspect.name] += 1
        self._deaths_without_work += 1
        how = f"ended with status {status}" if status is None or status >= 0 else f"was killed by signal {-status}"
        if (seen := self._repeats.count(how)) is not None:
            deaths = self._deaths[suspect.name]
            log.warning("dataset.resizer_died", how=how, annotation=suspect.name, deaths=deaths, repeated=seen.times, for_s=seen.for_s)
        if self._deaths_without_work > _DEATHS_IN_A_ROW:
            raise ResizeError(
                f"The processes that resize images die whatever image they get: the last one {how}. Is memory short (dmesg)? Without "
                f"resizing a dataset is formed with dataset.images: linked. They said: {self._last_words() or 'nothing'}"
            )
        if self._deaths[suspect.name] >= _DEATHS_OF_AN_IMAGE:
            self.outcomes[suspect.name] = Outcome(Kind.UNUSABLE, "its image ended every process that was to resize it")
            self.waiting.extendleft(others)
        else:
            self.waiting.extendleft([*others, suspect])

    def _last_words(self) -> str:
        size = self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, size - 500))
        return self.errors.read().decode(errors="replace").strip().rpartition("\n")[2]


@contextmanager
def _machine(doing: str) -> Iterator[None]:
    """Turn an OSError inside, which is about the machine and not about our disk, into the error that fails the job only."""
    try:
        yield
    except OSError as error:
        raise ResizeError(
            f"{doing}: {error}. Is memory short, is /tmp full, or are there too many processes or open files? Without resizing a dataset "
            "is formed with dataset.images: linked."
        ) from error


def _last_words_file() -> IO[bytes]:
    """What resizers say on their way out goes here."""
    with _machine("making a temporary file for what processes that resize images say"):
        return tempfile.TemporaryFile()


def _shortage(run: _Run, available_bytes: int) -> str | None:
    """Why what is left to do will not fit on the disk; None when it will, as far as can be told."""
    wanted = 0
    if run.made >= _PROJECTED_FROM:
        to_make = (run.total - len(run.outcomes)) * run.made / len(run.outcomes)
        wanted = round(to_make * run.made_bytes / run.made)
    if wanted <= available_bytes:
        return None
    return (
        f"resizing images: {run.total - len(run.outcomes)} more need about {wanted >> 20} MiB, and {max(0, available_bytes) >> 20} MiB are "
        "free above what must stay free (ingest.min_free_disk; dataset.min_free_disk and what a training writes). Free some space, lower "
        "dataset.jpeg_quality, or set dataset.images to linked."
    )


def _send(process: Process, work: Work) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # it is dead; its answer says so
        process.stdin.write(json.dumps([work.path, work.digest]).encode() + b"\n")


async def _answer(process: Process) -> Outcome | None:
    """The next outcome; None when the process has ended."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        with suppress(TimeoutError):
            async with asyncio.timeout(_DYING_S):
                await process.wait()
        return None
    kind, *others = json.loads(line)
    return Outcome(Kind(kind), *others)
