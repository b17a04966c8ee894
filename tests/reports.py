"""Facts of trainings for reports: an ordinary one, and one in which everything that comes from outside is as bad as it can be."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from azaion_daemon.training.evaluation import F1, ClassMetrics, Confusion, Curves, Evaluation, Metrics, PrecisionRecall
from azaion_daemon.training.history import Attempt, EpochRecord
from azaion_daemon.training.jobs import JobSpec
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.worker.reporting.facts import ClassCounts, DatasetDocument, Facts, Remark
from azaion_daemon.training.worker.reporting.samples import Box, Sample, Samples

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCRIPT = "<script>document.title='taken'</script>"
HOSTILE = (
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "<!--/verdicts--></main>",
    "W" * 200,
    "Гусенична вантажівка з причепом (Wint) " * 3,
    "\u202egnp.exe",
)


def spec(**changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "id": "20260301T120000Z",
        "dataset_id": "d" * 64,
        "dataset_name": "azaion-2026-03-01",
        "data_yaml": Path("/azaion/datasets/azaion-2026-03-01/data.yaml"),
        "class_names": ("car", "truck", "boat"),
        "model": "yolo26n.yaml",
        "epochs": 3,
        "batch_size": 4,
        "imgsz": 128,
        "save_period": 1,
        "workers": 0,
        "export_imgsz": 128,
        "gpu_locks": Path("/azaion/state/gpus"),
    }
    return JobSpec(**(values | changes))


def metrics(names: tuple[str, ...], map50_95: float = 0.5) -> Metrics:
    classes = tuple(ClassMetrics(name=name, images=3, instances=5, map50=0.7, map50_95=map50_95) for name in names)
    return Metrics(images=20, instances=5 * len(names), map50=0.7, map50_95=map50_95, classes=classes)


def epochs(count: int, attempts: int = 1) -> tuple[EpochRecord, ...]:
    return tuple(
        EpochRecord(
            epoch=number,
            attempt=1 + (number - 1) * attempts // count,
            finished=NOW + timedelta(minutes=number),
            seconds=60.0,
            losses={"box_loss": 3 / number, "cls_loss": None if number == 2 else 2 / number},
            val_losses={"box_loss": 3.1 / number},
            map50=1 - 0.9 / number,
            map50_95=0.8 - 0.7 / number,
            learning_rate=0.01 / number,
        )
        for number in range(1, count + 1)
    )


def curves(names: tuple[str, ...]) -> Curves:
    steps = tuple(number / 100 for number in range(101))
    return Curves(
        pr=PrecisionRecall(recall=steps, precision={name: tuple(1 - x * x for x in steps) for name in names}),
        f1=F1(confidence=steps, f1={name: tuple(4 * x * (1 - x) for x in steps) for name in names}),
        confusion=Confusion(
            labels=(*names, "background"),
            matrix=tuple(
                tuple(40 if row == column else (row * column) % 3 for column in range(len(names) + 1)) for row in range(len(names) + 1)
            ),
        ),
    )


def dataset(names: tuple[str, ...], **changes: Any) -> DatasetDocument:
    counts = {"train": 70, "valid": 20, "test": 10}
    values: dict[str, Any] = {
        "id": "d" * 64,
        "name": "azaion-2026-03-01",
        "created": NOW,
        "images": counts,
        "objects": counts,
        "classes": [ClassCounts(name=name, images=counts, objects=counts) for name in names],
    }
    return DatasetDocument(**(values | changes))


def sample(names: tuple[str, ...], name: str = "a.jpg", boxes: int = 3) -> Sample:
    file = io.BytesIO()
    Image.new("RGB", (96, 64), (90, 110, 80)).save(file, "JPEG")
    corners = [(0.1 + 0.8 * number / boxes, 0.2, 0.1 + 0.8 * (number + 0.7) / boxes, 0.6) for number in range(boxes)]
    truth = [Box(names[number % len(names)], where, matched=number % 2 == 0) for number, where in enumerate(corners)]
    predicted = [Box(names[(number + 1) % len(names)], where, 0.5, matched=number % 2 == 0) for number, where in enumerate(corners)]
    return Sample(name, file.getvalue(), 96, 64, tuple(truth), tuple(predicted))


def facts(names: tuple[str, ...] = ("car", "truck", "boat"), **changes: Any) -> Facts:
    """As of an ordinary training of three epochs that was the first one."""
    values: dict[str, Any] = {
        "spec": spec(class_names=names),
        "made": NOW,
        "metrics": metrics(names),
        "evaluation": None,
        "comparison": None,
        "dataset": dataset(names),
        "curves": curves(names),
        "epochs": epochs(3),
        "attempts": (),
        "attempt": 1,
        "seconds": {Phase.PREPARE: 1.5, Phase.TRAIN: 3725.0, Phase.EXPORT: 61.0, Phase.EVALUATE: 200_000.0},
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "hardware": "CPU: 2 cores",
    }
    return Facts(**(values | changes))


def hostile() -> tuple[Facts, Samples]:
    """Eighty classes with such names, many epochs and starts, an evaluation with a drop in every class, and samples full of boxes."""
    names = tuple(f"{HOSTILE[number % len(HOSTILE)]} {number}" for number in range(80))
    mean = metrics(names, 0.3)
    attempt = Attempt(
        number=1, outcome=Outcome.INFRASTRUCTURE, reason=SCRIPT * 5, phase=None, epoch=0, batch_size=4, gpus=("GPU-" + "f" * 36,), ended=NOW
    )
    all_facts = facts(
        names,
        spec=spec(
            class_names=names, dataset_name=SCRIPT, model="/azaion/models/" + "m" * 150 + ".pt", overrides={SCRIPT: [SCRIPT, "v" * 300]}
        ),
        metrics=mean,
        evaluation=Evaluation(
            rival="e" * 64, images=20, digest="0", candidate=mean, current=metrics(names, 0.6), left_out={SCRIPT: 3, "seen": 4}
        ),
        dataset=dataset(
            names,
            name=SCRIPT,
            excluded={SCRIPT: 12, "label_outside": 3},
            remarks=(Remark(code="x", what="w" * 300, remedy=SCRIPT),),
        ),
        epochs=epochs(300, attempts=12),
        attempts=(attempt,) * 12,
        attempt=13,
        versions={SCRIPT: "9" * 200},
        hardware="GPU " * 60,
        problems=(f"{SCRIPT} cannot be read",),
    )
    shown = tuple(sample(names, f"{HOSTILE[number % len(HOSTILE)]}.jpg", boxes=3 + 40 * (number % 2)) for number in range(12))
    return all_facts, Samples(shown, 36, 5000, 0.31)
