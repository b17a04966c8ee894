"""A reload is applied whole or not at all, reaches every part, and whatever goes wrong leaves the daemon as it was."""

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from azaion_daemon.daemon import Daemon
from azaion_daemon.dataset.classes import load_classes
from azaion_daemon.errors import ConfigError
from azaion_daemon.logs import logging_to
from azaion_daemon.logs.output import LogOutput
from azaion_daemon.notify import Notifier
from azaion_daemon.ops.reload import check_files, plan_reload, tell
from azaion_daemon.reloading import LastReload, Reloader
from azaion_daemon.sandbox.certificates import Authority
from azaion_daemon.sandbox.scenes import write_classes
from azaion_daemon.sections import Reload
from azaion_daemon.settings import Settings, parse_settings, read_config, reload_marks
from azaion_daemon.store.layout import Layout
from tests.unit.builders import make_root

PLANNED: dict[str, Any] = {
    "api": {"url": "http://h", "email": "e", "password": "p"},
    "stream": {"host": "h", "port": 1, "user": "u", "password": "old", "name": "s"},
    "directories": {"root": "/r", "data": "data", "data_seed": "data-seed", "data_deleted": "data_deleted"},
    "training": {"model": "m.pt", "epochs": 1, "batch_size": 1, "imgsz": 64, "save_period": 1, "workers": 0},
    "export": {"imgsz": 64},
}


def text_of(**sections: dict[str, Any]) -> str:
    """A configuration, with some values of some sections changed."""
    names = [*PLANNED, *(name for name in sections if name not in PLANNED)]
    return yaml.safe_dump({name: {**PLANNED.get(name, {}), **sections.get(name, {})} for name in names})


def settings(**sections: dict[str, Any]) -> Settings:
    return parse_settings(text_of(**sections), source="config.yaml")


@contextmanager
def log_lines() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    stream = io.StringIO()
    with logging_to(stream, level="info", style="json"):
        yield found
    found += [json.loads(line) for line in stream.getvalue().splitlines()]


class Told:
    """A part of a daemon that notes what it is told, and may refuse it."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.refuses: set[int] = set()

    def __call__(self, settings: Settings) -> None:
        self.heard.append(settings.trigger.min_total)
        if settings.trigger.min_total in self.refuses:
            raise RuntimeError(f"not {settings.trigger.min_total}")


class Reloading:
    """A reloader at work, and how often it was done."""

    def __init__(self, config: Path, parts: Sequence[Told], readings: Sequence[str | Exception]) -> None:
        self.config = config
        self.config.write_text(text_of(trigger={"min_total": 1}))
        self.done = 0
        self._finished = asyncio.Event()
        self._readings = iter(readings)
        read = self._read if readings else read_config
        self.reloader = Reloader(parse_settings(config.read_text(), source="c"), config, parts, done=self._note, read=read)

    def _read(self, _: Path) -> str:
        reading = next(self._readings)
        if isinstance(reading, Exception):
            raise reading
        return reading

    def _note(self) -> None:
        self.done += 1
        self._finished.set()

    async def reload(self) -> LastReload:
        self._finished.clear()
        self.reloader.ask()
        async with asyncio.timeout(30):
            await self._finished.wait()
        assert self.reloader.last is not None
        return self.reloader.last


@asynccontextmanager
async def reloading(directory: Path, *parts: Told, readings: Sequence[str | Exception] = ()) -> AsyncIterator[Reloading]:
    """`readings` are what the file holds each time, instead of what it really holds."""
    one = Reloading(directory / "config.yaml", parts, readings)
    task = asyncio.create_task(one.reloader.run())
    yield one
    assert not task.done()
    task.cancel()


# Every setting reaches its part


OTHER = object()
"""Another value, whatever the type."""


def with_other(before: Settings, path: str) -> Settings:
    section, *rest = path.split(".")
    inner = getattr(before, section)
    if len(rest) == 2:
        middle = getattr(inner, rest[0]).model_copy(update={rest[1]: OTHER})
        return before.model_copy(update={section: inner.model_copy(update={rest[0]: middle})})
    return before.model_copy(update={section: inner.model_copy(update={rest[0]: OTHER})})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = make_root(tmp_path / "azaion")
    write_classes(made.classes)
    return made


async def test_every_setting_that_is_not_marked_restart_is_told_to_the_part_that_works_with_it(layout: Layout) -> None:
    before = settings(directories={"root": str(layout.root)})
    daemon = Daemon(
        before, Path("config.yaml"), layout, load_classes(layout.classes), Notifier.taken_from({}), LogOutput(io.StringIO(), str)
    )
    at_work: dict[str, list[Callable[[], Any]]] = {
        "api": [lambda: daemon._platform._session.settings],
        "stream": [lambda: daemon._consumer._settings],
        "ingest": [lambda: daemon._pipeline._settings],
        "dataset": [lambda: daemon._conductor._shop.settings.dataset, lambda: daemon._trigger._settings.dataset],
        "trigger": [lambda: daemon._trigger._settings.trigger],
        "training": [lambda: daemon._conductor._shop.settings.training, lambda: daemon._trigger._settings.training],
        "export": [lambda: daemon._conductor._shop.settings.export, lambda: daemon._trigger._settings.export],
        "gate": [lambda: daemon._judge._settings.gate],
        "publish": [
            lambda: daemon._publisher._settings,
            lambda: daemon._outbox._settings,
            lambda: daemon._conductor._shop.settings.publish,
        ],
        "retention": [lambda: daemon._keeper._settings],
    }
    try:
        for path, mark in reload_marks().items():
            after = with_other(before, path)
            if path == "log.level":
                after = settings(directories={"root": str(layout.root)}, log={"level": "error"})
            plan = plan_reload(daemon._reloader.settings, after)
            assert plan.restart_required == ((path,) if mark is Reload.RESTART else ())
            daemon._reloader._apply(plan)
            if path == "log.level":
                assert logging.getLogger("azaion_daemon").level == logging.ERROR
            elif mark is not Reload.RESTART:
                section, _, name = path.partition(".")
                for works_with in at_work[section]:
                    value: Any = works_with()
                    for key in name.split("."):
                        value = getattr(value, key)
                    assert value is OTHER, path
            daemon._reloader._apply(plan_reload(daemon._reloader.settings, before))
    finally:
        daemon._pipeline.close()
        daemon._ledger.close()


# Whole, or not at all


def test_a_part_that_cannot_work_with_it_takes_those_before_it_back() -> None:
    first, second, third = Told(), Told(), Told()
    second.refuses = {2}
    with pytest.raises(RuntimeError, match="not 2"):
        tell((first, second, third), settings(trigger={"min_total": 1}), settings(trigger={"min_total": 2}))
    assert (first.heard, second.heard, third.heard) == ([2, 1], [2, 1], [])


def test_a_part_that_cannot_go_back_either_does_not_keep_the_others_from_it() -> None:
    first, second = Told(), Told()
    second.refuses = {1, 2}
    with pytest.raises(RuntimeError, match="not 2") as caught:
        tell((first, second), settings(trigger={"min_total": 1}), settings(trigger={"min_total": 2}))
    assert first.heard == [2, 1]
    assert any("restart the daemon" in note for note in caught.value.__notes__)


async def test_a_part_that_fails_leaves_what_was_in_force_and_the_next_reload_is_a_new_one(tmp_path: Path) -> None:
    first, second = Told(), Told()
    second.refuses = {2}
    with log_lines() as lines:
        async with reloading(tmp_path, first, second) as one:
            one.config.write_text(text_of(trigger={"min_total": 2}))
            assert (await one.reload()).error == "RuntimeError: not 2"
            assert one.reloader.settings.trigger.min_total == 1
            one.config.write_text(text_of(trigger={"min_total": 3}))
            last = await one.reload()
    assert (last.error, last.applied, one.reloader.settings.trigger.min_total) == (None, ("trigger.min_total",), 3)
    assert (first.heard, second.heard) == ([2, 1, 3], [2, 1, 3])
    assert [line["event"] for line in lines] == ["config.reload_failed", "config.reloaded"]
    assert "Traceback" in lines[0]["exception"]


def test_files_of_connections_are_looked_at_before_anything_relies_on_them(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    credentials = tmp_path / "cdn.yaml"
    keys = ("host", "downloader_access_key", "downloader_access_secret", "uploader_access_key", "uploader_access_secret")
    credentials.write_text(yaml.safe_dump(dict.fromkeys(keys, "x")))
    good, missing, garbage = str(authority.ca_file), str(tmp_path / "nowhere"), str(tmp_path / "garbage")
    Path(garbage).write_text("no certificate")
    check_files(settings(api={"ca_file": good}, publish={"cdn_ca_file": good, "cdn_credentials_file": str(credentials)}))
    for section, name in (("api", "ca_file"), ("publish", "cdn_ca_file"), ("publish", "cdn_credentials_file")):
        for file in (missing, garbage, str(tmp_path)):
            with pytest.raises(ConfigError, match=rf"{section}\.{name}") as caught:
                check_files(settings(**{section: {name: file}}))
            assert file in str(caught.value)
    with pytest.raises(ConfigError, match=r"stream\.ca_file"):
        check_files(settings(stream={"tls": True, "ca_file": missing}))


# Whatever goes wrong


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda config: config.write_text("stream: ["), "is not valid YAML"),
        (lambda config: config.write_text(config.read_text()[: len(config.read_text()) // 2]), "is missing"),
        (lambda config: config.write_text(""), "must be a mapping"),
        (lambda config: config.write_text(text_of(trigger={"min_totall": 2})), "unknown key"),
        (lambda config: config.write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda config: config.unlink(), "does not exist"),
        (lambda config: (config.unlink(), config.mkdir()), "cannot be read"),
        (lambda config: (config.unlink(), config.symlink_to(config)), "cannot be read"),
        (lambda config: config.write_text(text_of(api={"ca_file": "/nowhere/ca.pem"})), "api.ca_file"),
    ],
)
async def test_what_cannot_be_used_changes_nothing_and_is_said(tmp_path: Path, spoil: Any, said: str) -> None:
    part = Told()
    with log_lines() as lines:
        async with reloading(tmp_path, part) as one:
            loaded_at = one.reloader.loaded_at
            spoil(one.config)
            last = await one.reload()
            assert (one.reloader.settings.trigger.min_total, one.reloader.loaded_at, part.heard) == (1, loaded_at, [])
    assert last.error is not None
    assert said in last.error
    assert [(line["event"], line["error"]) for line in lines] == [("config.reload_failed", last.error)]
    document = last.document()
    assert (document["ok"], document["error"], document["begun_monotonic"]) == (False, last.error, last.begun)


async def test_an_error_that_nobody_has_foreseen_ends_nothing_either(tmp_path: Path) -> None:
    readings: list[str | Exception] = [MemoryError("no more"), text_of(), text_of()]
    async with reloading(tmp_path, readings=readings) as one:
        assert (await one.reload()).error == "MemoryError: no more"
        assert (await one.reload()).error is None


async def test_a_file_that_is_being_written_is_read_when_that_is_over(tmp_path: Path) -> None:
    whole = text_of(trigger={"min_total": 7})
    half = whole[: whole.index("trigger:")]  # valid, too
    async with reloading(tmp_path, readings=["", whole[:50], half, whole, whole]) as one:
        assert (await one.reload()).error is None
        assert one.reloader.settings.trigger.min_total == 7


async def test_a_file_that_never_stops_changing_is_not_read_for_ever(tmp_path: Path) -> None:
    async with reloading(tmp_path, readings=[str(number) for number in range(1000)]) as one:
        error = (await one.reload()).error
        assert error is not None
        assert "does not stop changing" in error


async def test_asked_a_hundred_times_it_reads_a_few_times_and_ends_with_what_was_asked_last(tmp_path: Path) -> None:
    async with reloading(tmp_path) as one:
        for number in range(2, 102):
            one.config.write_text(text_of(trigger={"min_total": number}))
            one.reloader.ask()
            if number % 25 == 0:
                await asyncio.sleep(0.02)
        await one.reload()
        last = await one.reload()  # the one before may have begun before it was asked for
        assert one.reloader.settings.trigger.min_total == 101
        assert last.error is None
        assert one.done < 20


async def test_the_new_level_of_the_log_is_in_force_after_the_line_that_says_so(tmp_path: Path) -> None:
    with log_lines() as lines:
        async with reloading(tmp_path) as one:
            for level in ("error", "info"):
                one.config.write_text(text_of(trigger={"min_total": 1}, log={"level": level}))
                assert (await one.reload()).applied == ("log.level",)
                logging.getLogger("azaion_daemon.test").warning("after %s", level)
    assert [line.get("message", line["event"]) for line in lines] == ["config.reloaded", "config.reloaded", "after info"]


async def test_files_that_cannot_be_read_in_time_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azaion_daemon.reloading._FILES_S", 0.01)
    monkeypatch.setattr("azaion_daemon.reloading.check_files", lambda _: time.sleep(0.5))
    with log_lines() as lines:
        async with reloading(tmp_path) as one:
            last = await one.reload()
    assert last.error is not None
    assert "cannot be read within" in last.error
    assert [line["event"] for line in lines] == ["config.reload_failed"]
