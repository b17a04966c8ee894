"""What the trainer's own loader makes of datasets. In a process of its own, since the library changes others it is imported beside.

python -m tests.loading compare IMAGES IMAGES SIZE     how far what the model gets of one is from what it gets of the other
python -m tests.loading epoch IMAGES SIZE WORKERS      how long one epoch takes to load: plain, and augmented as in training
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLASSES = 3
_EPOCHS = 3


def compare(one: Path, other: Path, size: int) -> dict[str, dict[str, Any]]:
    """By image and kind of loading: whether shapes and labels are the same, and the mean difference in grey levels."""
    found: dict[str, dict[str, Any]] = _run("compare", str(one), str(other), str(size))
    return found


def epoch(images: Path, size: int, workers: int) -> dict[str, float]:
    """Seconds of an epoch by the kind of loading, and how many images it has."""
    seconds: dict[str, float] = _run("epoch", str(images), str(size), str(workers))
    return seconds


def _run(*arguments: str) -> Any:
    with tempfile.TemporaryDirectory() as home:
        quiet = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": home, "YOLO_VERBOSE": "false", "MPLBACKEND": "Agg"}
        command = [sys.executable, "-m", "tests.loading", *arguments]
        environment = {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _dataset(images: str, size: int, *, batch: int = 4, augmented: bool = False, rect: bool = False) -> Any:
    from ultralytics.cfg import get_cfg  # noqa: PLC0415 - only in a process of its own
    from ultralytics.data import build_yolo_dataset  # noqa: PLC0415

    cfg = get_cfg(overrides={"imgsz": size, "task": "detect"})
    data = {"names": dict.fromkeys(range(CLASSES), "c"), "nc": CLASSES, "channels": 3}
    return build_yolo_dataset(cfg, images, batch, data, mode="train" if augmented else "val", rect=rect)


def _compare(one: str, other: str, size: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind, rect in (("square", False), ("rect", True)):
        these, those = (_by_name(_dataset(images, size, rect=rect)) for images in (one, other))
        assert these.keys() == those.keys(), these.keys() ^ those.keys()
        for name, this in these.items():
            that = those[name]
            same_shape = this["img"].shape == that["img"].shape and tuple(this["resized_shape"]) == tuple(that["resized_shape"])
            same_labels = this["cls"].equal(that["cls"]) and this["bboxes"].allclose(that["bboxes"], atol=1e-6)
            apart = this["img"].float() - that["img"].float() if same_shape else None
            found[f"{name} {kind}"] = {
                "shapes": [list(this["img"].shape), list(that["img"].shape)],
                "same_shape": bool(same_shape),
                "same_labels": bool(same_labels),
                "boxes": len(this["bboxes"]),
                "levels": None if apart is None else float(apart.abs().mean()),
                "brighter": None if apart is None else float(apart.mean()),
            }
    return found


def _by_name(dataset: Any) -> dict[str, Any]:
    items = (dataset[index] for index in range(len(dataset)))
    return {Path(item["im_file"]).stem: item for item in items}


def _epoch(images: str, size: int, workers: int) -> dict[str, float]:
    from ultralytics.data import build_dataloader  # noqa: PLC0415 - only in a process of its own

    seconds: dict[str, float] = {}
    for kind, augmented in (("plain", False), ("augmented", True)):
        dataset = _dataset(images, size, batch=1, augmented=augmented)  # eight times the batch stays in memory, here nearly all
        loader = build_dataloader(dataset, batch=8, workers=workers, shuffle=augmented, device="cpu")
        for _ in loader:  # warm: the processes are there, the files in memory, and as much is loaded ahead as after any epoch
            pass
        started = time.perf_counter()
        seconds["images"] = sum(len(batch["img"]) for _ in range(_EPOCHS) for batch in loader) / _EPOCHS
        seconds[kind] = (time.perf_counter() - started) / _EPOCHS
    return seconds


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["compare", one, other, size]:
            print(json.dumps(_compare(one, other, int(size))))
        case ["epoch", images, size, workers]:
            print(json.dumps(_epoch(images, int(size), int(workers))))
        case _:
            sys.exit(__doc__)
