"""A training under the daemon and the same by Ultralytics alone, by turns; what the daemon takes meanwhile, and how soon it begins.

python -m tests.benchmarks.training [--quick]

alone     a process that calls YOLO(...).train() with the arguments that the job's worker gave, then export() and val() as the worker does
daemon    the real daemon, connected to a real broker: the job that its trigger (later: an operator) makes of the same annotations

They take turns (A B B A), after one job that is not counted and that says which arguments the worker gives. Ratios are taken within a turn
of four. What is compared:

training  from before train() to its best model being delivered; the worker keeps checkpoints and tells its progress meanwhile. The target.
epoch     the median epoch, by the library's own clock
whole     from the start of the process to its end; the worker also checks weights and dataset before, loads what it has exported to prove
          it, and compares with the current model where there is one, so this is no like for like, and no target
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.scenario import Fate, scenario
from azaion_daemon.sandbox.world import TRAINING_OVERRIDES
from tests.benchmarks._common import at_most, finish, progress
from tests.benchmarks._training_cases import Like, Trained, alone, under_daemon
from tests.harness import Site

MOST_TIMES_ALONE = 1.03
STREAM = "azaion-annotations-training"
TURN = "ABBA"


@dataclass(frozen=True)
class Scale:
    """How much is trained, and how often."""

    annotations: int
    imgsz: int
    epochs: int
    turns: int


# An epoch takes some seconds here and many minutes on a server: what an epoch costs beside its batches (a checkpoint is copied and loaded
# once) weighs the more, the shorter it is.
FULL = Scale(annotations=360, imgsz=224, epochs=4, turns=2)
QUICK = Scale(annotations=120, imgsz=64, epochs=3, turns=1)

Turn = dict[str, list[Trained]]


def ratio(turns: Sequence[Turn], of: Callable[[Trained], float]) -> float:
    """Daemon to alone, the median over the turns."""
    means = [{name: statistics.mean(of(one) for one in runs) for name, runs in turn.items()} for turn in turns]
    return statistics.median(turn["daemon"] / turn["alone"] for turn in means)


def prepared(work: Path, broker: Broker, scale: Scale) -> tuple[Site, int]:
    """A site whose annotations are on their way, and how many of them will be validated."""
    broker.create_stream(STREAM)
    site = Site(work / "site", broker, STREAM)
    shift = scenario(scale.annotations, seed=3, size=scale.imgsz)
    validated = len(shift.names(Fate.VALIDATED))
    site.environment |= {
        "TRAINING_EPOCHS": str(scale.epochs), "TRAINING_IMGSZ": str(scale.imgsz), "EXPORT_ONNX_IMGSZ": str(scale.imgsz),
        "TRAINING_SAVE_PERIOD": "1",
    }  # fmt: skip
    del site.environment["AZAION_MODEL_KEY"]  # nothing is published
    site.overrides["trigger"] = {"new_annotations": validated, "min_total": validated, "quiet_minutes": 0.01, "cooldown_hours": 0}
    site.overrides["training"] |= {"overrides": TRAINING_OVERRIDES}
    site.overrides["gate"] = {"min_images": 1, "min_map50_95": 0}
    site.prepare()
    site.publish(shift.messages)
    return site, validated


def measure(scale: Scale) -> list[Turn]:
    """The turns, each with the runs of both."""
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-training-") as directory, Broker(Path(directory) / "broker") as broker:
        work = Path(directory)
        site, validated = prepared(work, broker, scale)
        with site.daemon() as daemon:
            progress(f"{validated} annotations are published; the first job, which is not counted, is formed by its trigger")
            first, like = under_daemon(site, daemon, ask=False)
            progress(f"not counted: {said(first)}")
            for number in range(scale.turns):
                turn: Turn = {"alone": [], "daemon": []}
                for index, letter in enumerate(TURN):
                    name = {"A": "alone", "B": "daemon"}[letter]
                    run = alone(like, work / f"alone-{number}-{index}") if letter == "A" else _another(site, daemon, like)
                    turn[name].append(run)
                    progress(f"turn {number}, {name}: {said(run)}")
                turns.append(turn)
    return turns


def _another(site: Site, daemon: RunningDaemon, like: Like) -> Trained:
    run, again = under_daemon(site, daemon, ask=True)
    assert again.spec.dataset_id == like.spec.dataset_id  # the same images
    return run


def said(run: Trained) -> str:
    return f"training {run.train_s:.1f} s, an epoch {run.epoch_s:.2f} s, whole {run.whole_s:.1f} s, mAP50 {run.map50:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller training, one turn")
    scale = QUICK if parser.parse_args().quick else FULL
    turns = measure(scale)
    rows: dict[str, Callable[[Trained], float]] = {
        "training": lambda run: run.train_s,
        "epoch": lambda run: run.epoch_s,
        "whole": lambda run: run.whole_s,
    }
    ratios = {name: ratio(turns, of) for name, of in rows.items()}
    print(f"\n{'seconds (median of all runs)':32}{'alone':>10}{'daemon':>10}{'ratio':>8}")
    medians = {
        name: {case: statistics.median(of(run) for turn in turns for run in turn[case]) for case in turns[0]} for name, of in rows.items()
    }
    for name, values in medians.items():
        print(f"  {name:30}{values['alone']:>10.2f}{values['daemon']:>10.2f}{ratios[name]:>8.3f}")
    runs = [run for turn in turns for run in turn["daemon"]]
    first_batch_s = statistics.median(run.to_first_batch_s for run in runs)
    memory = {f"daemon_{name}_mb": statistics.median(run.memory_mb[name] for run in runs) for name in runs[0].memory_mb}
    print(
        f"\nfrom the trigger to the first batch {first_batch_s:.1f} s; the daemon meanwhile "
        + ", ".join(
            f"{name.removeprefix('daemon_').removesuffix('_mb').replace('_', ' ')} {value:.0f} MB" for name, value in memory.items()
        )
    )
    finish(
        "training",
        [at_most("training_x_alone", ratios["training"], MOST_TIMES_ALONE)],
        {
            **asdict(scale),
            "cores": len(os.sched_getaffinity(0)),
            "epoch_x_alone": ratios["epoch"],
            "whole_x_alone": ratios["whole"],
            **{f"{case}_{name}_s": value for name, values in medians.items() for case, value in values.items()},
            "trigger_to_first_batch_s": first_batch_s,
            **memory,
        },
    )


if __name__ == "__main__":
    main()
