"""What a changed configuration means for a daemon that runs."""

from typing import Any

import pytest

from azaion_daemon.ops.reload import differences, plan_reload
from azaion_daemon.settings import Settings


def settings(**changes: Any) -> Settings:
    """Some settings, with values changed by their dotted paths (two underscores for a dot)."""
    document: dict[str, dict[str, Any]] = {
        "api": {"url": "http://h", "email": "e", "password": "p"},
        "stream": {"host": "h", "port": 1, "user": "u", "password": "old", "name": "s"},
        "directories": {"root": "/r", "data": "data", "data_seed": "seed", "data_deleted": "deleted"},
        "training": {"model": "m.pt", "epochs": 1, "batch_size": 1, "imgsz": 64, "save_period": 1, "workers": 0},
        "export": {"imgsz": 64},
        "dataset": {},
    }
    for path, value in changes.items():
        section, key = path.split("__")
        document[section][key] = value
    return Settings.model_validate(document)


def test_differences_are_named_by_their_paths_down_to_the_last_key() -> None:
    after = settings(stream__password="new", training__epochs=2, dataset__split={"train": 80, "valid": 10, "test": 10})
    assert sorted(differences(settings(), after)) == ["dataset.split.train", "dataset.split.valid", "stream.password", "training.epochs"]
    assert list(differences(settings(), settings())) == []


def test_the_streams_live_settings_take_effect_and_the_rest_waits() -> None:
    after = settings(stream__password="new", stream__heartbeat_s=3, stream__name="other", training__epochs=2)
    plan = plan_reload(settings(), after)
    assert plan.applied == ("stream.password", "stream.heartbeat_s")
    assert plan.restart_required == ("stream.name", "training.epochs")
    assert plan.running.stream.password.get_secret_value() == "new"
    assert (plan.running.stream.name, plan.running.training.epochs) == ("s", 1)


def test_what_waits_for_a_restart_is_named_by_every_reload_until_then() -> None:
    after = settings(training__epochs=2)
    first = plan_reload(settings(), after)
    assert plan_reload(first.running, after).restart_required == ("training.epochs",)
    assert plan_reload(first.running, settings()).restart_required == ()


@pytest.mark.parametrize("path", ["stream__queue_bytes", "stream__start_from"])
def test_what_no_part_takes_while_it_runs_is_not_called_applied(path: str) -> None:
    assert plan_reload(settings(), settings(**{path: 2_000_000})).applied == ()
