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
        "trigger": {},
    }
    for path, value in changes.items():
        section, key = path.split("__")
        document[section][key] = value
    return Settings.model_validate(document)


def test_differences_are_named_by_their_paths_down_to_the_last_key() -> None:
    after = settings(stream__password="new", training__epochs=2, dataset__split={"train": 80, "valid": 10, "test": 10})
    assert sorted(differences(settings(), after)) == ["dataset.split.train", "dataset.split.valid", "stream.password", "training.epochs"]
    assert list(differences(settings(), settings())) == []


def test_each_setting_takes_effect_when_its_mark_says_or_waits_for_a_restart() -> None:
    after = settings(
        stream__password="new", stream__name="other", trigger__quiet_minutes=1, trigger__schedule="0 2 * * *", training__epochs=2,
        export__imgsz=96, dataset__split={"train": 80, "valid": 10, "test": 10}, api__email="other", api__hardware="h",
    )  # fmt: skip
    plan = plan_reload(settings(), after)
    assert set(plan.applied) == {"stream.password", "trigger.quiet_minutes", "trigger.schedule", "api.email"}
    assert set(plan.next_job) == {"training.epochs", "export.imgsz", "dataset.split.train", "dataset.split.valid"}
    assert set(plan.restart_required) == {"stream.name", "api.hardware"}
    running = plan.running
    assert (running.stream.password.get_secret_value(), running.stream.name, running.api.email) == ("new", "s", "other")
    assert (running.trigger, running.training, running.export, running.dataset) == (
        after.trigger, after.training, after.export, after.dataset,
    )  # fmt: skip


def test_nothing_changed_is_nothing_to_do() -> None:
    plan = plan_reload(settings(), settings())
    assert (plan.running, plan.applied, plan.next_job, plan.restart_required) == (settings(), (), (), ())


def test_what_waits_for_a_restart_is_named_by_every_reload_until_then() -> None:
    after = settings(stream__name="other")
    first = plan_reload(settings(), after)
    assert plan_reload(first.running, after).restart_required == ("stream.name",)
    assert plan_reload(first.running, settings()).restart_required == ()


@pytest.mark.parametrize("path", ["stream__queue_bytes", "stream__start_from"])
def test_what_no_part_takes_while_it_runs_is_not_called_applied(path: str) -> None:
    plan = plan_reload(settings(), settings(**{path: 2_000_000}))
    assert (plan.applied, plan.restart_required) == ((), (path.replace("__", "."),))
