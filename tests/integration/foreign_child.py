"""Checkpoints that run something when they are loaded: made here, and offered to whatever of the worker loads checkpoints.

`plant MARK FILE...` makes them; loading one makes the file MARK. `offer JOB` offers them to the worker's phases, one after the other, and
says what became of each.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.worker import environment
from azaion_daemon.training.worker.progress import ProgressReport


class Hostile:
    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self._mark, "w")


def plant(mark: str, files: list[str]) -> None:
    import numpy as np  # noqa: PLC0415 - heavy
    import torch  # noqa: PLC0415 - heavy

    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".cache":
            with file.open("wb") as target:
                np.save(target, np.array({"hash": Hostile(mark)}, dtype=object), allow_pickle=True)
        else:
            torch.save({"epoch": file.parent.name.isdecimal() and int(file.parent.name), "optimizer": 1, "model": Hostile(mark)}, file)
            torch.load(file, weights_only=False)
            Path(mark).unlink()  # it was there, so a mark that is missing later means something


def offer(job: JobDirectory) -> dict[str, str]:
    spec = job.read_spec()
    environment.prepare(job, spec)
    from azaion_daemon.training.worker import checkpoints, export, prepare, train  # noqa: PLC0415 - after the environment

    report = ProgressReport(job, 1)
    (pair,) = checkpoints.pairs(job.checkpoints)
    ways: dict[str, Callable[[], object]] = {
        "resume": lambda: checkpoints.loads(pair),
        "base": lambda: prepare.run(job, spec, report),
        "replaced": lambda: prepare.run(job, spec.model_copy(update={"model_sha256": "0" * 64}), report),
        "base, when it was checked before": lambda: train._train(job, spec, None),
        "resume, when it was checked before": lambda: train._train(job, spec, pair.last),
        "export": lambda: export.run(job, spec, report),
    }
    said = {}
    for name, way in ways.items():
        try:
            said[name] = repr(way())
        except Exception as error:  # noqa: BLE001 - whatever it is
            said[name] = f"{type(error).__name__}: {error}"
    return said


if __name__ == "__main__":
    if sys.argv[1] == "plant":
        plant(sys.argv[2], sys.argv[3:])
    else:
        print(json.dumps(offer(JobDirectory(Path(sys.argv[2])))))
