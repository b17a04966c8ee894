"""`azaion-daemon demo`: the main job with real parts on this machine, from annotators drawing boxes to a consumer that finds the shapes.

Two rounds: a first model from random weights; then more annotations, a fine-tuned candidate, and the gate that compares the two, whichever
way that goes. The daemon is the unmodified one, run as an operator would, through its commands and its configuration. What it says and
keeps is looked at from outside.
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
from azaion_daemon.sandbox import consumer, looking
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.operator import Operator, RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.sandbox.scenario import Fate, Scenario, Truth, scenario
from azaion_daemon.sandbox.screen import Screen
from azaion_daemon.sandbox.world import TRAINING_OVERRIDES, World, small_world

ANNOTATIONS = 360
MORE_ANNOTATIONS = 120
_SEED = 7
_DUPLICATES = 0.05
_INGEST_LIMIT_S = 120.0
_TRAIN_LIMIT_S = 900.0
_FINE_TUNING_EPOCHS = 6
_FINE_TUNING = {**TRAINING_OVERRIDES, "lr0": 0.001, "warmup_epochs": 1.0}
_ENDS = frozenset({"released", "rejected", "held"})


def run_demo(keep: Path | None) -> int:
    """Run the demo and print its outcome, as one JSON object, on the last line of stdout; the process's exit status."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything is stopped
    directory = keep or Path(tempfile.mkdtemp(prefix="azaion-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        outcome = Demo(directory, Screen(), kept=keep is not None).run()
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


class Demo:
    """One run, in a directory of its own."""

    def __init__(self, directory: Path, screen: Screen, *, kept: bool) -> None:
        """`kept`: what is made in the directory stays."""
        self._directory = directory
        self._kept = kept
        self._screen = screen
        self._operator = Operator(directory)
        self._truth: dict[str, Truth] = {}
        self._jobs: list[str] = []

    def run(self) -> dict[str, Any]:
        """Run everything; what came of it.

        Raises:
            SandboxError: Something did not happen as it should; the message says what.
        """
        say = self._screen
        say.step("Starting a RabbitMQ node, an S3 object store and the platform's API on this machine")
        with World(self._directory) as world:
            say.detail(f"stream {world.stream} on port {world.broker.port}, S3 at {world.store.endpoint}, API at {world.platform.url}")
            shift, later = scenario(ANNOTATIONS, _SEED), scenario(MORE_ANNOTATIONS, _SEED + 1)
            self._configure(world, shift)
            say.step("Starting the daemon")
            say.detail(f"azaion-daemon run, which logs to {self._operator.log}")
            with self._operator.daemon() as daemon:
                self._annotate(world, shift, daemon)
                first = self._train(daemon)
                self._compare(world)
                found_first, _ = self._consume(world, first)
                self._fine_tune(world, later, daemon)
                self._annotate(world, later, daemon)
                second = self._train(daemon)
                self._rule(world, second)
                verified = self._compare(world)
                found, sha256 = self._consume(world, second)
                say.step("Stopping the daemon")
                say.detail(f"it took {daemon.stop():.1f} s")
        self._summarise(world, (first, found_first), (second, found))
        job = second["training"]["jobs"][-1]
        return {
            "annotations": len(self._truth),
            "dataset": job["dataset"],
            "map50": round(second["models"]["current"]["map50"], 4),
            "model_sha256": sha256,
            "published": second["releases"][-1]["state"] == "published",
            "verified": verified,
            "verdict": looking.decision(job),
        }

    def _configure(self, world: World, shift: Scenario) -> None:
        self._screen.step("Rendering the configuration and making the root directory")
        self._operator.configure(world.dotenv(), small_world(len(shift.names(Fate.VALIDATED))))
        self._screen.detail("azaion-daemon config render --env-file .env")
        self._operator.command("init")
        self._screen.detail("azaion-daemon init")

    def _fine_tune(self, world: World, shift: Scenario, daemon: RunningDaemon) -> None:
        """Change the configuration as an operator would, beside the running daemon."""
        say = self._screen
        say.step("An operator has the next training fine-tune the current model: the configuration is changed and read again")
        world.epochs = _FINE_TUNING_EPOCHS
        sections = small_world(len(shift.names(Fate.VALIDATED)))
        sections["training"] |= {"start_from": "current", "overrides": _FINE_TUNING}
        self._operator.configure(world.dotenv(), sections)
        say.detail(f"training.start_from: current, training.epochs: {_FINE_TUNING_EPOCHS}")
        daemon.process.send_signal(signal.SIGHUP)
        reloaded = daemon.wait_for_event("config.reloaded")
        say.detail(f"SIGHUP; at once: {', '.join(reloaded['applied'])}; with the next job: {', '.join(reloaded['next_job'])}")

    def _annotate(self, world: World, shift: Scenario, daemon: RunningDaemon) -> None:
        say = self._screen
        images = len(shift.truth)
        more = "more " if self._truth else ""
        say.step(f"Annotators draw boxes on {images} {more}images; {_DUPLICATES:.0%} of {len(shift.messages)} messages are sent twice")
        self._truth |= shift.truth
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
        expected = {fate.value: sum(truth.fate is fate for truth in self._truth.values()) for fate in Fate}

        def ingested(status: dict[str, Any]) -> bool:
            counts = status["annotations"]
            have = {kind: counts[kind] for kind in expected}
            said = ", ".join(f"{count} {kind}" for kind, count in have.items())
            say.progress(f"ingested {sum(have.values())} of {len(self._truth)}: {said}")
            if failed:
                raise SandboxError(f"publishing failed: {failed[0]}")
            return have == expected and bool(published)

        try:
            daemon.wait_for_status(ingested, "the annotations to be ingested", limit_s=_INGEST_LIMIT_S)
        finally:
            thread.join()
        say.detail(f"{len(self._truth)} images are in the tree: " + ", ".join(f"{count} {kind}" for kind, count in expected.items()))

    def _train(self, daemon: RunningDaemon) -> dict[str, Any]:
        """Watch the next training to its end: the status then."""
        say = self._screen
        say.step("The trigger has fired: a dataset is formed and a model is " + ("fine-tuned" if self._jobs else "trained"))
        before, announced = set(self._jobs), False

        def ended(status: dict[str, Any]) -> bool:
            nonlocal announced
            job = next((job for job in status["training"]["jobs"] if job["id"] not in before), None)
            if job is None:
                return False
            if job["state"] in {"failed", "cancelled"}:
                raise SandboxError(f"the training {job['state']}: {job['why']}; see {self._operator.log}")
            if job["dataset"] and not announced:
                announced = True
                self._announce(daemon, job["id"])
            if progress := job.get("progress"):
                say.training(progress)
            release = status["releases"][-1] if status["releases"] else None
            if release is not None and release["state"] != "published":
                say.progress(f"release {release['serial']} is {release['state']} {release['why'] or ''}")
            return job["state"] in _ENDS and release is not None and release["state"] == "published"

        status = daemon.wait_for_status(ended, "a model to be judged", limit_s=_TRAIN_LIMIT_S)
        job = status["training"]["jobs"][-1]
        self._jobs.append(job["id"])
        published = f"encrypted and published: release {status['releases'][-1]['serial']}" if job["state"] == "released" else job["state"]
        say.detail(f"trained, exported, evaluated, {published}")
        return status

    def _announce(self, daemon: RunningDaemon, job: str) -> None:
        say = self._screen
        say.detail(daemon.wait_for_event("trigger.due", job=job)["why"])
        formed = daemon.wait_for_event("dataset.formed", job=job)
        say.detail(f"dataset {formed['dataset']}: " + ", ".join(f"{count} {side}" for side, count in formed["images"].items()))

    def _rule(self, world: World, status: dict[str, Any]) -> None:
        say = self._screen
        say.step("The gate has compared the candidate with the model before it, on test images that neither was trained on")
        for line in looking.ruling(world.root, status["training"]["jobs"][-1]):
            say.detail(line)
        if not self._kept:
            say.detail("which goes with all else at the end; with --keep DIRECTORY it stays")

    def _compare(self, world: World) -> bool:
        say = self._screen
        say.step("Comparing the annotation tree with what the annotators meant")
        held = looking.compare_tree(world.root, self._truth)
        say.detail(f"{held} images and their labels are where they belong: none lost, none doubled, each with its last boxes")
        return True

    def _consume(self, world: World, status: dict[str, Any]) -> tuple[consumer.Verdict, str]:
        say = self._screen
        say.step("A consumer downloads both parts of the model, joins and decrypts them, and looks at images that nobody has seen")
        serial = next(one["serial"] for one in reversed(status["releases"]) if one["state"] == "published")
        public_key = self._operator.command("model", "key").encode()
        verdict, sha256 = looking.consume(world, status["models"]["current"], serial=serial, public_key=public_key)
        say.detail(f"the signed manifest of release {serial} leads to the same model, byte for byte")
        say.detail(f"model {sha256[:12]}, input {list(verdict.input_shape)}, output {list(verdict.output_shape)}")
        say.detail(f"{verdict.found} of {verdict.known} shapes found, {verdict.false_alarms} false alarms")
        return verdict, sha256

    def _summarise(
        self, world: World, first: tuple[dict[str, Any], consumer.Verdict], second: tuple[dict[str, Any], consumer.Verdict]
    ) -> None:
        (before, found_before), (after, found) = first, second
        job = after["training"]["jobs"][-1]
        names = [status["training"]["jobs"][-1]["dataset"] for status in (before, after)]
        images = [looking.dataset_images(world.root, name) for name in names]
        model, release = before["models"]["current"], before["releases"][-1]["serial"]
        lines = [
            f"{images[0]} validated annotations became the dataset {names[0]}.",
            f"A YOLO26 was trained on it from random weights; it reaches mAP50 {model['map50']:.3f} on the test images.",
            f"It was encrypted and published as release {release}, and verified as consumers see it.",
            f"A consumer found {found_before.found} of {found_before.known} shapes with it in images that were never annotated.",
            f"{len(self._truth) - ANNOTATIONS} more annotations came: {images[1]} became the dataset {names[1]}, the model was fine-tuned.",
        ]
        if job["state"] == "released":
            lines.append(
                f"The gate accepted the candidate: release {after['releases'][-1]['serial']}, with which a consumer found {found.found}."
            )
        else:
            lines.append(f"The gate did not accept the candidate ({job['state']}): release {release} stays what consumers get.")
        self._screen.step("What happened")
        for line in lines:
            self._screen.detail(line)
