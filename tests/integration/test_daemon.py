"""The real daemon process against a real broker: what it does with messages, signals and a world that is not as it should be."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.sandbox.annotations import Message
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.scenario import Fate, Scenario, scenario
from tests.harness import Site, expected_tree, ingested
from tests.unit import test_metrics as metrics
from tests.unit import test_status_line as status_line
from tests.unit import test_status_view as status_view


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str) -> Site:
    made = Site(tmp_path, broker, stream)
    made.prepare()
    return made


def wait_until_ingested(daemon: RunningDaemon, shift: Scenario) -> None:
    def reached(status: dict[str, Any]) -> bool:
        return bool(ingested(shift).items() <= status["annotations"].items())

    daemon.wait_for_status(reached, "everything is ingested")


def unknown_keys(pretended: Mapping[str, Any], real: Mapping[str, Any], where: str = "") -> list[str]:
    """What a status that tests made up has, and a real one has not: whoever reads that reads nothing."""
    found = [f"{where}{key}" for key in pretended.keys() - real.keys()]
    for key in pretended.keys() & real.keys():
        if isinstance(pretended[key], Mapping) and isinstance(real[key], Mapping) and key != "parts":  # by name
            found += unknown_keys(pretended[key], real[key], f"{where}{key}.")
    return found


def wait_until_consumed(daemon: RunningDaemon, messages: int) -> None:
    daemon.wait_for_status(lambda status: (status["stream"]["position"] or 0) >= messages - 1, "everything is consumed")


def test_what_annotators_meant_is_in_the_tree_whatever_is_sent_twice(site: Site) -> None:
    shift = scenario(80, seed=1)
    with site.daemon() as daemon:
        site.publish(shift.messages, duplicates=0.3)
        wait_until_ingested(daemon, shift)
    assert site.tree() == expected_tree(shift)
    assert site.left_over() == []


def test_a_dataset_that_a_crash_left_unfinished_is_removed_at_the_start(site: Site) -> None:
    debris = site.root / "datasets" / ".forming-azaion-2026-04-01"
    (debris / "train" / "images").mkdir(parents=True)
    with site.daemon() as daemon:
        assert daemon.wait_for_event("dataset.debris_removed")["dataset"] == "azaion-2026-04-01"
    assert list((site.root / "datasets").iterdir()) == []


def test_stopped_in_the_middle_and_started_again_it_goes_on_as_if_nothing_had_happened(site: Site) -> None:
    shift = scenario(200, seed=2)
    site.overrides["ingest"]["batch_messages"] = 7
    site.configure()
    with site.daemon() as daemon:
        site.publish(shift.messages[: len(shift.messages) // 2])
        daemon.wait_for_event("ingest.batch")
        assert daemon.stop() < 30
        assert daemon.events()[-1]["event"] == "daemon.stopped"
    with site.daemon() as daemon:
        site.publish(shift.messages[len(shift.messages) // 2 :])
        wait_until_consumed(daemon, len(shift.messages))
    assert site.tree() == expected_tree(shift)
    assert site.left_over() == []


def test_asked_to_stop_while_it_connects_it_stops(site: Site) -> None:
    for moment in range(12):
        with site.daemon() as daemon:
            daemon.wait_for_event("stream.connecting")
            time.sleep(moment * 0.005)
            assert daemon.stop(limit_s=10) < 10


def test_killed_in_the_middle_and_started_again_it_goes_on_as_if_nothing_had_happened(site: Site) -> None:
    shift = scenario(200, seed=3)
    site.overrides["ingest"]["batch_messages"] = 7
    site.configure()
    site.publish(shift.messages)
    for round_ in range(4):
        with site.daemon() as daemon:
            daemon.wait_for_event("ingest.batch")
            time.sleep(0.01 * round_)
            daemon.kill()
            daemon.process.returncode = 0  # as intended
    with site.daemon() as daemon:
        wait_until_consumed(daemon, len(shift.messages))
    assert site.tree() == expected_tree(shift)
    assert site.left_over() == []


def test_every_line_of_its_log_is_one_json_object(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")
    lines = site.operator.log.read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert all({"timestamp", "level", "service", "event"} <= event.keys() for event in events)
    assert (events[0]["event"], events[-1]["event"]) == ("daemon.starting", "daemon.stopped")


def test_idle_it_is_small_and_has_no_torch_in_it(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")
        daemon.wait_for_status(lambda status: status["stream"]["connected"], "a connection")
        assert daemon.memory_bytes() < 90e6
        assert "torch" not in Path(f"/proc/{daemon.process.pid}/maps").read_text()


def test_a_broker_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    with Broker(tmp_path / "rabbitmq") as broker:
        broker.create_stream("azaion-annotations")
        site = Site(tmp_path, broker, "azaion-annotations")
        site.prepare()
        broker.stop()
        shift = scenario(20, seed=4)
        with site.daemon() as daemon:
            event = daemon.wait_for_event("stream.disconnected")
            assert f"no connection to 127.0.0.1:{broker.port}" in event["why"]
            assert daemon.events()[-1]["level"] != "error"
            broker.start()
            site.publish(shift.messages)
            wait_until_ingested(daemon, shift)


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(tmp_path: Path) -> None:
    with Broker(tmp_path / "rabbitmq") as broker:
        broker.create_stream("azaion-annotations")
        site = Site(tmp_path, broker, "azaion-annotations")
        site.prepare()
        shift = scenario(60, seed=5)
        half = len(shift.messages) // 2
        with site.daemon() as daemon:
            site.publish(shift.messages[:half])
            wait_until_consumed(daemon, half)
            broker.kill()
            daemon.wait_for_event("stream.disconnected")
            broker.start()
            site.publish(shift.messages[half:])
            wait_until_consumed(daemon, len(shift.messages))
        assert site.tree() == expected_tree(shift)


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"RABBITMQ_PASSWORD": "wrong"}, "refuses the user azaion_receiver or its password"),
        ({"RABBITMQ_QUEUE_NAME": "azaion-annotations-missing"}, "the stream azaion-annotations-missing does not exist"),
        ({"RABBITMQ_PORT": "1"}, "no connection to 127.0.0.1:1"),
        ({"RABBITMQ_HOST": "no.such.host.invalid"}, "no connection to no.such.host.invalid"),
    ],
)
def test_a_stream_that_cannot_be_read_is_said_and_waited_for(site: Site, environment: dict[str, str], why: str) -> None:
    site.configure(environment)
    with site.daemon() as daemon:
        assert why in daemon.wait_for_event("stream.disconnected")["why"]
        status = daemon.wait_for_status(lambda status: status["stream"]["why"] is not None, "the reason in the status")
        assert why in status["stream"]["why"]
        assert status["state"] == "running"


def test_a_training_that_is_asked_for_while_no_daemon_runs_is_begun_once_by_its_next_start(site: Site) -> None:
    asked = site.operator.try_command("train", "now", "--reason", "new  camera")
    assert (asked.returncode, asked.stderr) == (0, "No daemon is running; the training begins at its next start.\n")
    (request,) = (site.root / "state" / "requests").glob("*.json")
    left = request.read_text()
    why = "neither annotations nor settings have changed since"  # there is nothing to train on
    for _ in range(2):
        with site.daemon() as daemon:
            daemon.wait_for_event("request.answered", kind="train_now", error=None)
            status = daemon.wait_for_status(lambda status: why in status["training"]["why"], "the job's end")
            assert [job["state"] for job in status["training"]["jobs"]] == ["failed"]
        request.write_text(left)  # as if the daemon had been killed before the request was gone
    events = [json.loads(line) for line in site.operator.log.read_text().splitlines()]
    reasons = [event["why"].partition(";")[0] for event in events if event["event"] == "trigger.due"]
    assert reasons == ["train now because an operator asked for it (new camera)"]


def test_a_training_is_asked_for_beside_a_running_daemon(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("daemon.ready")
        assert "begins now" in site.operator.try_command("train", "now").stderr
        assert "no reason given" in daemon.wait_for_event("trigger.due")["why"]
    refused = site.operator.try_command("train", "now", "--reason", " ")
    assert (refused.returncode, "a reason has between 1 and 500 characters" in refused.stderr) == (os.EX_CONFIG, True)


def test_the_status_says_what_the_trigger_waits_for(site: Site) -> None:
    with site.daemon() as daemon:
        shift = scenario(20, seed=11)
        site.publish(shift.messages)
        wait_until_ingested(daemon, shift)
        changed = len(shift.names(Fate.VALIDATED))
        status = daemon.wait_for_status(lambda status: (status["training"]["new_since_last"] or 0) >= changed, "a look")
        training = status["training"]
        assert status["process"]["tasks"] > 5
        assert 20e6 < status["process"]["rss_bytes"] < 200e6
        assert (training["threshold"], training["next_schedule"]) == (1_000_000, None)
        assert training["why"].startswith(f"wait because {training['new_since_last']} annotations are new, changed or gone")
        assert training["why"] in site.operator.command("status")
        document = json.loads(site.operator.command("status", "--json"))
        assert (document["state"], document["process"]["running"], len(document["requests"])) == ("running", True, 0)
        assert document["process"]["tasks"] > 5
        for pretended in (status_line.RUNNING, status_view.DOCUMENT, metrics.full_status()):
            assert unknown_keys(pretended, document) == []
        broken = [one["what"] for one in document["attention"] if one["level"] == "broken"]
        assert [what for what in broken if "filesystem" not in what] == []  # the machine's disk may be full
        assert (document["config"]["last_reload"], document["ended_by"], document["stream"]["not_connected_s"] < 60) == (None, None, True)
    assert "the daemon was stopped" in site.operator.try_command("status").stdout


def test_what_the_trigger_waits_for_is_changed_by_a_reload(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")
        site.overrides["trigger"] |= {"schedule": "0 2 * * *", "schedule_timezone": "Europe/Berlin"}
        site.overrides["training"]["epochs"] = 7
        site.configure()
        daemon.process.send_signal(signal.SIGHUP)
        event = daemon.wait_for_event("config.reloaded")
        assert sorted(event["applied"]) == ["trigger.schedule", "trigger.schedule_timezone"]
        assert (event["next_job"], event["restart_required"]) == (["training.epochs"], [])
        daemon.wait_for_status(lambda status: status["training"]["next_schedule"] is not None, "the schedule in the status")


def refused(site: Site) -> str:
    """Run a daemon that must end by itself because of the operator; its last words."""
    done = site.operator.try_command("run")
    assert done.returncode == os.EX_CONFIG, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    event = json.loads(done.stdout.splitlines()[-1])
    assert event["event"] == "daemon.failed"
    return str(event["error"])


def test_a_configuration_that_cannot_be_used_ends_it_with_a_word(site: Site) -> None:
    site.operator.config.write_text("stream: [")
    assert "is not valid YAML" in refused(site)
    site.operator.config.unlink()
    assert "azaion-daemon config render" in refused(site)


def test_a_missing_file_for_tls_ends_it_with_a_word(site: Site) -> None:
    site.overrides["stream"] = {"tls": True, "ca_file": "/nowhere/ca.pem"}
    site.configure()
    assert "stream.ca_file: /nowhere/ca.pem cannot be read" in refused(site)
    checked = site.operator.try_command("config", "check")
    assert checked.returncode == os.EX_CONFIG
    assert "stream.ca_file: /nowhere/ca.pem cannot be read" in checked.stderr


def test_a_missing_classes_json_ends_it_with_a_word(site: Site) -> None:
    (site.root / "classes.json").unlink()
    assert "classes.json does not exist. Put the platform's class list there" in refused(site)


def test_an_empty_classes_json_ends_it_with_a_word(site: Site) -> None:
    (site.root / "classes.json").write_text("[]")
    assert "classes.json is empty" in refused(site)


def test_a_root_that_was_never_made_is_refused(site: Site) -> None:
    (site.root / "state" / "root.json").unlink()
    assert "Is its disk mounted?" in refused(site)


@pytest.mark.parametrize("directory", ["data/images", "state"])
def test_a_root_that_cannot_be_written_is_refused(site: Site, directory: str) -> None:
    unwritable = site.root / directory
    if os.geteuid() == 0:  # may write everywhere, but not to a filesystem that is mounted read-only
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", unwritable], check=False, capture_output=True)
        if mounted.returncode:
            pytest.skip(f"root may write everywhere, and nothing can be mounted here: {mounted.stderr.decode().strip()}")
        try:
            assert any(word in refused(site) for word in ("another filesystem", "Is its disk mounted?"))
        finally:
            subprocess.run(["umount", unwritable], check=True)
    else:
        unwritable.chmod(0o500)
        assert "cannot be written" in refused(site)


def test_a_second_daemon_is_refused(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for_event("daemon.ready")
        assert f"(pid {daemon.process.pid})" in refused(site)


def test_a_stream_that_was_deleted_and_made_anew_stops_it(site: Site, broker: Broker, stream: str) -> None:
    shift, other = scenario(40, seed=6), scenario(40, seed=7)
    with site.daemon() as daemon:
        site.publish(shift.messages)
        wait_until_consumed(daemon, len(shift.messages))
    before = site.tree()
    broker.delete_stream(stream)
    broker.create_stream(stream)
    site.publish(other.messages)
    site.publish(other.messages)
    assert "is not the one that was consumed" in refused(site)
    assert site.tree() == before
    said = site.operator.try_command("status")
    assert (said.returncode, "is not the one that was consumed" in said.stdout) == (3, True)


def test_a_stream_that_was_made_anew_and_is_shorter_stops_it_with_its_end(site: Site, broker: Broker, stream: str) -> None:
    site.overrides["stream"] = {"verify_timeout_s": 1.5}
    site.configure()
    shift = scenario(20, seed=9)
    with site.daemon() as daemon:
        site.publish(shift.messages)
        wait_until_consumed(daemon, len(shift.messages))
    broker.delete_stream(stream)
    broker.create_stream(stream)
    site.publish(shift.messages[:3])
    assert "it ends at offset 2" in refused(site)


def test_a_stream_that_was_made_anew_is_gone_on_with_when_the_operator_says_so(site: Site, broker: Broker, stream: str) -> None:
    site.overrides["stream"] = {"on_mismatch": "continue", "verify_timeout_s": 1.5}
    site.configure()
    shift, other = scenario(20, seed=6), scenario(20, seed=7)
    half = len(other.messages) // 2
    with site.daemon() as daemon:
        site.publish(shift.messages)
        wait_until_consumed(daemon, len(shift.messages))
    broker.delete_stream(stream)
    broker.create_stream(stream)
    site.publish(other.messages[:half])
    with site.daemon() as daemon:
        wait_until_consumed(daemon, len(shift.messages) + half)
        assert daemon.wait_for_event("stream.begun")["base"] == len(shift.messages)
    site.publish(other.messages[half:])
    with site.daemon() as daemon:
        wait_until_consumed(daemon, len(shift.messages) + len(other.messages))
        assert "stream.mismatch" not in [event["event"] for event in daemon.events()]
    assert site.tree() == expected_tree(shift) | expected_tree(other)


def test_an_empty_stream_where_messages_were_is_said_and_waited_for(site: Site, broker: Broker, stream: str) -> None:
    site.overrides["stream"] = {"verify_timeout_s": 1.5}
    site.configure()
    shift = scenario(5, seed=9)
    with site.daemon() as daemon:
        site.publish(shift.messages)
        wait_until_consumed(daemon, len(shift.messages))
    broker.delete_stream(stream)
    broker.create_stream(stream)
    with site.daemon() as daemon:
        assert "seems to be empty; was it made anew?" in daemon.wait_for_event("stream.disconnected")["why"]


def test_when_nothing_new_was_published_the_stream_is_still_the_same(site: Site) -> None:
    site.overrides["stream"] = {"verify_timeout_s": 1.5}
    site.configure()
    shift = scenario(5, seed=10)
    with site.daemon() as daemon:
        site.publish(shift.messages)
        wait_until_consumed(daemon, len(shift.messages))
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")
        time.sleep(3)  # twice as long as it may take to verify: nothing must happen
        assert "stream.disconnected" not in [event["event"] for event in daemon.events()]


def test_a_bad_message_is_kept_whole_and_the_next_ones_are_taken(site: Site) -> None:
    shift = scenario(10, seed=8)
    half = shift.messages[0].body[: len(shift.messages[0].body) // 2]
    site.publish([Message(shift.messages[0].status, half, shift.messages[0].properties), *shift.messages])
    with site.daemon() as daemon:
        wait_until_ingested(daemon, shift)
        event = daemon.wait_for_event("ingest.message_quarantined")
        assert (event["position"], "not msgpack" in event["why"]) == (0, True)
    assert half in (site.root / "quarantine" / "0.amqp").read_bytes()
    assert "not msgpack" in json.loads((site.root / "quarantine" / "0.json").read_text())["reason"]
    assert site.tree() == expected_tree(shift)
