"""The whole outside world of the daemon on one machine, and the environment that leads the daemon to it."""

import secrets
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from azaion_daemon.sandbox import consumer
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.sandbox.scenes import write_classes

_FIELD_HARDWARE = "CPU: FieldCPU. GPU: FieldGPU. Memory: 8192. DriveSerial: FIELD1"


# Ultralytics chooses a learning rate by the number of classes, which is 80 slots here, and gathers 64 images a step: fit for thousands of
# images, while a few hundred would need a hundred epochs. With these they take eight (mAP50 0.96 on 220 images from random weights).
TRAINING_OVERRIDES: dict[str, str | float] = {"optimizer": "AdamW", "lr0": 0.002, "nbs": 8, "mosaic": 0.0}


def small_world(validated: int) -> dict[str, dict[str, Any]]:
    """The sections of a configuration that some hundred small images need, of which so many will be validated.

    The gate compares on a few dozen test images, all that there are: a server's default is 50.
    """
    return {
        "ingest": {"min_free_disk": "64MiB"},
        "dataset": {"split_by": "media", "min_free_disk": "64MiB"},
        "trigger": {"new_annotations": validated, "min_total": validated, "quiet_minutes": 0.01, "cooldown_hours": 0},
        "training": {"gpus": "none", "overrides": TRAINING_OVERRIDES},
        "gate": {"min_images": 10},
    }


class World:
    """Broker, object store and platform under one directory, each on its own free port, and a root with a classes.json.

    Raises:
        SandboxError: A part cannot be brought up; the message says what to do.
    """

    stream = "azaion-annotations"

    def __init__(self, directory: Path, *, epochs: int = 10) -> None:
        self.directory = directory.absolute()
        self.root = self.directory / "azaion"
        self.epochs = epochs
        self.model_key = f"model key {secrets.token_urlsafe(24)}"
        self.daemon_user = User("daemon@sandbox.example", 'p#ss: "w ' + secrets.token_urlsafe(6))  # a careless renderer breaks it
        self.field_user = User("field@sandbox.example", secrets.token_urlsafe(12))
        self.broker = Broker(self.directory / "rabbitmq")
        self.store = ObjectStore(self.directory / "swift")
        self.platform = PlatformApi(self.directory / "resources", self.daemon_user, self.field_user)
        self._parts = ExitStack()

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        write_classes(self.root / "classes.json")
        with ExitStack() as parts:
            for part in (self.broker, self.store, self.platform):
                parts.enter_context(part)
            self.broker.create_stream(self.stream)
            self.platform.serve_cdn(
                host=self.store.endpoint,
                downloader=(self.store.downloader.key, self.store.downloader.secret),
                uploader=(self.store.uploader.key, self.store.uploader.secret),
            )
            self._parts = parts.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._parts.close()

    def consumer(self) -> consumer.Consumer:
        """A device in the field that is registered with the platform and knows the model key."""
        return consumer.Consumer(
            api_url=self.platform.url,
            email=self.field_user.email,
            hardware=_FIELD_HARDWARE,
            password=self.field_user.password,
            model_key=self.model_key,
            bucket=self.store.bucket,
            region=self.store.region,
        )

    def environment(self) -> dict[str, str]:
        """Every variable of the daemon's `.env`, with a training that two CPU cores do in a minute or two."""
        return {
            "AZAION_API_URL": self.platform.url,
            "AZAION_API_EMAIL": self.daemon_user.email,
            "AZAION_API_PASSWORD": self.daemon_user.password,
            "AZAION_MODEL_KEY": self.model_key,
            "RABBITMQ_HOST": self.broker.host,
            "RABBITMQ_PORT": str(self.broker.port),
            "RABBITMQ_USER": self.broker.consumer.user,
            "RABBITMQ_PASSWORD": self.broker.consumer.password,
            "RABBITMQ_QUEUE_NAME": self.stream,
            "AZAION_ROOT_DIR": str(self.root),
            "AZAION_DATA_DIR": "data",
            "AZAION_DATA_SEED_DIR": "data-seed",
            "AZAION_DATA_DELETED_DIR": "data_deleted",
            "TRAINING_MODEL": "yolo26n.yaml",
            "TRAINING_EPOCHS": str(self.epochs),
            "TRAINING_BATCH_SIZE": "8",
            "TRAINING_IMGSZ": "128",
            "TRAINING_SAVE_PERIOD": "5",
            "TRAINING_WORKERS": "0",
            "EXPORT_ONNX_IMGSZ": "128",
        }

    def dotenv(self) -> str:
        """The environment as a `.env` file: single quotes, in which neither a shell nor python-dotenv reads anything."""
        return "".join(f"{name}={_quoted(name, value)}\n" for name, value in self.environment().items())


def _quoted(name: str, value: str) -> str:
    if "'" in value or "\\" in value or "\n" in value:
        raise ValueError(f"{name} holds a character that a shell and python-dotenv read differently")
    return f"'{value}'"
