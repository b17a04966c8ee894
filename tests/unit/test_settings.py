"""config.yaml: what is refused is named with its key and never with its value, and the template is the reference of every setting."""

import copy
import os
import re
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

from azaion_daemon.errors import ConfigError
from azaion_daemon.ops.settings_reference import Entry, read_template, settings_page, with_marks
from azaion_daemon.sections import Reload
from azaion_daemon.settings import Settings, load_settings, parse_settings, reload_marks, settings_document

TEMPLATE = Path(__file__).parents[2] / "config.template.yaml"
SECRET = "s3cret-word"

MINIMAL: dict[str, Any] = {
    "api": {"url": "https://api.example.org", "email": "a@x.io", "password": SECRET},
    "stream": {"host": "127.0.0.1", "port": 5552, "user": "u", "password": SECRET, "name": "azaion-annotations"},
    "directories": {"root": "/azaion", "data": "data", "data_seed": "data-seed", "data_deleted": "data_deleted"},
    "training": {"model": "yolo26m.pt", "epochs": 120, "batch_size": 11, "imgsz": 1280, "save_period": 1, "workers": 24},
    "export": {"imgsz": 1280},
    "publish": {"model_key": SECRET},
}
MISSING = object()


def changed(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(MINIMAL)
    *parents, last = path.split(".")
    section = document
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is MISSING:
        del section[last]
    else:
        section[last] = value
    return document


def parse(document: object) -> Settings:
    return parse_settings(yaml.safe_dump(document), source="config.yaml")


def fault(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, source="config.yaml")
    assert SECRET not in str(caught.value)
    return str(caught.value)


def value_at(settings: Settings, path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_the_least_configuration_is_enough() -> None:
    settings = parse(MINIMAL)
    assert settings.ingest.batch_messages == 256
    assert settings.stream.start_from == "beginning"


@pytest.mark.parametrize("path", [f"{section}.{key}" for section, keys in MINIMAL.items() for key in keys if section != "publish"])
def test_a_missing_key_is_named(path: str) -> None:
    assert f"{path}: is missing" in fault(yaml.safe_dump(changed(path, MISSING)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("api.url", "no url"), ("api.url", "ftp://x"), ("api.email", ""), ("api.password", ""), ("api.timeout_s", 0),
        ("api.timeout_s", 601),
        ("stream.port", 0), ("stream.port", 65536), ("stream.port", "many"), ("stream.name", "x" * 256), ("stream.heartbeat_s", 0),
        ("stream.initial_credit", 0), ("stream.queue_bytes", "1KiB"), ("stream.start_from", "middle"), ("stream.start_from", -1),
        ("stream.start_from", 1.5), ("stream.on_mismatch", "ignore"), ("stream.tls", "maybe"),
        ("stream.start_from", "2026-03-01T00:00:00"), ("directories.root", "azaion"), ("directories.data", "a/b"),
        ("directories.data", ".."),
        ("directories.data", ""), ("directories.data", "a\0b"), ("ingest.batch_messages", 0), ("ingest.batch_bytes", 5),
        ("ingest.batch_delay_s", -1), ("ingest.threads", 0), ("ingest.sync_interval_s", 0), ("ingest.image_extensions", []),
        ("ingest.image_extensions", [".jpg"]), ("ingest.image_extensions", ["JPG"]), ("ingest.image_extensions", ["txt"]),
        ("ingest.image_extensions", ["a/b"]), ("dataset.split_by", "video"), ("dataset.split.train", 0), ("trigger.new_annotations", 0),
        ("trigger.min_total", 0), ("trigger.quiet_minutes", -1), ("trigger.quiet_minutes", float("nan")), ("trigger.schedule", "0 2 * *"),
        ("trigger.schedule", "0 25 * * *"), ("trigger.schedule_timezone", "Europe/Nowhere"), ("trigger.cooldown_hours", -1),
        ("training.model", "yolo26m"), ("training.epochs", 0), ("training.imgsz", 1281), ("training.imgsz", 0),
        ("training.save_period", 0), ("training.workers", -1), ("training.gpus", "some"), ("training.nice", -5),
        ("training.overrides", {"epochs": 5}), ("training.overrides", {"device": 0}), ("export.imgsz", 1281), ("export.batch", 0),
        ("publish.name", "a/b"), ("log.level", "verbose"), ("log.format", "xml"), ("stream", None), ("training", []), ("api", "x"),
    ],
)  # fmt: skip
def test_an_impossible_value_is_refused_with_its_path(path: str, value: object) -> None:
    assert f"\n  {path}" in fault(yaml.safe_dump(changed(path, value)))


def test_all_faults_are_named_at_once() -> None:
    document = changed("stream.port", 0)
    document["training"]["epochs"] = "x"
    del document["api"]["email"]
    message = fault(yaml.safe_dump(document))
    assert all(path in message for path in ("stream.port", "training.epochs", "api.email"))


@pytest.mark.parametrize("path", ["api.urls", "ingest.batch", "dataset.split.validation", "nonsense", "training.patience"])
def test_an_unknown_key_is_refused_and_the_allowed_ones_are_named(path: str) -> None:
    message = fault(yaml.safe_dump(changed(path, SECRET)))
    assert f"{path}: unknown key; allowed here: " in message
    assert {"api.urls": "url", "ingest.batch": "batch_messages", "dataset.split.validation": "valid"}.get(path, "") in message


@pytest.mark.parametrize("split", [{"train": 70, "valid": 20, "test": 20}, {"train": 98, "valid": 1, "test": 2}])
def test_the_shares_of_a_split_must_add_up(split: dict[str, int]) -> None:
    assert "add up to 100" in fault(yaml.safe_dump(changed("dataset.split", split)))


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ({"tls": True, "client_cert_file": "/c.pem"}, "must be given together"),
        ({"tls": True, "client_key_file": "/c.key"}, "must be given together"),
        ({"ca_file": "/ca.pem"}, "without tls: true"),
        ({"client_cert_file": "/c.pem", "client_key_file": "/c.key"}, "without tls: true"),
    ],
)
def test_the_files_for_tls_belong_together(tls: dict[str, object], said: str) -> None:
    document = changed("stream.tls", False)
    document["stream"] |= tls
    assert said in fault(yaml.safe_dump(document))


@pytest.mark.parametrize("names", [("data", "data", "x"), ("state", "b", "c"), ("a", "datasets", "c"), ("a", "b", "quarantine")])
def test_the_directories_of_the_homes_must_differ_and_be_their_own(names: tuple[str, str, str]) -> None:
    document = changed("directories", dict(zip(("data", "data_seed", "data_deleted"), names, strict=True)) | {"root": "/azaion"})
    assert "must differ" in fault(yaml.safe_dump(document))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "text",
        "a: [",
        "a: 'x",
        "a: \x07",
        "\tk: v",
        "a: !!python/object:os.system x",
        "a: 2026-13-45",
        "? [a]\n: b",
        "a: !!int x",
    ],
)
def test_what_is_no_configuration_at_all_is_an_error_with_its_source(text: str) -> None:
    assert fault(text).startswith("config.yaml")


def test_a_syntax_error_shows_its_line_and_no_value() -> None:
    assert "line 2" in fault(f'a: 1\npassword: "{SECRET}" "{SECRET}"\n')


@pytest.mark.parametrize("path", ["api.password", "stream.password", "publish.model_key"])
def test_a_secret_of_a_wrong_type_is_not_told(path: str) -> None:
    fault(yaml.safe_dump(changed(path, [SECRET])))
    fault(yaml.safe_dump(changed(path, {SECRET: 1})))


def test_secrets_are_masked_when_shown() -> None:
    settings = parse(MINIMAL)
    assert SECRET not in str(settings_document(settings))
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


def test_settings_cannot_be_changed() -> None:
    settings = parse(MINIMAL)
    with pytest.raises(pydantic.ValidationError):
        settings.stream.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("key", ["", None])
def test_an_empty_model_key_is_none(key: str | None) -> None:
    assert parse(changed("publish.model_key", key)).publish.model_key is None


@pytest.mark.parametrize(
    ("written", "bytes_"), [("32MiB", 32 << 20), ("1GiB", 1 << 30), (2 << 20, 2 << 20), ("2097152", 2 << 20), ("5MB", 5_000_000)]
)
def test_sizes_are_written_with_or_without_a_unit(written: object, bytes_: int) -> None:
    assert parse(changed("stream.queue_bytes", written)).stream.queue_bytes == bytes_


def test_a_schedule_or_a_zone_that_is_none_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(ConfigError, match=r"trigger\.schedule: must be a cron expression: bad hour"):
        parse(changed("trigger.schedule", "0 25 * * *"))
    with pytest.raises(ConfigError, match=r"trigger\.schedule_timezone: must be a time zone's IANA name, such as UTC or Europe/Berlin"):
        parse(changed("trigger.schedule_timezone", "Moon/Base"))


@pytest.mark.parametrize("start", ["beginning", "end", 0, 17, "2026-03-01T00:00:00Z", "2026-03-01T02:00:00+02:00"])
def test_the_stream_can_be_begun_anywhere(start: object) -> None:
    assert parse(changed("stream.start_from", start)).stream.start_from is not None


def test_a_file_that_is_missing_or_not_text_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml does not exist"):
        load_settings(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        load_settings(tmp_path / "config.yaml")
    os.mkfifo(tmp_path / "pipe")  # without a writer it would be waited for
    with pytest.raises(ConfigError, match="no file"):
        load_settings(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)


# The template


def entries() -> list[Entry]:
    return [entry for part in read_template(TEMPLATE.read_text()) for entry in part.entries]


def leaves() -> dict[str, tuple[str, str]]:
    """Of every setting that the template names: the text of its value, and its mark."""
    return {path: (value, entry.mark) for entry in entries() for path, value in entry.settings.items()}


def test_the_template_names_every_setting_exactly_once() -> None:
    assert sorted(leaves()) == sorted(reload_marks())
    assert len(entries()) == len({entry.path for entry in entries()})


@pytest.mark.parametrize(("path", "mark"), reload_marks().items())
def test_the_template_tells_how_a_setting_is_reloaded(path: str, mark: Reload) -> None:
    assert leaves()[path][1] == mark


def test_the_marks_of_the_template_are_made_from_the_code_and_nothing_else_of_it_is_touched() -> None:
    template = TEMPLATE.read_text()
    assert with_marks(template) == template, "python -m azaion_daemon.ops.guide writes them"
    assert with_marks(re.sub(r"(?<= )# \[[a-z_]+\]", "# [maybe]", template)) == template


@pytest.mark.parametrize("line", ["  # patience: 3   # [live] no such setting", "  # gpu: null  # [live]"])
def test_a_line_of_the_template_without_a_setting_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.(patience|gpu) has no mark of its own"):
        with_marks(f"training:\n{line}\n")


def test_the_guide_says_of_every_setting_what_template_and_code_say() -> None:
    page = settings_page(TEMPLATE.read_text())
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `([a-z0-9_.]+)` \|.*$", page, re.MULTILINE)}
    assert rows.keys() == reload_marks().keys()
    for path, mark in reload_marks().items():
        assert f"| {mark} |" in rows[path]
        value, _ = leaves()[path]
        assert (f"`{value}`" if "${" not in value else f"`{value[2:].partition(':')[0].rstrip('}')}`") in rows[path]
    assert "| `stream.port` | integer, 1 to 65535 | required | `RABBITMQ_PORT` | live | of the stream listener |" in rows["stream.port"]
    assert "| size, as bytes or such as 64MiB; 1MiB or more | `32MiB` |" in rows["stream.queue_bytes"]
    assert "| number, above 0, at most 600 | `20` |" in rows["stream.verify_timeout_s"]
    assert "| text, secret or null | none | `AZAION_MODEL_KEY` | live |" in rows["publish.model_key"]


@pytest.mark.parametrize("path", [path for path, (value, _) in leaves().items() if "${" not in value])
def test_what_the_template_comments_out_is_the_default(path: str) -> None:
    written = parse(changed(path, yaml.safe_load(leaves()[path][0]))) if path != "dataset.split" else parse(MINIMAL)
    assert value_at(written, path) == value_at(parse(MINIMAL), path)


def test_the_template_with_everything_uncommented_is_valid() -> None:
    lines = TEMPLATE.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("api:"))
    bare = [re.sub(r"^( *)# ( *[a-z0-9_]+:)", r"\1\2", line) for line in lines[first:]]
    text = re.sub(r"\$\{([A-Z_]+)(:-)?\}", lambda match: VALUES[match.group(1)], "\n".join(bare))
    settings = parse_settings(text, source="template")
    assert settings.dataset.split.train == 70
    assert settings.ingest == parse(MINIMAL).ingest


VALUES = {
    "AZAION_API_URL": "https://api.example.org", "AZAION_API_EMAIL": "a@x.io", "AZAION_API_PASSWORD": "x", "RABBITMQ_HOST": "h",
    "RABBITMQ_PORT": "5552", "RABBITMQ_USER": "u", "RABBITMQ_PASSWORD": "x", "RABBITMQ_QUEUE_NAME": "q", "AZAION_ROOT_DIR": "/azaion",
    "AZAION_DATA_DIR": "data", "AZAION_DATA_SEED_DIR": "data-seed", "AZAION_DATA_DELETED_DIR": "data_deleted", "TRAINING_MODEL": "a.pt",
    "TRAINING_EPOCHS": "1", "TRAINING_BATCH_SIZE": "1", "TRAINING_IMGSZ": "64", "TRAINING_SAVE_PERIOD": "1", "TRAINING_WORKERS": "0",
    "EXPORT_ONNX_IMGSZ": "64", "AZAION_MODEL_KEY": "",
}  # fmt: skip


@pytest.mark.parametrize("text", ["a: !!timestamp z", "a: !!bool z", "[" * 5000, "a: !!int z"])
def test_yaml_that_breaks_its_reader_is_no_valid_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="is not valid YAML"):
        parse_settings(text, source="config.yaml")
