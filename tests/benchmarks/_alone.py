"""Ultralytics by itself, as a person would call it: `python -m tests.benchmarks._alone WORK.json` trains, exports and validates.

WORK.json has `model`, `train`, `export` and `val`: the arguments of each call. The seconds of each go to `seconds.json` beside it. The time
to import the library is told apart from that of the training.
"""

import json
import sys
import time
from pathlib import Path


def main(work: Path) -> None:
    plan = json.loads(work.read_text())
    seconds: dict[str, float] = {}
    last = time.monotonic()

    def passed(what: str) -> None:
        nonlocal last
        now = time.monotonic()
        seconds[what], last = now - last, now

    from ultralytics import YOLO  # noqa: PLC0415 - timed

    passed("import")
    model = YOLO(plan["model"])
    model.train(**plan["train"])
    passed("train")
    best = YOLO(str(model.trainer.best))
    exported = best.export(**plan["export"])
    passed("export")
    scores = YOLO(exported, task="detect").val(**plan["val"])
    passed("evaluate")
    result = {"seconds": seconds, "map50": float(scores.box.map50), "run": str(model.trainer.save_dir)}
    (work.parent / "seconds.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
