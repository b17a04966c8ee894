"""The sections of config.yaml as frozen models.

Every field says how a changed value takes effect: `live` (at the next reload), `next_job` (when the next training job is formed) or
`restart`. The reference of every setting, with the reasons, is `config.template.yaml`.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    field_validator,
    model_validator,
)

from azaion_daemon.cron import check_expression, zone


class Reload(StrEnum):
    """How a changed value takes effect."""

    LIVE = "live"
    NEXT_JOB = "next_job"
    RESTART = "restart"


LIVE, NEXT_JOB, RESTART = Reload.LIVE, Reload.NEXT_JOB, Reload.RESTART

_MIB = 1 << 20


def _one_component(name: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError("must be one path component, without a slash")
    return name


def _no_number(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError("must be beginning, end, an offset of 0 or more, or a time with a time zone")  # noqa: TRY004 - pydantic's way
    return value


def _cron(expression: str) -> str:
    check_expression(expression)
    return " ".join(expression.split())


def _time_zone(name: str) -> str:
    zone(name)
    return name


Schedule = Annotated[str, AfterValidator(_cron)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Moment = Annotated[AwareDatetime, BeforeValidator(_no_number)]
DirectoryName = Annotated[str, AfterValidator(_one_component)]


class Section(BaseModel):
    """A mapping in config.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ApiSettings(Section):
    """The platform's REST API."""

    url: Annotated[HttpUrl, LIVE]
    email: Annotated[str, Field(min_length=1), LIVE]
    password: Annotated[SecretStr, Field(min_length=1), LIVE]
    ca_file: Annotated[Path | None, LIVE] = None
    timeout_s: Annotated[float, Field(gt=0, le=600), LIVE] = 30.0
    hardware: Annotated[SecretStr | None, RESTART] = None
    cdn_folder: Annotated[str, LIVE] = ""
    cdn_file: Annotated[str, Field(min_length=1), LIVE] = "cdn.yaml"

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: HttpUrl) -> HttpUrl:
        if url.username or url.password:
            raise ValueError("must not hold a user or a password: these are email and password")
        return url


class StreamSettings(Section):
    """The RabbitMQ stream that annotations arrive on."""

    host: Annotated[str, Field(min_length=1), LIVE]
    port: Annotated[int, Field(ge=1, le=65535), LIVE]
    user: Annotated[str, Field(min_length=1), LIVE]
    password: Annotated[SecretStr, Field(min_length=1), LIVE]
    name: Annotated[str, Field(min_length=1, max_length=255), RESTART]
    virtual_host: Annotated[str, Field(min_length=1), LIVE] = "/"
    heartbeat_s: Annotated[int, Field(ge=1, le=600), LIVE] = 10
    initial_credit: Annotated[int, Field(ge=1, le=100), LIVE] = 2
    queue_bytes: Annotated[ByteSize, Field(ge=_MIB), RESTART] = ByteSize(32 * _MIB)
    start_from: Annotated[Literal["beginning", "end"] | Annotated[int, Field(ge=0)] | Moment, RESTART] = "beginning"
    verify_timeout_s: Annotated[float, Field(gt=0, le=600), LIVE] = 20.0
    on_mismatch: Annotated[Literal["stop", "continue"], LIVE] = "stop"
    tls: Annotated[bool, LIVE] = False
    ca_file: Annotated[Path | None, LIVE] = None
    client_cert_file: Annotated[Path | None, LIVE] = None
    client_key_file: Annotated[Path | None, LIVE] = None

    @model_validator(mode="after")
    def _tls_files(self) -> Self:
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise ValueError("client_cert_file and client_key_file must be given together")
        if not self.tls and (self.ca_file is not None or self.client_cert_file is not None):
            raise ValueError("ca_file, client_cert_file and client_key_file must not be given without tls: true")
        return self


class DirectorySettings(Section):
    """Where the annotation tree lies."""

    root: Annotated[Path, RESTART]
    data: Annotated[DirectoryName, RESTART]
    data_seed: Annotated[DirectoryName, RESTART]
    data_deleted: Annotated[DirectoryName, RESTART]

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: Path) -> Path:
        if not root.is_absolute():
            raise ValueError("must be an absolute path")
        return root

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        reserved = {"state", "datasets", "models", "quarantine", "classes.json"}
        names = [self.data, self.data_seed, self.data_deleted]
        if len(set(names)) != len(names) or reserved & set(names):
            raise ValueError(f"data, data_seed and data_deleted must differ and not be one of {sorted(reserved)}")
        return self


class IngestSettings(Section):
    """How messages become files."""

    batch_messages: Annotated[int, Field(ge=1, le=65536), LIVE] = 256
    batch_bytes: Annotated[ByteSize, Field(ge=_MIB), LIVE] = ByteSize(64 * _MIB)
    batch_delay_s: Annotated[float, Field(ge=0, le=10), LIVE] = 0.05
    threads: Annotated[int, Field(ge=1, le=64), RESTART] = 4
    sync_interval_s: Annotated[float, Field(ge=0.05, le=300), LIVE] = 5.0
    min_free_disk: Annotated[ByteSize, LIVE] = ByteSize(2048 * _MIB)
    decode_images: Annotated[bool, LIVE] = True
    max_image_bytes: Annotated[ByteSize, Field(ge=1024), LIVE] = ByteSize(64 * _MIB)
    max_image_pixels: Annotated[int, Field(ge=1), LIVE] = 200_000_000
    image_extensions: Annotated[tuple[str, ...], Field(min_length=1), LIVE] = (
        "jpg",
        "jpeg",
        "png",
        "bmp",
        "webp",
        "tif",
        "tiff",
    )

    @field_validator("image_extensions")
    @classmethod
    def _plain_extensions(cls, extensions: tuple[str, ...]) -> tuple[str, ...]:
        for number, extension in enumerate(extensions, 1):
            if not (extension.isascii() and extension.isalnum() and extension.islower()) or extension == "txt":
                raise ValueError(f"must be lower-case letters and digits without a dot, and not txt; number {number} is not")
        return extensions


class SplitSettings(Section):
    """The shares of a dataset's parts, in per cent of its images."""

    train: Annotated[int, Field(ge=1, le=98), NEXT_JOB] = 70
    valid: Annotated[int, Field(ge=1, le=98), NEXT_JOB] = 20
    test: Annotated[int, Field(ge=1, le=98), NEXT_JOB] = 10

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.train + self.valid + self.test != 100:  # noqa: PLR2004 - per cent
            raise ValueError("train, valid and test must add up to 100")
        return self


class DatasetSettings(Section):
    """How a dataset is formed."""

    split: SplitSettings = SplitSettings()
    split_by: Annotated[Literal["media", "name"], NEXT_JOB] = "media"
    min_images: Annotated[int, Field(ge=1), NEXT_JOB] = 100
    min_objects: Annotated[int, Field(ge=1), NEXT_JOB] = 100
    require_every_class: Annotated[bool, NEXT_JOB] = False
    min_free_disk: Annotated[ByteSize, NEXT_JOB] = ByteSize(4096 * _MIB)
    images: Annotated[Literal["linked", "resized"], NEXT_JOB] = "linked"
    jpeg_quality: Annotated[int, Field(ge=1, le=100), NEXT_JOB] = 90
    resized_cache: Annotated[ByteSize, LIVE] = ByteSize(20 * 1024 * _MIB)


class TriggerSettings(Section):
    """When a training job is due."""

    new_annotations: Annotated[int | None, Field(ge=1), LIVE] = 1000
    min_total: Annotated[int, Field(ge=1), LIVE] = 1000
    quiet_minutes: Annotated[float, Field(ge=0, le=7 * 24 * 60), LIVE] = 15.0
    max_wait_hours: Annotated[float, Field(ge=0, le=365 * 24), LIVE] = 12.0
    cooldown_hours: Annotated[float, Field(ge=0, le=365 * 24), LIVE] = 1.0
    schedule: Annotated[Schedule | None, LIVE] = None
    schedule_timezone: Annotated[TimeZone, LIVE] = "UTC"


class TrainingSettings(Section):
    """What Ultralytics is asked to do."""

    model: Annotated[str, Field(pattern=r"^.+\.(pt|yaml)$"), NEXT_JOB]
    epochs: Annotated[int, Field(ge=1, le=100_000), NEXT_JOB]
    batch_size: Annotated[int, Field(ge=1, le=4096), NEXT_JOB]
    imgsz: Annotated[int, Field(ge=32, le=8192, multiple_of=32), NEXT_JOB]
    save_period: Annotated[int, Field(ge=1), NEXT_JOB]
    workers: Annotated[int, Field(ge=0, le=256), NEXT_JOB]
    gpus: Annotated[Literal["auto", "none"] | tuple[str, ...], LIVE] = "auto"
    gpus_per_job: Annotated[int, Field(ge=1, le=64), NEXT_JOB] = 1
    max_parallel_jobs: Annotated[int, Field(ge=1, le=64), LIVE] = 1
    max_attempts: Annotated[int, Field(ge=1, le=100), NEXT_JOB] = 5
    start_from: Annotated[Literal["base", "current"], NEXT_JOB] = "base"
    seed: Annotated[int, Field(ge=0), NEXT_JOB] = 0
    deterministic: Annotated[bool, NEXT_JOB] = True
    nice: Annotated[int, Field(ge=0, le=19), NEXT_JOB] = 10
    overrides: Annotated[dict[str, Any], NEXT_JOB] = {}

    @field_validator("overrides")
    @classmethod
    def _not_ours(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        ours = {
            "batch", "data", "device", "epochs", "exist_ok", "imgsz", "mode", "model", "name", "project", "resume",
            "save", "save_dir", "save_period", "seed", "deterministic", "task", "workers",
        }  # fmt: skip
        if clash := sorted(ours & set(overrides)):
            raise ValueError(f"{', '.join(clash)}: the daemon sets these itself; use the keys of this section")
        return overrides


class ExportSettings(Section):
    """The ONNX that consumers load."""

    imgsz: Annotated[int, Field(ge=32, le=8192, multiple_of=32), NEXT_JOB]
    batch: Annotated[int, Field(ge=1, le=1024), NEXT_JOB] = 4


class GateSettings(Section):
    """What a trained model must reach to become the current one. mAPs and their drops are 0..1."""

    min_images: Annotated[int, Field(ge=1), LIVE] = 50
    max_images: Annotated[int, Field(ge=1), LIVE] = 5000
    min_map50_95: Annotated[float, Field(ge=0, le=1), LIVE] = 0.05
    max_drop: Annotated[float, Field(ge=0, le=1), LIVE] = 0.0
    max_class_drop: Annotated[float, Field(ge=0, le=1), LIVE] = 0.1
    min_class_instances: Annotated[int, Field(ge=1), LIVE] = 50

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_images < self.min_images:
            raise ValueError("max_images must not be below min_images: every model would be held")
        return self


class PublishSettings(Section):
    """Where and under which names a model is published."""

    model_key: Annotated[SecretStr | None, LIVE] = None
    name: Annotated[DirectoryName, RESTART] = "azaion.onnx"
    bucket: Annotated[str, Field(min_length=1), LIVE] = "models"
    folder: Annotated[str, Field(min_length=1), LIVE] = "models"
    cdn_credentials_file: Annotated[Path | None, LIVE] = None
    cdn_region: Annotated[str, LIVE] = "us-east-1"
    cdn_ca_file: Annotated[Path | None, LIVE] = None
    keep_versions: Annotated[int, Field(ge=2), LIVE] = 10
    signing_key_file: Annotated[Path | None, RESTART] = None

    @field_validator("model_key")
    @classmethod
    def _empty_is_none(cls, key: SecretStr | None) -> SecretStr | None:
        return key if key is not None and key.get_secret_value() else None


class RetentionSettings(Section):
    """How long datasets and job directories are kept that nothing refers to."""

    datasets_keep: Annotated[int, Field(ge=1), LIVE] = 10
    datasets_keep_days: Annotated[float, Field(ge=0, le=36_500), LIVE] = 30.0
    models_keep: Annotated[int, Field(ge=1), LIVE] = 10
    models_keep_days: Annotated[float, Field(ge=0, le=36_500), LIVE] = 90.0
    jobs_keep: Annotated[int, Field(ge=1), LIVE] = 20
    jobs_keep_days: Annotated[float, Field(ge=0, le=36_500), LIVE] = 90.0


class LogSettings(Section):
    """What is logged, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], LIVE] = "info"
    format: Annotated[Literal["auto", "json", "pretty"], RESTART] = "auto"


class MetricsSettings(Section):
    """Where Prometheus reads metrics."""

    listen: Annotated[str | None, RESTART] = None

    @field_validator("listen")
    @classmethod
    def _possible(cls, listen: str | None) -> str | None:
        found = None if listen is None else re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})", listen)
        if listen is not None and (found is None or not 1 <= int(found[2]) <= 65535):  # noqa: PLR2004 - the highest port
            raise ValueError("must be an address and a port between 1 and 65535, such as 127.0.0.1:9464 or [::1]:9464")
        return listen

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port; None when no metrics are served."""
        if self.listen is None:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)
