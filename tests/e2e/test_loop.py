"""The whole loop with real parts: annotations in, an encrypted model out that a consumer loads."""

import os
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.sandbox import consumer
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.operator import Operator
from azaion_daemon.sandbox.scenario import Fate, scenario
from azaion_daemon.sandbox.world import World
from tests.harness import HOMES, expected_tree
from tests.permissions import faults

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def released(status: dict[str, Any]) -> bool:
    jobs = status["training"]["jobs"]
    assert not jobs or jobs[-1]["state"] != "failed", jobs[-1]["why"]
    return bool(jobs) and jobs[-1]["state"] == "released"


async def test_annotations_become_a_published_model_although_the_daemon_is_killed_while_it_trains(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    careful = os.umask(0)
    request.addfinalizer(lambda: os.umask(careful))
    with World(tmp_path, epochs=2) as world:
        shift = scenario(60, seed=11)
        operator = Operator(tmp_path)
        validated = len(shift.names(Fate.VALIDATED))
        trigger = {"new_annotations": validated, "min_total": validated, "quiet_minutes": 0}
        operator.configure(
            world.dotenv(),
            {
                "trigger": trigger,
                "ingest": {"min_free_disk": "1MiB"},
                "dataset": {"min_images": 1, "min_objects": 1, "min_free_disk": "1MiB"},
                "training": {"gpus": "none"},
                "gate": {"min_map50_95": 0},  # after two epochs
            },
        )
        operator.command("init")
        with operator.daemon() as daemon:
            await Annotator(world.broker, world.stream).publish(shift.messages, duplicates=0.1)
            daemon.wait_for_event("worker.phase", phase="train", limit_s=60)
            daemon.kill()
            daemon.process.returncode = 0  # as intended
        with operator.daemon() as daemon:
            assert daemon.wait_for_event("worker.adopted")["job"] == daemon.wait_for_event("worker.ended", limit_s=120)["job"]
            status = daemon.wait_for_status(released, "the model is released", limit_s=120)
            assert status["releases"][-1]["state"] == "published"

        plaintext = world.consumer().download()
        current = (world.root / "models" / "azaion.onnx").read_bytes()
        assert plaintext.endswith(current)
        assert consumer.digest(current) == status["models"]["current"]["sha256"] == status["releases"][-1]["model"]
        verdict = consumer.judge(consumer.Model(plaintext), [next(iter(shift.truth.values())).scene])
        assert (verdict.input_shape, verdict.output_shape) == ((4, 3, 128, 128), (4, 300, 6))
        assert {"Car", "Truck", "Boat"} <= set(verdict.names.values())
        assert (world.root / "models" / "azaion.pt").is_file()

        homes = [world.root / home for home in HOMES.values()]
        found = {str(path.relative_to(world.root)) for home in homes for path in home.rglob("*.*")}
        assert found == expected_tree(shift).keys()
        (world.root / "classes.json").chmod(0o640)  # the operator's own file
        assert faults(world.root) == {}
