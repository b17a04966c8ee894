"""What is secret does not come out of its type by any of the ways in which things get into logs, errors and files."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, SecretStr

from azaion_daemon.children import inherited
from azaion_daemon.errors import ConfigError, ReleaseError
from azaion_daemon.logs.tidying import tidied
from azaion_daemon.publish.cipher import Decryptor, Encryptor
from azaion_daemon.publish.credentials import parse_credentials
from azaion_daemon.publish.exchange import Session
from azaion_daemon.publish.keys import aes_key, api_key
from azaion_daemon.publish.signing import SigningKey
from azaion_daemon.sections import ApiSettings, PublishSettings, StreamSettings
from azaion_daemon.settings import parse_settings

SECRET = "Pl4nt3dSecretQz7"
KEY = aes_key(SecretStr(SECRET))
API = ApiSettings(url="https://api.example.org", email="a@example.org", password=SECRET, hardware=SECRET)
CREDENTIALS = "\n".join(
    ["host: cdn.example.org", "downloader_access_key: d", "uploader_access_key: u"]
    + [f"{user}_access_secret: {SECRET}" for user in ("downloader", "uploader")]
)
SIGNING = Ed25519PrivateKey.generate()
HOLDERS = {
    "the platform's settings": API,
    "the stream's settings": StreamSettings(host="h", port=1, user="u", password=SECRET, name="n"),
    "what publishing is set to": PublishSettings(model_key=SecretStr(SECRET)),
    "the CDN's credentials": parse_credentials(CREDENTIALS.encode(), source="cdn.yaml"),
    "a session with its token": Session(API, token=SecretStr(SECRET)),
    "a key": KEY,
    "a key string": api_key("a@example.org", SecretStr(SECRET), SecretStr("h")),
    "what encrypts": Encryptor(KEY),
    "what decrypts": Decryptor(KEY),
    "the signing key": SigningKey(SIGNING),
}


def as_json(one: object) -> str:
    return one.model_dump_json() if isinstance(one, BaseModel) else json.dumps(one, default=str)


def as_a_log_line(one: object) -> str:
    return json.dumps(tidied({"why": one, "all": [one, {"it": one}]}))


def as_a_message(one: object) -> str:
    return logging.makeLogRecord({"msg": "%s %r", "args": (one, one)}).getMessage()


def as_yaml(one: object) -> str:
    return yaml.safe_dump(one.model_dump(mode="json") if isinstance(one, BaseModel) else str(one))


@pytest.mark.parametrize("way", [repr, str, "{}".format, "{0!r:>80}".format, as_json, as_a_log_line, as_a_message, as_yaml])
@pytest.mark.parametrize("holder", HOLDERS)
def test_no_way_of_printing_shows_it(holder: str, way: Callable[[object], str]) -> None:
    shown = way(HOLDERS[holder])
    derived = [KEY.get_secret_value(), SIGNING.private_bytes_raw()]
    hidden = [SECRET, api_key("a@example.org", SecretStr(SECRET), SecretStr("h")).get_secret_value()]
    assert not [one for one in [*hidden, *(key.hex() for key in derived), *(repr(key)[2:-1] for key in derived)] if one in shown]


@pytest.mark.parametrize(
    "text",
    [
        f"stream: {{password: *{SECRET}}}",
        f"stream:\n  password: !{SECRET} x",
        f"stream:\n  password: '{SECRET}",
        f"{SECRET}",
        f"[{SECRET}]",
    ],
)
def test_no_fault_of_a_file_shows_its_words(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_settings(text, source="config.yaml")
    assert SECRET not in str(refused.value)
    with pytest.raises(ReleaseError) as unusable:
        parse_credentials(text.encode(), source="cdn.yaml")
    assert SECRET not in str(unusable.value)


@pytest.mark.parametrize("url", [f"https://user:{SECRET}@api.example.org", f"https://{SECRET}@api.example.org"])
def test_an_address_with_a_password_in_it_is_refused(url: str) -> None:
    """It would be told in every error."""
    with pytest.raises(ConfigError, match=r"api\.url: must not hold a user or a password") as refused:
        parse_settings(f"api: {{url: '{url}', email: e, password: p}}", source="config.yaml")
    assert SECRET not in str(refused.value)
    with pytest.raises(ReleaseError, match="usable host") as unusable:
        parse_credentials(CREDENTIALS.replace("cdn.example.org", url).encode(), source="cdn.yaml")
    assert SECRET not in str(unusable.value)


def test_children_inherit_what_they_need_and_no_password() -> None:
    ours = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "2",
        "AZAION_MODEL_KEY": SECRET,
        "RABBITMQ_PASSWORD": SECRET,
        "HTTP_PROXY": SECRET,
    }
    assert inherited(ours) == {"PATH": "/bin", "LC_ALL": "C"}
    assert inherited(ours, prefixes=["OMP_"], without={"PATH"}) == {"LC_ALL": "C", "OMP_NUM_THREADS": "2"}


def test_every_process_that_is_started_is_told_what_it_inherits() -> None:
    package = Path(inherited.__code__.co_filename).parent
    starts = ("subprocess.Popen(", "subprocess.run(", "create_subprocess_exec(")
    careless = []
    for path in package.rglob("*.py"):
        text = path.read_text()
        inside = path.relative_to(package)
        if inside.parts[0] != "sandbox" and inside.parts[:2] != ("training", "worker") and any(start in text for start in starts):
            careless += [str(inside)] if "inherited(" not in text and "worker_environment(" not in text else []
    assert careless == []
