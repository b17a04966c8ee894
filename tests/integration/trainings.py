"""Tiny trainings of the real worker: a dataset of generated images, and jobs on it."""

import csv
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.pool import WorkerPool

CLASSES = ("car", "truck", "boat")
SIDE = 64
PARTS = {"train": 8, "valid": 4, "test": 3}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset with one shape an image, in the form that a snapshot has."""
    dice = random.Random(0)
    root = tmp_path / "azaion-2026-01-02"
    for part, count in PARTS.items():
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True)
        for number in range(count):
            index = number % len(CLASSES)
            x, y, side = dice.randint(0, 30), dice.randint(0, 30), dice.randint(20, 30)
            image = Image.new("RGB", (SIDE, SIDE), (90, 100, 110))
            draw = ImageDraw.Draw(image)
            shape = (draw.rectangle, draw.ellipse, draw.chord)[index]
            shape((x, y, x + side, y + side), fill=(200, 60 * index, 50), **({"start": 0, "end": 200} if index == 2 else {}))
            image.save(root / part / "images" / f"{part}-{number}.jpg")
            centre = (x + side / 2) / SIDE, (y + side / 2) / SIDE
            (root / part / "labels" / f"{part}-{number}.txt").write_text(
                f"{index} {centre[0]:.6f} {centre[1]:.6f} {side / SIDE:.6f} {side / SIDE:.6f}\n"
            )
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: {root}\ntrain: train/images\nval: valid/images\ntest: test/images\nnames:\n{names}")
    return root


def small_job(dataset: Path, gpu_locks: Path, **changes: Any) -> JobSpec:
    """A training of one epoch, which takes seconds."""
    values: dict[str, Any] = {
        "id": "job-1",
        "dataset_id": "d1",
        "dataset_name": dataset.name,
        "data_yaml": dataset / "data.yaml",
        "class_names": CLASSES,
        "model": "yolo26n.yaml",
        "epochs": 1,
        "batch_size": 4,
        "imgsz": SIDE,
        "save_period": 1,
        "workers": 0,
        "overrides": {"close_mosaic": 0},
        "export_imgsz": SIDE,
        "export_batch": 2,
        "gpu_locks": gpu_locks,
    }
    return JobSpec(**(values | changes))


@pytest.fixture
def make_job(tmp_path: Path, dataset: Path) -> Callable[..., JobDirectory]:
    def make(**changes: Any) -> JobDirectory:
        job = JobDirectory(tmp_path / "jobs" / "job-1")
        job.create(small_job(dataset, tmp_path / "gpus", **changes))
        return job

    return make


@pytest.fixture
def pool(tmp_path: Path) -> WorkerPool:
    home = tmp_path / "home"
    home.mkdir()
    return WorkerPool(progress_s=0.2, environment={**os.environ, "HOME": str(home)})


def curves(job: JobDirectory) -> list[int]:
    with (job.run / "train" / "results.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def epochs(job: JobDirectory) -> list[int]:
    """Those that epochs.jsonl has."""
    return [record.epoch for record in job.read_epochs()]
