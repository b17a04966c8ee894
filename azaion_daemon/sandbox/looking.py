"""What the demo looks at from outside: the files that the daemon keeps, and what a consumer gets."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from azaion_daemon.sandbox import consumer
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.sandbox.scenario import Fate, Truth
from azaion_daemon.sandbox.scenes import draw_scene
from azaion_daemon.sandbox.world import World

_DIRECTORIES = {Fate.VALIDATED: "data", Fate.SEED: "data-seed", Fate.DELETED: "data_deleted"}
_UNSEEN = 60
_UNSEEN_SEED = 1_000_000_000
_LEAST_MAP50 = 0.5
_LEAST_FOUND = 0.5


def compare_tree(root: Path, truth: Mapping[str, Truth]) -> int:
    """Compare the annotation tree with what the annotators meant; how many images it holds.

    Raises:
        SandboxError: They differ; the message names the first difference.
    """
    for name, meant in truth.items():
        home = root / _DIRECTORIES[meant.fate]
        image, label = home / "images" / f"{name}.jpg", home / "labels" / f"{name}.txt"
        if not image.is_file() or image.read_bytes() != meant.scene.image_jpeg:
            raise SandboxError(f"{image} is not the image that was annotated")
        boxes = [(int(line[0]), *map(float, line[1:])) for line in map(str.split, label.read_text().splitlines())]
        if boxes != [(box.class_id, box.cx, box.cy, box.width, box.height) for box in meant.boxes]:
            raise SandboxError(f"{label} does not hold the boxes that were drawn last")
    held = sum(1 for directory in _DIRECTORIES.values() for _ in (root / directory / "images").iterdir())
    if held != len(truth):
        raise SandboxError(f"the tree holds {held} images, {len(truth)} were annotated")
    return held


def consume(world: World, current: Mapping[str, Any], *, serial: int, public_key: bytes) -> tuple[consumer.Verdict, str]:
    """Have a consumer download the model and look at images that nobody has seen; what it found, and the digest of the model that it got.

    `current` is the current model as the status says it, `serial` that of its release. What the manifest leads to that is signed with the
    private part of `public_key` must be the same model.

    Raises:
        SandboxError: It is not the current model, or it has not learned.
    """
    plaintext = world.consumer().download()
    onnx = (world.root / "models" / "azaion.onnx").read_bytes()
    if not plaintext.endswith(onnx) or consumer.digest(onnx) != current["sha256"]:
        raise SandboxError("what the consumer decrypted is not the current model")
    signed = world.consumer().download_signed(public_key)
    if (signed.serial, signed.onnx) != (serial, onnx):
        raise SandboxError(f"what the signed manifest of release {signed.serial} leads to is not the current model, release {serial}")
    verdict = consumer.judge(consumer.Model(plaintext), [draw_scene(_UNSEEN_SEED + index) for index in range(_UNSEEN)])
    if current["map50"] < _LEAST_MAP50 or verdict.found < _LEAST_FOUND * verdict.known:
        raise SandboxError(
            f"the model has not learned: mAP50 {current['map50']:.3f} (at least {_LEAST_MAP50} expected), "
            f"{verdict.found} of {verdict.known} shapes found (at least {_LEAST_FOUND:.0%} expected)"
        )
    return verdict, current["sha256"]


def dataset_images(root: Path, name: str) -> int:
    """How many images a dataset has."""
    document = json.loads((root / "datasets" / name / "dataset.json").read_text())
    return int(sum(document["images"].values()))


def ruling(root: Path, job: Mapping[str, Any]) -> Iterator[str]:
    """What was decided about a job's model, in lines: the sentence, the numbers, where the report is."""
    verdict = job.get("verdict") or {}
    why = verdict.get("reason") or job.get("why") or "no reason is given"
    yield f"{decision(job)}: {why}"
    for check in verdict.get("checks", ()):
        met = "met" if check["ok"] else "not met"
        yield f"  {check['name']}: {check['value']:.4g}, at least {check['limit']:.4g} is asked for: {met}"
    report = root / "state" / "jobs" / job["id"] / "report.html"
    if report.is_file():
        yield f"the report: {report}"


def decision(job: Mapping[str, Any]) -> str:
    """What became of a job's model: accepted, rejected or held."""
    state = str(job["state"])
    return state if state in {"rejected", "held"} else "accepted"
