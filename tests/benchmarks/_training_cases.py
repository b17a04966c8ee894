"""A training as a case of the benchmark: by Ultralytics alone, and as a job of a running daemon."""

import csv
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.outcomes import Phase
from azaion_daemon.training.worker import environment
from tests.harness import Site

_SAMPLE_S = 0.2
_LIMIT_S = 1800.0
_OURS = frozenset({"data", "mode", "model", "name", "project", "resume", "save_dir", "task"})
_ENDS = frozenset({"accepted", "releasing", "released", "rejected", "held"})


@dataclass(frozen=True)
class Trained:
    """What a training took, in seconds; an epoch is a median. `memory_mb` has the daemon's meanwhile."""

    train_s: float
    epoch_s: float
    whole_s: float
    map50: float
    to_first_batch_s: float = 0.0
    memory_mb: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Like:
    """What a job of the daemon was told, for the same to be done without it."""

    directory: JobDirectory
    spec: JobSpec
    arguments: dict[str, Any]
    """Those of the library's train(), as it wrote them down."""


def epochs_of(run: Path) -> float:
    """The median of the epochs' seconds, from the library's results.csv: it counts from the start of the training."""
    with (run / "results.csv").open(newline="") as file:
        times = [float(row["time"]) for row in csv.DictReader(file)]
    return statistics.median([after - before for before, after in pairwise([0.0, *times])])


def under_daemon(site: Site, daemon: RunningDaemon, *, ask: bool) -> tuple[Trained, Like]:
    """The next job, from its trigger to its verdict. With `ask` an operator asks for it."""
    known = {job["id"] for job in (daemon.status() or {"training": {"jobs": []}})["training"]["jobs"]}
    if ask:
        site.operator.command("train", "now", "--reason", "benchmark")
    deadline = time.monotonic() + _LIMIT_S
    jobs = Layout(site.root).jobs
    process = psutil.Process(daemon.process.pid)
    rss, pss = [], []
    first_batch: float | None = None
    while True:
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            raise SandboxError(f"no training came to its end: {daemon.events()[-1:]}")
        mine = [job for job in (daemon.status() or {"training": {"jobs": []}})["training"]["jobs"] if job["id"] not in known]
        if mine and mine[0]["state"] in _ENDS:
            break
        if mine and mine[0]["state"] in {"failed", "cancelled"}:
            raise SandboxError(f"the training {mine[0]['state']}: {mine[0]['why']}")
        if mine and mine[0]["state"] == "running":
            memory = process.memory_full_info()
            rss.append(memory.rss)
            pss.append(memory.pss)
            progress = JobDirectory(jobs / mine[0]["id"]).read_progress()
            if first_batch is None and progress is not None and progress.phase is Phase.TRAIN and progress.epoch:
                first_batch = progress.updated.timestamp()
        time.sleep(_SAMPLE_S)
    job = JobDirectory(jobs / mine[0]["id"])
    trained, result = job.marker(Phase.TRAIN), job.read_result()
    if trained is None or first_batch is None or result is None or result.metrics is None:
        raise SandboxError(f"{job.path} does not say how the training went")
    at = {event: _time_of(daemon, event, job.path.name) for event in ("trigger.due", "worker.started", "worker.ended")}
    return (
        Trained(
            train_s=trained.seconds,
            epoch_s=epochs_of(job.run / "train"),
            whole_s=at["worker.ended"] - at["worker.started"],
            map50=result.metrics.map50,
            to_first_batch_s=first_batch - at["trigger.due"],
            memory_mb={
                "rss_median": statistics.median(rss) / 1e6,
                "rss_most": max(rss) / 1e6,
                "pss_median": statistics.median(pss) / 1e6,
                "pss_most": max(pss) / 1e6,
            },
        ),
        Like(job, job.read_spec(), yaml.safe_load((job.run / "train" / "args.yaml").read_text())),
    )


def _time_of(daemon: RunningDaemon, event: str, job: str) -> float:
    return datetime.fromisoformat(daemon.wait_for_event(event, job=job)["timestamp"]).timestamp()


def alone(like: Like, work: Path) -> Trained:
    """The same training, export and validation by the library alone: same arguments, same images (linked anew, so nothing is cached)."""
    work.mkdir(parents=True)
    data = _dataset(like.spec.data_yaml, work / "dataset")
    given = {key: value for key, value in like.arguments.items() if key not in _OURS}
    spec = like.spec
    plan = {
        "model": spec.model,
        "train": {**given, "data": str(data), "project": str(work / "run"), "name": "train"},
        "export": {
            "format": "onnx", "imgsz": spec.export_imgsz, "batch": spec.export_batch, "nms": False, "opset": 18, "dynamic": False,
            "simplify": True, "device": "cpu",
        },
        "val": {
            "data": str(data), "split": "test", "imgsz": spec.export_imgsz, "batch": spec.export_batch, "workers": spec.workers,
            "device": given["device"], "plots": False, "project": str(work / "run"), "name": "evaluate",
        },
    }  # fmt: skip
    (work / "work.json").write_text(json.dumps(plan))
    home = JobDirectory(work)
    (home.library_home).symlink_to(like.directory.library_home)  # its settings and fonts, lest it fetches them
    command = [sys.executable, "-m", "tests.benchmarks._alone", str(work / "work.json")]
    started = time.monotonic()
    with (work / "log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env={**os.environ, **environment.variables(home, spec)}, check=False)
    whole_s = time.monotonic() - started
    if done.returncode:
        raise SandboxError(f"Ultralytics alone ended with {done.returncode}: {(work / 'log').read_text()[-2000:]}")
    result = json.loads((work / "seconds.json").read_text())
    return Trained(
        train_s=result["seconds"]["train"], epoch_s=epochs_of(Path(result["run"])), whole_s=whole_s, map50=result["map50"],
    )  # fmt: skip


def _dataset(data_yaml: Path, copy: Path) -> Path:
    """The same dataset under another path, its files linked, without the library's caches; its data.yaml."""
    source = data_yaml.parent
    for file in source.rglob("*"):
        if file.is_file() and file.suffix != ".cache":
            target = copy / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(file)
    made = copy / data_yaml.name
    made.unlink()
    made.write_text(data_yaml.read_text().replace(str(source), str(copy)))
    return made
