"""What tests of the whole daemon share: a site to run it on, and the tree that a scenario must leave."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azaion_daemon.sandbox.annotations import Message
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import Operator, RunningDaemon
from azaion_daemon.sandbox.scenario import Fate, Scenario
from azaion_daemon.sandbox.scenes import Box, write_classes

NEVER = {"new_annotations": 1_000_000, "min_total": 1_000_000}
"""A trigger that does not fire."""
NOBODY = "http://127.0.0.1:9"
"""Where nothing listens."""
HOMES = {Fate.VALIDATED: "data", Fate.SEED: "data-seed", Fate.DELETED: "data_deleted"}


class Site:
    """A root directory and the configuration of a daemon that consumes one stream of a broker."""

    def __init__(self, directory: Path, broker: Broker, stream: str) -> None:
        self.root = directory / "azaion"
        self.operator = Operator(directory)
        self.environment = {
            "AZAION_API_URL": NOBODY,
            "AZAION_API_EMAIL": "daemon@example.org",
            "AZAION_API_PASSWORD": "secret12",
            "AZAION_MODEL_KEY": "the model key",
            "RABBITMQ_HOST": broker.host,
            "RABBITMQ_PORT": str(broker.port),
            "RABBITMQ_USER": broker.consumer.user,
            "RABBITMQ_PASSWORD": broker.consumer.password,
            "RABBITMQ_QUEUE_NAME": stream,
            "AZAION_ROOT_DIR": str(self.root),
            "AZAION_DATA_DIR": "data",
            "AZAION_DATA_SEED_DIR": "data-seed",
            "AZAION_DATA_DELETED_DIR": "data_deleted",
            "TRAINING_MODEL": "yolo26n.yaml",
            "TRAINING_EPOCHS": "1",
            "TRAINING_BATCH_SIZE": "8",
            "TRAINING_IMGSZ": "64",
            "TRAINING_SAVE_PERIOD": "1",
            "TRAINING_WORKERS": "0",
            "EXPORT_ONNX_IMGSZ": "64",
        }
        self.overrides: dict[str, dict[str, Any]] = {
            "trigger": dict(NEVER),
            "ingest": {"min_free_disk": "1MiB"},
            "dataset": {"min_images": 1, "min_objects": 1, "min_free_disk": "1MiB"},
            "training": {"gpus": "none"},
        }
        self._annotator = Annotator(broker, stream)

    def prepare(self) -> None:
        """Render the configuration, make the root, put classes.json there."""
        self.configure()
        self.operator.command("init")
        write_classes(self.root / "classes.json")

    def configure(self, environment: Mapping[str, str] | None = None) -> None:
        """Render the configuration, with some variables changed."""
        values = {**self.environment, **(environment or {})}
        self.operator.configure("".join(f"{name}='{value}'\n" for name, value in values.items()), self.overrides)

    def daemon(self) -> RunningDaemon:
        """A context in which the daemon runs."""
        return self.operator.daemon()

    def publish(self, messages: list[Message], duplicates: float = 0.0) -> None:
        """Publish and wait for the broker's confirmation."""
        asyncio.run(self._annotator.publish(messages, duplicates))

    def tree(self) -> dict[str, str]:
        """Every file of the annotation tree and its SHA-256."""
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for home in HOMES.values()
            for path in sorted((self.root / home).rglob("*"))
            if path.is_file()
        }

    def left_over(self) -> list[str]:
        """Files that should be gone when nothing is under way."""
        return [path.name for path in (self.root / "state" / "incoming").iterdir()]


def expected_tree(shift: Scenario) -> dict[str, str]:
    """The files that a scenario must leave, and their SHA-256."""
    files: dict[str, bytes] = {}
    for name, truth in shift.truth.items():
        home = HOMES[truth.fate]
        files[f"{home}/images/{name}.jpg"] = truth.scene.image_jpeg
        files[f"{home}/labels/{name}.txt"] = label_text(truth.boxes)
        if truth.pending is not None:
            files[f"data-seed/labels/{name}.txt"] = label_text(truth.pending)
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def label_text(boxes: tuple[Box, ...]) -> bytes:
    """The label file of these boxes."""
    return "".join(f"{box.class_id} {box.cx} {box.cy} {box.width} {box.height}\n" for box in boxes).encode()


def ingested(shift: Scenario) -> Mapping[str, int]:
    """The counts that a status must show once everything is in the tree."""
    return {fate.value: len(shift.names(fate)) for fate in Fate}
