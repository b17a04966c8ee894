"""What can be said of the Dockerfile and the compose files without Docker: they agree with the repository and with each other."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from azaion_daemon.dataset.classes import load_classes
from azaion_daemon.rendering import read_environment

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "deploy"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text()))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def copied() -> list[str]:
    """What is copied from the checkout."""
    copies = [shlex.split(what) for name, what in instructions() if name == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1] if not source.startswith("--")]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.dev.yml").read_text())
    return document


def test_all_that_is_copied_into_the_image_is_there_and_not_ignored() -> None:
    admitted = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied()
    for source in copied():
        assert (CHECKOUT / source).exists(), source
        assert any(Path(source).is_relative_to(entry) for entry in admitted), source


def test_the_image_has_what_the_package_is_built_from() -> None:
    assert {"azaion_daemon", "pyproject.toml", "README.md", "LICENSE", "requirements/server.txt", "requirements/gpu.txt"} <= set(copied())


def test_the_daemon_in_a_container_is_not_root_and_an_init_reaps() -> None:
    last = dict(instructions())  # of each kind the last one
    assert last["USER"].split(":")[0] == "azaion"
    assert last["ENTRYPOINT"].startswith('["tini"')
    assert last["STOPSIGNAL"] == "SIGTERM"
    # Its exit status, and no word that the document may have elsewhere, as in the state of a job.
    assert last["HEALTHCHECK"].endswith('CMD ["azaion-daemon", "status"]')


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    bases = {what.split()[0] for name, what in instructions() if name == "FROM"}
    images = {service["image"] for service in compose["services"].values()} - {"azaion-daemon:dev"}
    for image in bases | images:
        assert re.search(r":\S*\d+\S*\d", image), image
    assert len(bases) == 1  # what was built with one Python is run with it


def test_the_python_of_the_image_is_that_of_the_lock() -> None:
    (base, *_) = [what for name, what in instructions() if name == "FROM"]
    locked = re.search(r"with Python (\d+\.\d+)", (CHECKOUT / "requirements" / "server.txt").read_text())
    assert locked is not None
    assert base.startswith(f"python:{locked.group(1)}.")


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(service.get("network_mode") == "host" for service in compose["services"].values())


def test_everything_that_is_named_is_defined(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        assert {config["source"] for config in service.get("configs", [])} <= set(compose["configs"])
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= set(compose["volumes"])
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_every_variable_comes_from_the_environment_of_the_daemon_or_has_a_default(compose: dict[str, Any]) -> None:
    known = read_environment(CHECKOUT / ".env.example", {})
    text = re.sub(r"\$\$\w+", "", (DEPLOY / "docker-compose.dev.yml").read_text())
    without_default = re.findall(r"\$\{(\w+)(?:\}|:\?)", text)
    assert without_default
    assert set(without_default) <= set(known)


def test_the_daemon_has_the_time_that_a_stop_takes_and_a_broker_with_streams(compose: dict[str, Any]) -> None:
    daemon = compose["services"]["daemon"]
    assert int(daemon["stop_grace_period"].removesuffix("s")) > 30
    assert "rabbitmq_stream" in compose["configs"]["rabbitmq_plugins"]["content"]
    advertised = re.search(r"stream.advertised_host = (\S+)", compose["configs"]["rabbitmq_conf"]["content"])
    assert advertised is not None
    assert advertised.group(1) == daemon["environment"]["RABBITMQ_HOST"] == compose["services"]["rabbitmq"]["hostname"]


def test_the_class_list_can_be_read(compose: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(compose["configs"]["classes"]["content"])
    assert load_classes(tmp_path / "classes.json").known


def test_a_gpu_is_reserved_for_the_daemon_alone() -> None:
    gpu = yaml.safe_load((DEPLOY / "docker-compose.gpu.yml").read_text())
    (device,) = gpu["services"]["daemon"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", "all", ["gpu"])


def test_the_entrypoint_renders_what_the_command_reads(tmp_path: Path) -> None:
    program = tmp_path / "azaion-daemon"
    program.write_text('#!/bin/sh\necho "$*"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [DEPLOY / "docker-entrypoint.sh", "status", "--json"], check=True, capture_output=True, text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "config render --template /etc/azaion/config.template.yaml --output /run/azaion/config.yaml",
        "status --json",
    ]
