"""What a consumer in the field does with a published model: download, join, decrypt, load, detect.

It shares no code with what publishes.
"""

import ast
import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import botocore.exceptions
import botocore.session
import httpx
import numpy as np
import onnxruntime
import yaml
from botocore.config import Config
from numpy.typing import NDArray
from PIL import Image

from azaion_daemon.sandbox import formulas, signed
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.sandbox.scenes import Box, Scene, overlap

_TIMEOUT_S = 30.0
_MIN_OVERLAP = 0.5
_MIN_CONFIDENCE = 0.25
_DETECTIONS = (300, 6)  # per image: left, top, right, bottom in pixels, confidence, class


@dataclass(frozen=True)
class Detection:
    """A shape that the model sees: corners in 0..1 of the image."""

    class_id: int
    confidence: float
    corners: tuple[float, float, float, float]


@dataclass(frozen=True)
class Verdict:
    """What the model makes of known scenes. Shapes have one entry per axis, a name where the axis is free."""

    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    names: dict[int, str]
    known: int
    found: int
    false_alarms: int


@dataclass(frozen=True)
class SignedModel:
    """A model that somebody who is trusted vouches for."""

    serial: int
    onnx: bytes = field(repr=False)


@dataclass(frozen=True)
class Consumer:
    """A device in the field: a user of the platform with its hardware, and the key that all consumers share."""

    api_url: str
    email: str
    hardware: str
    password: str = field(repr=False)
    model_key: str = field(repr=False)
    name: str = "azaion.onnx"
    bucket: str = "models"
    region: str = "us-east-1"

    def download(self) -> bytes:
        """The plaintext of the published model.

        Raises:
            SandboxError: A part cannot be had, or the parts do not decrypt.
        """
        small, cdn_yaml = self._resources((self.bucket, f"{self.name}.small"), ("", "cdn.yaml"))
        return self._decrypt(small + self._object(yaml.safe_load(cdn_yaml), f"{self.name}.big"))

    def download_signed(self, public_key: bytes, *, last_serial: int = 0) -> SignedModel:
        """The published model by its signed manifest, which is believed for this public key (PEM) alone.

        A serial number below `last_serial`, of the last one that was taken, is refused: somebody shows an old release.

        Raises:
            SandboxError: A part cannot be had, or is not what was signed.
        """
        (cdn_yaml,) = self._resources(("", "cdn.yaml"))
        cdn = yaml.safe_load(cdn_yaml)
        manifest = signed.open_manifest(self._object(cdn, f"{self.name}.manifest.json"), public_key)
        if manifest["name"] != self.name or manifest["serial"] < last_serial:
            raise SandboxError(f"the manifest is of release {manifest['serial']} of {manifest['name']}; {last_serial} was there before")
        small = base64.b64decode(manifest["small"]["content"])
        big = self._object(cdn, manifest["big"]["name"])
        for what, content in (("small", small), ("big", big), ("ciphertext", small + big)):
            signed.compare(manifest, what, content)
        plaintext = self._decrypt(small + big)
        signed.compare(manifest, "plaintext", plaintext)
        onnx = plaintext[len(plaintext) - manifest["model"]["size"] :]
        signed.compare(manifest, "model", onnx)
        return SignedModel(manifest["serial"], onnx)

    def _decrypt(self, ciphertext: bytes) -> bytes:
        try:
            return formulas.decrypt(ciphertext, self.model_key)
        except ValueError as error:
            raise SandboxError(f"{self.name} does not decrypt with the model key ({len(ciphertext)} bytes)") from error

    def _resources(self, *wanted: tuple[str, str]) -> list[bytes]:
        """Files of the platform, by folder and name."""
        with httpx.Client(base_url=self.api_url, timeout=_TIMEOUT_S) as platform:
            try:
                answer = platform.post("/login", json={"email": self.email, "password": self.password})
                answer.raise_for_status()
                platform.headers["Authorization"] = f"Bearer {answer.json()['token']}"
                return [self._resource(platform, folder, name) for folder, name in wanted]
            except httpx.HTTPError as error:
                raise SandboxError(f"the consumer gets no answer from the platform: {error}") from error

    def _resource(self, platform: httpx.Client, folder: str, name: str) -> bytes:
        body = {"password": self.password, "hardware": self.hardware, "fileName": name}
        answer = platform.post(f"/resources/get/{folder}", json=body)
        if answer.is_error:
            raise SandboxError(f"the platform does not give {name} to the consumer: {answer.status_code} {answer.text}")
        return formulas.decrypt(answer.content, formulas.api_key(self.email, self.password, self.hardware))

    def _object(self, cdn: dict[str, str], key: str) -> bytes:
        client = botocore.session.get_session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=cdn["host"],
            aws_access_key_id=cdn["downloader_access_key"],
            aws_secret_access_key=cdn["downloader_access_secret"],
            config=Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required"),
        )
        try:
            content: bytes = client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise SandboxError(f"the consumer cannot download {key} from {cdn['host']}: {error}") from error
        finally:
            client.close()
        return content


def digest(model: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(model).hexdigest()


class Model:
    """A model in ONNX Runtime, on the CPU.

    Raises:
        SandboxError: It does not load, or its inputs and outputs are not what consumers read.
    """

    def __init__(self, onnx: bytes) -> None:
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own hierarchy has no common public base
            raise SandboxError(f"ONNX Runtime does not load the model: {error}") from error
        (entry,), (result,) = self._session.get_inputs(), self._session.get_outputs()
        self._input_name: str = entry.name
        self.input_shape: tuple[int | str, ...] = tuple(entry.shape)
        self.output_shape: tuple[int | str, ...] = tuple(result.shape)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.names: dict[int, str] = ast.literal_eval(metadata.get("names", "{}"))
        side = self.input_shape[-1]
        if len(self.input_shape) != 4 or self.input_shape[1] != 3 or not isinstance(side, int):  # noqa: PLR2004 - batch, RGB, height, width
            raise SandboxError(f"the model's input is {self.input_shape}; consumers give [batch, 3, side, side]")
        if self.output_shape[1:] != _DETECTIONS:
            raise SandboxError(
                f"the model's output is {self.output_shape}; consumers read [batch, 300, 6]: was it exported with nms=False?"
            )
        self._side = side
        self._batch = self.input_shape[0] if isinstance(self.input_shape[0], int) else 1

    def detect(self, images: Sequence[bytes]) -> Iterator[list[Detection]]:
        """What is on each image, above the confidence that consumers ask for."""
        for start in range(0, len(images), self._batch):
            batch = images[start : start + self._batch]
            pixels = np.zeros((self._batch, 3, self._side, self._side), np.float32)
            for index, image in enumerate(batch):
                pixels[index] = self._pixels(image)
            (rows,) = self._session.run(None, {self._input_name: pixels})
            for index in range(len(batch)):
                yield [self._detection(row) for row in rows[index] if row[4] >= _MIN_CONFIDENCE]

    def _pixels(self, image: bytes) -> NDArray[np.float32]:
        with Image.open(io.BytesIO(image)) as opened:
            square = opened.convert("RGB").resize((self._side, self._side))
        return np.asarray(square, np.float32).transpose(2, 0, 1) / np.float32(255)

    def _detection(self, row: NDArray[np.float32]) -> Detection:
        left, top, right, bottom = (float(value) / self._side for value in row[:4])
        return Detection(int(row[5]), float(row[4]), (left, top, right, bottom))


def judge(model: Model, scenes: Sequence[Scene]) -> Verdict:
    """Run the model on scenes whose shapes are known, and count those that it finds: right class, overlap of at least a half."""
    known = found = alarms = 0
    for scene, detections in zip(scenes, model.detect([scene.image_jpeg for scene in scenes]), strict=True):
        hits = _matches(scene.boxes, detections)
        known += len(scene.boxes)
        found += hits
        alarms += len(detections) - hits
    return Verdict(model.input_shape, model.output_shape, model.names, known, found, alarms)


def _matches(boxes: Sequence[Box], detections: Sequence[Detection]) -> int:
    """How many boxes have a detection of their own; the surest detections choose first."""
    free = list(boxes)
    for detection in sorted(detections, key=lambda one: -one.confidence):
        fits = [box for box in free if box.class_id == detection.class_id and overlap(box.corners(), detection.corners) >= _MIN_OVERLAP]
        if fits:
            free.remove(max(fits, key=lambda box: overlap(box.corners(), detection.corners)))
    return len(boxes) - len(free)
