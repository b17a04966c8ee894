"""Ingest: the daemon beside rstream alone, sequential handlers with and without durability, and the limits of disk and decoding.

python -m tests.benchmarks.ingest [--quick] [--only NAME] [--backlog-gb GB] [--profile]

Every case reads the same stream of one broker in a process of its own, on an empty or freshly seeded root; the cases take turns, and ratios
are taken within a turn. Publishing and seeding are not timed.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from azaion_daemon.sandbox.annotations import Message
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.store.layout import Layout
from tests.benchmarks import _ingest_cases as cases
from tests.benchmarks._common import Target, at_least, cpu_seconds, finish, progress
from tests.benchmarks._daemon_case import broker_pid, drain
from tests.benchmarks._ingest_cases import Measured, Task
from tests.benchmarks._workloads import (
    BULK_NAMES,
    PHOTO_300K,
    Photo,
    Workload,
    created_messages,
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
DECODED_AT_MOST = 200  # images; the time of one hardly varies

LEAST_SPEEDUP = 2.5
LEAST_OF_LIMIT = 0.6
LEAST_OF_DECODE_LIMIT = 0.8
LEAST_MOVED_A_SECOND = 10_000.0


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    photos: int
    jpegs_300k: int
    bulk_messages: int


FULL = Scale(rounds=3, photos=24, jpegs_300k=2000, bulk_messages=20)
QUICK = Scale(rounds=1, photos=8, jpegs_300k=600, bulk_messages=10)

Rounds = dict[str, list[Measured]]
"""The runs of each case, a run a round."""


class Bench:
    """One broker, and a directory in which every run gets a root of its own."""

    def __init__(self, broker: Broker, directory: Path, scale: Scale) -> None:
        self._broker = broker
        self._directory = directory
        self._scale = scale

    def jpegs(self, name: str, photo: Photo, messages: int) -> Rounds:
        images = self._directory / f"images-{name}"
        take_photos(images, photo, self._scale.photos)
        workload = Workload(name, f"azaion-annotations-{name}", messages, images=images)
        return self._rounds(workload, created_messages, JPEG_CASES)

    def bulk(self, messages: int) -> Rounds:
        workload = Workload("bulk", "azaion-annotations-bulk", messages, first_offset=1, seeded=messages * BULK_NAMES)
        return self._rounds(workload, validated_messages, LABEL_CASES)

    def _rounds(self, workload: Workload, messages: Callable[[Workload], Iterator[Message]], names: tuple[str, ...]) -> Rounds:
        progress(f"{workload.name}: publishing {workload.messages} messages")
        publish(self._broker, workload, messages)
        measured: Rounds = {name: [] for name in names}
        for number in range(self._scale.rounds):
            for name in names:
                measured[name].append(self._run(name, workload))
                progress(f"{workload.name}, round {number + 1}: {name}: {measured[name][-1].rate:.1f} messages/s")
        self._broker.delete_stream(workload.stream)
        return measured

    def _run(self, case: str, workload: Workload) -> Measured:
        with self._fresh_directory() as directory:
            return (
                self._run_daemon(case, workload, directory) if case in {DAEMON, NOT_DECODED} else self._run_case(case, workload, directory)
            )

    def _run_daemon(self, case: str, workload: Workload, directory: Path) -> Measured:
        site = Site(directory, self._broker, workload.stream)
        site.overrides["ingest"]["decode_images"] = case == DAEMON
        site.prepare()
        layout = Layout(site.root)
        if workload.seeded:
            seed_tree(layout, workload)
            seed_ledger(layout, workload)
        os.sync()
        with site.daemon() as daemon:
            return drain(daemon, workload.messages)

    def _run_case(self, case: str, workload: Workload, directory: Path) -> Measured:
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
            messages=min(workload.messages, DECODED_AT_MOST) if case == "decode" else workload.messages,
            root=str(directory),
            images=None if workload.images is None else str(workload.images),
        )
        broker = broker_pid()
        before = cpu_seconds(broker) if broker else 0.0
        measured = cases.measure(case, task)
        return replace(measured, broker_cpu_s=cpu_seconds(broker) - before if broker else 0.0)

    @contextmanager
    def _fresh_directory(self) -> Iterator[Path]:
        """Gone afterwards, from the disk too: what one run leaves to be written must not slow the next."""
        with tempfile.TemporaryDirectory(dir=self._directory) as directory:
            yield Path(directory)
        os.sync()


def ratio(measured: Rounds, of: Callable[[dict[str, Measured]], float]) -> float:
    """The median over the rounds of what is computed from the runs of one round."""
    return statistics.median(of(dict(zip(measured, turn, strict=True))) for turn in zip(*measured.values(), strict=True))


def table(title: str, measured: Rounds) -> None:
    header = ("messages/s", "MB/s", "CPU s", "CPU s/1000", "peak MB", "broker CPU s")
    print(f"\n{title}\n{'':22}" + "".join(f"{column:>14}" for column in header))
    for case, runs in measured.items():
        run = {name: statistics.median(asdict(one)[name] for one in runs) for name in asdict(runs[0])}
        row = (
            statistics.median(one.rate for one in runs),
            statistics.median(one.bytes / one.seconds / 1e6 for one in runs),
            run["cpu_s"],
            run["cpu_s"] / run["messages"] * 1000,
            max(one.memory_mb for one in runs),
            run["broker_cpu_s"],
        )
        print(f"{case:22}" + "".join(f"{value:>14.2f}" for value in row))


def jpeg_figures(measured: Rounds, cores: int) -> dict[str, float]:
    """What is judged of images."""

    def decode_limit(turn: dict[str, Measured]) -> float:
        return cores / sum(turn[part].cpu_s / turn[part].messages for part in ("read", "decode", "write"))

    return {
        "durable_speedup": ratio(measured, lambda turn: turn[DAEMON].rate / turn["durable"].rate),
        "durable_speedup_not_decoded": ratio(measured, lambda turn: turn[NOT_DECODED].rate / turn["durable"].rate),
        "share_of_limit": ratio(measured, lambda turn: turn[NOT_DECODED].rate / min(turn["read"].rate, turn["files"].rate)),
        "share_of_decode_limit": ratio(measured, lambda turn: turn[DAEMON].rate / decode_limit(turn)),
    }


def run(scale: Scale, only: str | None) -> None:
    figures: dict[str, Any] = {"cores": (cores := len(os.sched_getaffinity(0)))}
    targets: list[Target] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-ingest-") as work, Broker(Path(work) / "broker") as broker:
        bench = Bench(broker, Path(work), scale)
        if only in {None, "jpeg_300k"}:
            measured = bench.jpegs("jpeg_300k", PHOTO_300K, scale.jpegs_300k)
            judged = jpeg_figures(measured, cores)
            table("300 KB JPEGs", measured)
            figures["jpeg_300k"] = {**judged, **listed(measured)}
            targets += [
                at_least("durable_speedup", judged["durable_speedup"], LEAST_SPEEDUP),
                at_least("share_of_limit", judged["share_of_limit"], LEAST_OF_LIMIT),
                at_least("share_of_decode_limit", judged["share_of_decode_limit"], LEAST_OF_DECODE_LIMIT),
            ]
        if only in {None, "bulk"}:
            measured = bench.bulk(scale.bulk_messages)
            moved = ratio(measured, lambda turn: turn[DAEMON].rate * BULK_NAMES)
            table(f"bulk validations of {BULK_NAMES} names", measured)
            figures["bulk"] = {"annotations_a_second": moved, **listed(measured)}
            targets.append(at_least("bulk", moved, LEAST_MOVED_A_SECOND))
    finish("ingest", targets, figures)


def listed(measured: Rounds) -> dict[str, Any]:
    return {case: [asdict(run) for run in runs] for case, runs in measured.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything, one round")
    parser.add_argument("--only", choices=("jpeg_300k", "bulk"), help="one workload alone")
    arguments = parser.parse_args()
    run(QUICK if arguments.quick else FULL, arguments.only)


if __name__ == "__main__":
    main()
