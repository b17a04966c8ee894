"""Runs workloads of ingest, case by case and round by round, each on a root of its own."""

import os
import pstats
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from azaion_daemon.sandbox.annotations import Message
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.store.layout import Layout
from tests.benchmarks import _ingest_cases as cases
from tests.benchmarks._common import cpu_seconds, progress, status_mb
from tests.benchmarks._daemon import broker_pid, drain
from tests.benchmarks._ingest_cases import Measured, Task
from tests.benchmarks._profiled import profiled_daemon
from tests.benchmarks._workloads import (
    BULK_NAMES,
    INDEXED,
    PHOTO_2M,
    PHOTO_300K,
    Photo,
    Workload,
    created_messages,
    edited_messages,
    idle_messages,
    publish,
    seed_ledger,
    seed_tree,
    take_photos,
    validated_messages,
)
from tests.harness import Site

DAEMON, NOT_DECODED = "daemon", "daemon, not decoded"
JPEG_CASES = ("read", "plain", "durable", "files", "write", "decode", DAEMON, NOT_DECODED)
LABEL_CASES = ("read", "plain", "durable", DAEMON)

_DECODED_AT_MOST = 100  # images; the time of one hardly varies
_SETTLED_S = 5.0
_VALIDATED = 0.9

Rounds = dict[str, list[Measured]]
"""The runs of each case, a run a round."""


@dataclass(frozen=True)
class Scale:
    """How much is measured; the counts are messages."""

    rounds: int
    photos: int
    jpegs_300k: int
    jpegs_2m: int
    edits: int
    bulk: int


@dataclass(frozen=True)
class Memory:
    """Of the daemon with INDEXED annotations in its ledger: idle, and while a backlog drains; in MB of 10^6 bytes."""

    idle_mb: float
    idle_peak_mb: float
    backlog: Measured


class Bench:
    """One broker, and a directory for everything."""

    def __init__(self, broker: Broker, directory: Path, scale: Scale) -> None:
        self._broker = broker
        self._directory = directory
        self._scale = scale

    def run(self, name: str) -> Rounds:
        """Measure a workload."""
        workload, messages, measured_cases = self._workload(name)
        progress(f"{name}: publishing {workload.messages} messages")
        measured: Rounds = {case: [] for case in measured_cases}
        with self._published(workload, messages):
            for number in range(self._scale.rounds):
                for case in measured_cases:
                    measured[case].append(self._run(case, workload))
                    progress(f"{name}, round {number + 1}: {case}: {measured[case][-1].rate:.1f} messages/s")
        return measured

    def profile(self, name: str) -> pstats.Stats:
        """Run the daemon on a workload once, under the profiler."""
        workload, messages, _ = self._workload(name)
        progress(f"{name}: publishing {workload.messages} messages, then profiling")
        with self._published(workload, messages), self._fresh_directory() as directory:
            site = self._site(workload, directory, decode=True)
            with profiled_daemon(site.operator, directory / "stats") as daemon:
                drain(daemon, workload.messages)
            return pstats.Stats(str(directory / "stats"))

    def memory(self, backlog_bytes: float) -> Memory:
        """Measure the daemon's memory."""
        images = self._photos("jpeg_300k", PHOTO_300K)
        count = round(backlog_bytes * self._scale.photos / sum(path.stat().st_size for path in images.iterdir()))
        workload = Workload("backlog", "azaion-annotations-backlog", count, first_offset=1, seeded=INDEXED, images=images)
        with self._published(workload, idle_messages), self._fresh_directory() as directory:
            progress(f"memory: indexing {INDEXED} annotations")
            site = Site(directory, self._broker, workload.stream)
            site.prepare()
            seed_ledger(Layout(site.root), workload, validated=_VALIDATED)
            with site.daemon() as daemon:
                daemon.wait_for_status(lambda status: status["stream"]["connected"] and status["uptime_s"] > _SETTLED_S, "an idle daemon")
                idle, peak = (status_mb(field, daemon.process.pid) for field in ("VmRSS", "VmHWM"))
            progress(f"memory: publishing a backlog of {count} messages")
            publish(self._broker, workload.stream, created_messages(workload))
            with site.daemon() as daemon:
                return Memory(idle, peak, drain(daemon, count))

    def _workload(self, name: str) -> tuple[Workload, Callable[[Workload], Iterator[Message]], Sequence[str]]:
        scale, stream = self._scale, f"azaion-annotations-{name}"
        match name:
            case "jpeg_300k":
                return Workload(name, stream, scale.jpegs_300k, images=self._photos(name, PHOTO_300K)), created_messages, JPEG_CASES
            case "jpeg_2m":
                return Workload(name, stream, scale.jpegs_2m, images=self._photos(name, PHOTO_2M)), created_messages, JPEG_CASES
            case "edits":
                return Workload(name, stream, scale.edits, first_offset=1, seeded=scale.edits), edited_messages, LABEL_CASES
            case _:
                return Workload(name, stream, scale.bulk, first_offset=1, seeded=scale.bulk * BULK_NAMES), validated_messages, LABEL_CASES

    def _photos(self, name: str, photo: Photo) -> Path:
        directory = self._directory / f"photos-{name}"
        if not directory.exists():
            take_photos(directory, photo, self._scale.photos)
        return directory

    def _run(self, case: str, workload: Workload) -> Measured:
        with self._fresh_directory() as directory:
            if case not in {DAEMON, NOT_DECODED}:
                return self._run_beside(case, workload, directory)
            with self._site(workload, directory, decode=case == DAEMON).daemon() as daemon:
                return drain(daemon, workload.messages)

    def _site(self, workload: Workload, directory: Path, *, decode: bool) -> Site:
        site = Site(directory, self._broker, workload.stream)
        site.overrides["ingest"]["decode_images"] = decode
        site.prepare()
        if workload.seeded:
            seed_tree(Layout(site.root), workload)
            seed_ledger(Layout(site.root), workload)
        os.sync()
        return site

    def _run_beside(self, case: str, workload: Workload, directory: Path) -> Measured:
        layout = Layout(directory)
        for home in layout.directories():
            home.mkdir(parents=True)
        if workload.seeded:
            seed_tree(layout, workload)
        os.sync()
        login = self._broker.consumer
        task = Task(
            host=self._broker.host,
            port=self._broker.port,
            user=login.user,
            password=login.password,
            stream=workload.stream,
            first_offset=workload.first_offset,
            messages=min(workload.messages, _DECODED_AT_MOST) if case == "decode" else workload.messages,
            root=str(directory),
            images=None if workload.images is None else str(workload.images),
        )
        broker = broker_pid()
        before = cpu_seconds(broker) if broker else 0.0
        measured = cases.measure(case, task)
        return replace(measured, broker_cpu_s=cpu_seconds(broker) - before if broker else 0.0)

    @contextmanager
    def _published(self, workload: Workload, messages: Callable[[Workload], Iterator[Message]]) -> Iterator[None]:
        self._broker.create_stream(workload.stream)
        try:
            publish(self._broker, workload.stream, messages(workload))
            yield
        finally:
            self._broker.delete_stream(workload.stream)

    @contextmanager
    def _fresh_directory(self) -> Iterator[Path]:
        """Gone afterwards, from the disk too: what one run leaves to be written must not slow the next."""
        with tempfile.TemporaryDirectory(dir=self._directory) as directory:
            yield Path(directory)
        os.sync()
