"""The first phase: is there anything to train on, and to start from? Found out before hours of work, by the library's own reading."""

import pickle
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from azaion_daemon.store.digests import file_digest
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.worker.failures import PhaseError, is_the_machines_fault
from azaion_daemon.training.worker.progress import ProgressReport

_SPLITS = ("train", "val", "test")


def run(_job: JobDirectory, spec: JobSpec, report: ProgressReport) -> dict[str, JsonValue]:
    """Check the weights and every part of the dataset; returns how much there is in each.

    The library scans images and labels as it will for training, and leaves a cache of that beside the labels.

    Raises:
        PhaseError: The weights cannot be used, or a part of the dataset has no image, or no object where one is needed.
    """
    _check_batch(spec)
    _check_weights(spec)
    data = _read(spec)
    found: dict[str, JsonValue] = {}
    for split in _SPLITS:
        _forget_cache(data.get(split))
        report.update(step=f"reading {split}", batches=_files(data.get(split)))
        found[split] = _scan(data, split)
    return found


def _check_batch(spec: JobSpec) -> None:
    if len(spec.gpus) > 1 and spec.batch_size % len(spec.gpus):
        raise PhaseError(
            Outcome.BAD_JOB,
            f"A batch of {spec.batch_size} cannot be divided among {len(spec.gpus)} GPUs: make training.batch_size a multiple of that.",
        )


def _files(where: Any) -> int:
    """About how many images are going to be read; the daemon is patient in proportion."""
    return sum(1 for _ in Path(where).iterdir()) if isinstance(where, str) and Path(where).is_dir() else 0


def _forget_cache(where: Any) -> None:
    """Whatever lies where the library would keep what it has scanned: it is a pickle, and would be loaded before it is looked at."""
    if isinstance(where, str):
        (Path(where).with_name("labels.cache")).unlink(missing_ok=True)


def _check_weights(spec: JobSpec) -> None:
    model = spec.model
    if Path(model).is_absolute() and not Path(model).is_file():
        raise PhaseError(Outcome.BAD_JOB, f"The weights {model} do not exist: put them there, or set training.model to a file in models/.")
    if not Path(model).is_absolute() and not model.endswith(".yaml"):
        raise PhaseError(Outcome.BAD_JOB, f"{model} is neither an absolute path nor an architecture (.yaml); nothing is ever downloaded.")
    if spec.model_sha256 is not None and file_digest(Path(model)) != spec.model_sha256:
        raise PhaseError(Outcome.BAD_JOB, f"{model} is not the file that the job was given: somebody has replaced it.")
    try:
        network = YOLO(model)
    except FileNotFoundError as error:
        raise PhaseError(Outcome.BAD_JOB, f"{model} is no architecture that the installed library knows.") from error
    except (TypeError, pickle.UnpicklingError) as error:
        raise PhaseError(
            Outcome.BAD_JOB,
            f"{model} is not loaded: it is damaged, or holds something else than a model of the library ({_sentence(error)}). "
            "Nothing in it was run. Name another file as training.model, one that you trust.",
        ) from error
    if network.task != "detect":
        raise PhaseError(Outcome.BAD_JOB, f"{model} is made for the task {network.task}; detection is needed.")
    network.model.end2end = True  # stays False where there is no such head
    if not network.model.end2end:
        raise PhaseError(Outcome.BAD_JOB, f"{model} has no head without NMS, as YOLO26 has: consumers could not read its export.")


def _read(spec: JobSpec) -> dict[str, Any]:
    try:
        data: dict[str, Any] = check_det_dataset(str(spec.data_yaml), autodownload=False)
    except Exception as error:  # it raises whatever its file makes it stumble over
        if is_the_machines_fault(error):
            raise
        raise PhaseError(Outcome.BAD_DATA, f"{spec.data_yaml} cannot be used: {_sentence(error)}") from error
    names = tuple(data["names"][index] for index in sorted(data["names"]))
    if names != spec.class_names:
        raise PhaseError(Outcome.BAD_DATA, f"{spec.data_yaml} does not name the {len(spec.class_names)} classes of the job.")
    return data


def _scan(data: dict[str, Any], split: str) -> dict[str, JsonValue]:
    where = data.get(split)
    if not where:
        raise PhaseError(Outcome.BAD_DATA, f"The dataset {data['yaml_file']} has no part {split}.")
    try:
        dataset = YOLODataset(img_path=where, data=data, task="detect", augment=False, prefix=f"{split}: ")
    except Exception as error:
        if is_the_machines_fault(error):
            raise
        raise PhaseError(Outcome.BAD_DATA, f"The {split} images cannot be used: {_sentence(error)}") from error
    objects = sum(len(label["cls"]) for label in dataset.labels)
    if objects == 0:
        raise PhaseError(Outcome.BAD_DATA, f"The {split} images in {where} have not one labelled object.")
    return {"images": len(dataset.labels), "objects": objects}


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split("\n", 1)[0].split()) or type(error).__name__
