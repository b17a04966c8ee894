"""`azaion-daemon demo`: the main job with real parts on this machine, from annotators drawing boxes to a consumer that finds the shapes.

The daemon is the unmodified one, run as an operator would, through its commands. What it says and keeps is looked at from outside.
"""

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from azaion_daemon.errors import AzaionError
from azaion_daemon.sandbox import consumer
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.operator import Operator, RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.sandbox.scenario import Fate, Scenario, scenario
from azaion_daemon.sandbox.scenes import draw_scene
from azaion_daemon.sandbox.world import TRAINING_OVERRIDES, World

ANNOTATIONS = 360
_SEED = 7
_UNSEEN = 60
_UNSEEN_SEED = 1_000_000_000
_DUPLICATES = 0.05
_LEAST_MAP50 = 0.5
_LEAST_FOUND = 0.5
_INGEST_LIMIT_S = 120.0
_TRAIN_LIMIT_S = 900.0
_QUIET_MINUTES = 0.01
_OVERRIDES: dict[str, Any] = {
    "ingest": {"min_free_disk": "64MiB"},
    "dataset": {"split_by": "media", "min_free_disk": "64MiB"},
    "training": {"gpus": "none", "overrides": TRAINING_OVERRIDES},
}


def run_demo(keep: Path | None) -> int:
    """Run the demo and print its outcome, as one JSON object, on the last line of stdout; the process's exit status."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything is stopped
    directory = keep or Path(tempfile.mkdtemp(prefix="azaion-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        outcome = Demo(directory, Screen()).run()
    except AzaionError as error:
        print(f"\nThe demo failed: {error}\nEverything is kept in {directory}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        outcome = None
    if keep is None:
        shutil.rmtree(directory)
    if outcome is None:
        return 130
    print(json.dumps({"demo": "ok", **outcome, "seconds": round(time.monotonic() - started, 1)}))
    return 0


class Screen:
    """What a person sees: a line a step, and under it, on a terminal, how far it is."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._started = time.monotonic()
        self._last = ""

    def step(self, text: str) -> None:
        """Something begins."""
        self._write(f"\n{self._clock()} {text}\n")

    def detail(self, text: str) -> None:
        """Something to know about the step."""
        self._write(f"        {text}\n")

    def progress(self, text: str) -> None:
        """How far the step is."""
        if self._live:
            self._write(f"\r\033[K        {text}", transient=True)
        elif text != self._last:
            self._write(f"        {text}\n")
        self._last = text

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"[{seconds // 60}:{seconds % 60:02d}]"

    def _write(self, text: str, *, transient: bool = False) -> None:
        clear = "\r\033[K" if self._live and not transient and self._last else ""
        print(clear + text, end="", file=sys.stderr, flush=True)
        if not transient:
            self._last = ""


class Demo:
    """One run, in a directory of its own."""

    def __init__(self, directory: Path, screen: Screen) -> None:
        self._directory = directory
        self._screen = screen
        self._operator = Operator(directory)

    def run(self) -> dict[str, Any]:
        """Run everything; what came of it.

        Raises:
            SandboxError: Something did not happen as it should; the message says what.
        """
        say = self._screen
        say.step("Starting a RabbitMQ node, an S3 object store and the platform's API on this machine")
        with World(self._directory) as world:
            say.detail(f"stream {world.stream} on port {world.broker.port}, S3 at {world.store.endpoint}, API at {world.platform.url}")
            shift = scenario(ANNOTATIONS, _SEED)
            self._configure(world, shift)
            say.step("Starting the daemon")
            say.detail(f"azaion-daemon run, which logs to {self._operator.log}")
            with self._operator.daemon() as daemon:
                self._annotate(world, shift, daemon)
                status = self._train(daemon)
                verified = self._verify_tree(world, shift)
                verdict, sha256 = self._consume(world, status)
                say.step("Stopping the daemon")
                say.detail(f"it took {daemon.stop():.1f} s")
        current = status["models"]["current"]
        self._summarise(world, status, verdict)
        return {
            "annotations": len(shift.truth),
            "dataset": status["training"]["jobs"][-1]["dataset"],
            "map50": round(current["map50"], 4),
            "model_sha256": sha256,
            "published": status["releases"][-1]["state"] == "published",
            "verified": verified,
        }

    def _configure(self, world: World, shift: Scenario) -> None:
        self._screen.step("Rendering the configuration and making the root directory")
        validated = len(shift.names(Fate.VALIDATED))
        trigger = {"new_annotations": validated, "min_total": validated, "quiet_minutes": _QUIET_MINUTES}
        self._operator.configure(world.dotenv(), {**_OVERRIDES, "trigger": trigger})
        self._screen.detail("azaion-daemon config render --env-file .env")
        self._operator.command("init")
        self._screen.detail("azaion-daemon init")

    def _annotate(self, world: World, shift: Scenario, daemon: RunningDaemon) -> None:
        say = self._screen
        images = len(shift.truth)
        say.step(f"Annotators draw boxes on {images} images; {_DUPLICATES:.0%} of {len(shift.messages)} messages are sent twice")
        annotator = Annotator(world.broker, world.stream)
        published: list[int] = []
        failed: list[BaseException] = []

        def publish() -> None:
            try:
                published.append(asyncio.run(annotator.publish(shift.messages, _DUPLICATES)))
            except AzaionError as error:
                failed.append(error)

        thread = threading.Thread(target=publish, name="annotator")
        thread.start()
        expected = {fate.value: len(shift.names(fate)) for fate in Fate}

        def ingested(status: dict[str, Any]) -> bool:
            counts = status["annotations"]
            have = {kind: counts[kind] for kind in expected}
            say.progress(f"ingested {sum(have.values())} of {images}: " + ", ".join(f"{count} {kind}" for kind, count in have.items()))
            if failed:
                raise SandboxError(f"publishing failed: {failed[0]}")
            return have == expected and bool(published)

        try:
            daemon.wait_for_status(ingested, "the annotations to be ingested", limit_s=_INGEST_LIMIT_S)
        finally:
            thread.join()
        say.detail(f"{images} images are in the tree: " + ", ".join(f"{count} {kind}" for kind, count in expected.items()))

    def _train(self, daemon: RunningDaemon) -> dict[str, Any]:
        say = self._screen
        say.step("The trigger has fired: a dataset is formed and a model is trained")
        announced = False

        def released(status: dict[str, Any]) -> bool:
            nonlocal announced
            training = status["training"]
            job = training["jobs"][-1] if training["jobs"] else None
            if job is not None and job["state"] == "failed":
                raise SandboxError(f"the training failed: {job['why']}; see {self._operator.log}")
            if job is not None and job["dataset"] and not announced:
                announced = True
                say.detail(daemon.wait_for_event("trigger.due")["why"])
                formed = daemon.wait_for_event("dataset.formed")
                say.detail(f"dataset {formed['dataset']}: " + ", ".join(f"{count} {side}" for side, count in formed["images"].items()))
            if job is not None and (progress := job.get("progress")):
                say.progress(_progress(progress))
            release = status["releases"][-1] if status["releases"] else None
            if release is not None and release["state"] != "published":
                say.progress(f"release {release['serial']} is {release['state']} {release['why'] or ''}")
            return release is not None and release["state"] == "published" and job is not None and job["state"] == "released"

        status = daemon.wait_for_status(released, "a model to be published", limit_s=_TRAIN_LIMIT_S)
        say.detail(f"trained, exported, evaluated, encrypted and published: release {status['releases'][-1]['serial']}")
        return status

    def _verify_tree(self, world: World, shift: Scenario) -> bool:
        say = self._screen
        say.step("Comparing the annotation tree with what the annotators meant")
        directories = {Fate.VALIDATED: "data", Fate.SEED: "data-seed", Fate.DELETED: "data_deleted"}
        for name, truth in shift.truth.items():
            home = world.root / directories[truth.fate]
            image, label = home / "images" / f"{name}.jpg", home / "labels" / f"{name}.txt"
            if not image.is_file() or image.read_bytes() != truth.scene.image_jpeg:
                raise SandboxError(f"{image} is not the image that was annotated")
            boxes = [(int(line[0]), *map(float, line[1:])) for line in map(str.split, label.read_text().splitlines())]
            if boxes != [(box.class_id, box.cx, box.cy, box.width, box.height) for box in truth.boxes]:
                raise SandboxError(f"{label} does not hold the boxes that were drawn last")
        held = sum(1 for directory in directories.values() for _ in (world.root / directory / "images").iterdir())
        if held != len(shift.truth):
            raise SandboxError(f"the tree holds {held} images, {len(shift.truth)} were annotated")
        say.detail(f"{held} images and their labels are where they belong: none lost, none doubled, each with its last boxes")
        return True

    def _consume(self, world: World, status: dict[str, Any]) -> tuple[consumer.Verdict, str]:
        say = self._screen
        say.step("A consumer downloads both parts of the model, joins and decrypts them, and looks at images that nobody has seen")
        plaintext = world.consumer().download()
        onnx = (world.root / "models" / "azaion.onnx").read_bytes()
        if not plaintext.endswith(onnx):
            raise SandboxError("what the consumer decrypted is not the current model")
        verdict = consumer.judge(consumer.Model(plaintext), [draw_scene(_UNSEEN_SEED + index) for index in range(_UNSEEN)])
        say.detail(f"input {list(verdict.input_shape)}, output {list(verdict.output_shape)}")
        say.detail(f"{verdict.found} of {verdict.known} shapes found, {verdict.false_alarms} false alarms")
        map50 = status["models"]["current"]["map50"]
        if map50 < _LEAST_MAP50 or verdict.found < _LEAST_FOUND * verdict.known:
            raise SandboxError(
                f"the model has not learned: mAP50 {map50:.3f} (at least {_LEAST_MAP50} expected), "
                f"{verdict.found} of {verdict.known} shapes found (at least {_LEAST_FOUND:.0%} expected)"
            )
        return verdict, consumer.digest(onnx)

    def _summarise(self, world: World, status: dict[str, Any], verdict: consumer.Verdict) -> None:
        current, name = status["models"]["current"], status["training"]["jobs"][-1]["dataset"]
        dataset = json.loads((world.root / "datasets" / name / "dataset.json").read_text())
        self._screen.step("What happened")
        for line in (
            f"{sum(dataset['images'].values())} validated annotations became the dataset {name}.",
            f"A YOLO26 was trained on it from random weights; it reaches mAP50 {current['map50']:.3f} on the test images.",
            f"It was encrypted and published as release {status['releases'][-1]['serial']}, and verified as consumers see it.",
            f"A consumer found {verdict.found} of {verdict.known} shapes with it in images that were never annotated.",
        ):
            self._screen.detail(line)


def _progress(progress: dict[str, Any]) -> str:
    width = 24
    epochs = max(progress["epochs"], 1)
    done = min(progress["epoch"], epochs) * width // epochs
    bar = "█" * done + "░" * (width - done)
    map50 = progress["map50"]
    quality = "" if map50 is None else f"  mAP50 {map50:.3f}"
    return f"{progress['phase']:<9} {bar} epoch {progress['epoch']}/{progress['epochs']}{quality}"
