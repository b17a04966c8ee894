"""What `doctor` says of a real broker, of a real worker, and of a daemon's neighbourhood, from the command line."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from azaion_daemon.cli import main
from azaion_daemon.errors import TrainingError
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Position
from azaion_daemon.training.capabilities import ask_worker
from tests.integration.consuming import messages
from tests.unit.builders import make_root, settings_on


class Surroundings:
    """A root with a configuration that names a broker."""

    def __init__(self, directory: Path, broker: Broker, stream: str) -> None:
        self.layout = make_root(directory / "azaion")
        self.config = directory / "config.yaml"
        self.stream = stream
        self.configure(host=broker.host, port=broker.port, user=broker.consumer.user, password=broker.consumer.password, name=stream)

    def configure(self, **stream: Any) -> None:
        document = settings_on(self.layout).model_dump(mode="json", exclude_defaults=True)
        document["api"]["password"] = "p"
        document["stream"] = stream
        self.config.write_text(yaml.safe_dump(document))
        self._stream = stream

    def reconfigure(self, **stream: Any) -> None:
        self.configure(**(self._stream | stream))

    def findings(self, *only: str) -> dict[str, dict[str, Any]]:
        asked = [word for one in only for word in ("--only", one)]
        result = CliRunner().invoke(main, ["doctor", "--json", *asked, "--config", str(self.config)])
        document = json.loads(result.stdout)
        assert result.exit_code == (0 if document["ok"] else 1)
        assert self._stream["password"] not in result.output
        return {one["subject"]: one for one in document["findings"]}

    def consumed(self, offset: int) -> None:
        ledger = Ledger(self.layout.ledger)
        ledger.commit_batch(self.stream, Position(offset, b"digest", 0), [])
        ledger.close()


@pytest.fixture
def place(tmp_path: Path, broker: Broker, stream: str) -> Surroundings:
    return Surroundings(tmp_path, broker, stream)


def test_a_stream_is_asked_for_its_ends_and_they_are_held_against_the_ledger(place: Surroundings, broker: Broker) -> None:
    found = place.findings("broker")
    assert {name: one["outcome"] for name, one in found.items()} == {"broker": "ok", "stream": "ok"}
    assert "is empty" in found["stream"]["detail"]
    asyncio.run(Annotator(broker, place.stream).publish(messages(5)))
    place.consumed(2)
    assert place.findings("stream")["stream"]["detail"].endswith("and the ledger is at offset 2: 2 behind its end")
    place.consumed(99)
    assert place.findings("stream")["stream"]["outcome"] == "broken"


@pytest.mark.parametrize(
    ("changes", "subject", "word"),
    [
        ({"port": 1}, "broker", "no connection to 127.0.0.1:1"),
        ({"host": "no-such-host.invalid"}, "broker", "no connection"),
        ({"tls": True}, "broker", "no TLS connection"),
        ({"password": "last quarter's"}, "stream", "refuses the user"),
        ({"name": "azaion-annotations-none"}, "stream", "does not exist"),
    ],
)
def test_what_keeps_a_consumer_away_is_named(place: Surroundings, changes: dict[str, Any], subject: str, word: str) -> None:
    place.reconfigure(**changes)
    found = place.findings("broker")
    assert (found[subject]["outcome"], word in found[subject]["detail"]) == ("broken", True), found
    assert found[subject]["remedy"]


def test_a_real_worker_says_what_it_could_train(place: Surroundings) -> None:
    found = place.findings("training")
    worker = found["training worker"]  # on a server with a GPU it may warn of ONNX Runtime
    assert (worker["outcome"] in {"ok", "warning"}, "ultralytics 8" in worker["detail"]) == (True, True), found
    assert found["base model"]["outcome"] == "ok"
    assert "random weights" in found["base model"]["detail"]


async def test_a_worker_that_hangs_or_cannot_start_is_an_error_in_time(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 60\n")
    python.chmod(0o755)
    with pytest.raises(TrainingError, match=r"within 0\.2 s"):
        await ask_worker(str(python), "m.yaml", {}, longest_s=0.2)
    python.write_text("#!/bin/sh\necho some noise; echo No module named torch >&2; exit 3\n")
    with pytest.raises(TrainingError, match="ended with status 3: No module named torch"):
        await ask_worker(str(python), "m.yaml", {})
    with pytest.raises(TrainingError, match="cannot be started"):
        await ask_worker(str(tmp_path / "none"), "m.yaml", {})


def test_what_is_called_nothing_is_refused(place: Surroundings) -> None:
    result = CliRunner().invoke(main, ["doctor", "--only", "kitchen", "--config", str(place.config)])
    assert (result.exit_code, "called kitchen" in result.stderr) == (78, True)
