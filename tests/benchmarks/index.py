"""Taking over a server: how long `init` needs for the annotations of a tree, and `index check` for comparing it with the ledger.

Files are tiny, since images are not opened: what counts is names, labels and the ledger. Making the tree is not measured, and its labels
are dropped from the page cache before each step, as far as an ordinary user can.

python -m tests.benchmarks.index [--quick]
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from azaion_daemon.sandbox.operator import Operator
from azaion_daemon.sandbox.scenes import CLASS_NAMES, write_classes

LONGEST_S = 60.0
ENVIRONMENT = Path(__file__).parents[2] / ".env.example"
HOMES = [*["data"] * 8, "data-seed", "data_deleted"]
DETECTIONS = 5


@dataclass(frozen=True)
class Measured:
    """One command in a process of its own, from its start to its end."""

    seconds: float
    cpu_seconds: float


def make_tree(root: Path, annotations: int) -> None:
    """As many annotations in the three homes, each with a label of five detections and an image of 100 bytes."""
    numbers = random.Random(1)
    for home in set(HOMES):
        for kind in ("images", "labels"):
            (root / home / kind).mkdir(parents=True)
    for index in range(annotations):
        home, name = HOMES[index % len(HOMES)], uuid.UUID(int=numbers.getrandbits(128))
        classes = [numbers.randrange(len(CLASS_NAMES)) for _ in range(DETECTIONS)]
        boxes = (f"{class_id} {' '.join(repr(round(numbers.random(), 9)) for _ in range(4))}\n" for class_id in classes)
        (root / home / "labels" / f"{name}.txt").write_text("".join(boxes))
        (root / home / "images" / f"{name}.jpg").write_bytes(b"x" * 100)


def forget_labels(root: Path) -> None:
    """Have the labels read from the disk the next time."""
    os.sync()
    for home in set(HOMES):
        for label in os.scandir(root / home / "labels"):
            descriptor = os.open(label.path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure(operator: Operator, root: Path, *arguments: str) -> tuple[Measured, dict[str, Any]]:
    """Run a command of the daemon on a cold tree; what it says, too."""
    forget_labels(root)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    said = json.loads(operator.command(*arguments, "--json"))
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{' '.join(arguments)} {seconds:.2f} s", file=sys.stderr)
    return Measured(seconds, cpu), said


def run(annotations: int) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory(prefix="benchmark-index-") as work:
        root, operator = Path(work) / "azaion", Operator(Path(work))
        operator.configure(ENVIRONMENT.read_text().replace("=/azaion\n", f"={root}\n"), {})
        make_tree(root, annotations)
        write_classes(root / "classes.json")
        init, made = measure(operator, root, "init")
        assert (sum(made["index"]["annotations"].values()), made["index"]["flagged"]) == (annotations, {})
        check, compared = measure(operator, root, "index", "check")
        assert (compared["annotations"], compared["left"]) == (annotations, 0)
        return {"init": init, "check": check}


def report(annotations: int, measured: dict[str, Measured]) -> None:
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    print(f"{annotations:,} annotations, {os.cpu_count()} cores\n")
    print(f"{'':12}{'seconds':>10}{'annotations/s':>16}{'CPU s':>10}")
    for step, one in measured.items():
        print(f"{step:12}{one.seconds:>10.2f}{annotations / one.seconds:>16,.0f}{one.cpu_seconds:>10.2f}")
    print(f"\npeak memory of a command: {peak_mb:.0f} MB\n")
    seconds = measured["init"].seconds
    targets = [{"name": "indexed_in_s", "value": round(seconds, 2), "target": LONGEST_S, "ok": seconds <= LONGEST_S}]
    figures = {"annotations": annotations, "peak_mb": round(peak_mb, 1), **{step: asdict(one) for step, one in measured.items()}}
    print(json.dumps({"benchmark": "index", "targets": targets, "figures": figures}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 annotations instead of 360,000")
    annotations = 20_000 if parser.parse_args().quick else 360_000
    report(annotations, run(annotations))


if __name__ == "__main__":
    main()
