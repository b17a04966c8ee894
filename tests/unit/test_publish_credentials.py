"""cdn.yaml: what is accepted, and that no secret shows."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from azaion_daemon.errors import OperatorError, ReleaseError
from azaion_daemon.publish.credentials import credentials_source, parse_credentials
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.settings import Settings

GOOD = b"""host: cdn.example.org
downloader_access_key: reader
downloader_access_secret: hush-reader
uploader_access_key: 4711
uploader_access_secret: "hush: writer"
region: ignored
"""


def settings(credentials_file: Path) -> Settings:
    return Settings.model_validate(
        {
            "api": {"url": "http://127.0.0.1:9", "email": "u@x.io", "password": "p", "hardware": "h"},
            "stream": {"host": "h", "port": 1, "user": "u", "password": "p", "name": "n"},
            "directories": {"root": "/azaion", "data": "data", "data_seed": "seed", "data_deleted": "deleted"},
            "training": {"model": "m.pt", "epochs": 1, "batch_size": 1, "imgsz": 32, "save_period": 1, "workers": 0},
            "export": {"imgsz": 32},
            "publish": {"cdn_credentials_file": credentials_file},
        }
    )


def test_all_five_are_read_and_secrets_do_not_show() -> None:
    credentials = parse_credentials(GOOD, source="cdn.yaml")
    assert credentials.endpoint == "https://cdn.example.org"
    assert credentials.uploader_access_key == "4711"
    assert credentials.uploader_access_secret.get_secret_value() == "hush: writer"
    assert "hush" not in repr(credentials) + str(credentials)


def test_a_host_may_come_with_its_scheme() -> None:
    credentials = parse_credentials(GOOD.replace(b"cdn.example.org", b"http://127.0.0.1:9000"), source="cdn.yaml")
    assert credentials.endpoint == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (GOOD.replace(b"uploader_access_secret", b"secret"), "uploader_access_secret"),
        (GOOD.replace(b"host: cdn.example.org", b"host:"), "host"),
        (GOOD.replace(b"hush-reader", b"[hush]"), "downloader_access_secret"),
        (b"hush", "not a mapping"),
        (b"a: [hush", "not valid YAML"),
        (b"\xff\xfe\x00hush", "not valid YAML"),
        (b"", "not a mapping"),
        (GOOD.replace(b"cdn.example.org", b"file:///etc/shadow"), "host"),
        (GOOD.replace(b"cdn.example.org", b"gopher://cdn.example.org"), "host"),
        (GOOD + b"x: !!python/object/apply:os.system ['touch /tmp/hush']", "not valid YAML"),
        (b"[" * 30_000, "not valid YAML"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nhost: *c", "host"),
        (b"#" * 100_000, "no file of credentials"),
    ],
)
def test_what_is_missing_is_named_without_showing_values(content: bytes, named: str) -> None:
    with pytest.raises(ReleaseError, match=named) as caught:
        parse_credentials(content, source="cdn.yaml")
    assert "cdn.yaml" in str(caught.value)
    assert "hush" not in str(caught.value)


async def test_a_local_file_goes_before_the_platform(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "cdn.yaml"
    file.write_bytes(GOOD)
    caplog.set_level(logging.DEBUG)
    wanted = settings(file)
    async with PlatformClient(wanted.api, tmp_path / "hardware.txt") as platform:
        assert (await credentials_source(wanted, platform)()).host == "cdn.example.org"
    assert "hush" not in caplog.text


async def test_a_local_file_that_is_missing_is_the_operators_to_mend(tmp_path: Path) -> None:
    wanted = settings(tmp_path / "missing.yaml")
    async with PlatformClient(wanted.api, tmp_path / "hardware.txt") as platform:
        with pytest.raises(OperatorError, match=r"missing\.yaml"):
            await credentials_source(wanted, platform)()


def test_an_idle_daemon_does_not_carry_the_s3_library() -> None:
    code = "import sys, azaion_daemon.publish.release as _; print([name for name in sys.modules if 'boto' in name or name == 'aiohttp'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
