"""Secrets are planted everywhere, everything that can fail is made to fail, and then all that was said and written is searched for them."""

import base64
import hashlib
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from azaion_daemon.publish.keys import aes_key, api_key
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.sandbox.scenario import scenario
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Model
from tests.harness import Site, ingested
from tests.integration.test_sandbox_world import model_that_sees

BROKER = "Pl4nt3dBr0kerQz7/pass%w"
ACCOUNT = 'Pl4nt3dAcc0untQz7#s: "w+'
MODEL_KEY = "Pl4nt3dM0delKeyQz7=="
UPLOADER = "Pl4nt3dUpl0aderQz7+/"
DOWNLOADER = "Pl4nt3dD0wnl0aderQz7+/"
SERIAL = "Pl4nt3dSer1alQz7"
HARDWARE = f"CPU: TestCPU. GPU: TestGPU. Memory: 16384. DriveSerial: {SERIAL}"

ALLOWED = {
    "state/hardware.txt": "where the hardware string is kept: mode 0600",
    "state/signing.pem": "where the signing key is kept: mode 0600",
}
"""What below the root may hold a secret, and why. (`config.yaml` and `.env` lie outside of it.)"""


def forms(secret: bytes) -> Iterator[bytes]:
    """As it is, and as it is called on its way: in hexadecimal, in an URL, in base64 wherever it begins in that."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield quote(secret, safe="").encode()
    yield b"".join(b"%%%02X" % byte for byte in secret)
    for before in range(3):
        first, last = -(-8 * before // 6), 8 * (before + len(secret)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + secret + bytes(3))[first:last]


def found(secrets: Mapping[str, bytes], texts: Mapping[str, bytes]) -> list[str]:
    wanted = {name: tuple(forms(secret)) for name, secret in secrets.items()}
    return [f"{name} in {where}" for where, text in texts.items() for name, all_ in wanted.items() if any(form in text for form in all_)]


class Place:
    """A daemon's site with secrets in it, and what was said there."""

    def __init__(self, site: Site, signing_key: Ed25519PrivateKey) -> None:
        self.site = site
        self.said: list[str] = []
        email = site.environment["AZAION_API_EMAIL"]
        platform_key = api_key(email, SecretStr(ACCOUNT), SecretStr(HARDWARE))
        self.secrets: dict[str, bytes] = {
            "broker": BROKER.encode(),
            "broker's middle": BROKER[:16].encode(),
            "account": ACCOUNT.encode(),
            "account's middle": ACCOUNT[:17].encode(),
            "model key": MODEL_KEY.encode(),
            "model key's bytes": aes_key(SecretStr(MODEL_KEY)).get_secret_value(),
            "uploader": UPLOADER.encode(),
            "downloader": DOWNLOADER.encode(),
            "serial": SERIAL.encode(),
            "platform's key": platform_key.get_secret_value().encode(),
            "platform's key's bytes": aes_key(platform_key).get_secret_value(),
            "signing key": signing_key.private_bytes_raw(),
        }

    def command(self, *arguments: str) -> int:
        """Run a command and keep what it said; its status."""
        done = self.site.operator.try_command(*arguments)
        self.said.append(f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.returncode

    def leaks(self) -> list[str]:
        """Where which secret is found that must not be there."""
        root = self.site.root
        texts = {f"output {number}": text.encode() for number, text in enumerate(self.said)}
        if self.site.operator.log.exists():
            texts["the daemon's log"] = self.site.operator.log.read_bytes()
        for path in root.rglob("*"):
            inside = str(path.relative_to(root))
            if path.is_file() and inside not in ALLOWED:
                texts[inside] = path.read_bytes()
        return found(self.secrets, texts)


@pytest.fixture
def platform_user() -> User:
    return User("daemon@example.org", ACCOUNT)


@pytest.fixture
def place(tmp_path: Path, broker: Broker, stream: str, platform_api: PlatformApi, object_store: ObjectStore) -> Place:
    site = Site(tmp_path, broker, stream)
    site.environment |= {
        "AZAION_API_URL": platform_api.url,
        "AZAION_API_PASSWORD": ACCOUNT,
        "AZAION_MODEL_KEY": MODEL_KEY,
    }
    site.overrides |= {"publish": {"name": f"{stream}.onnx"}, "log": {"level": "debug"}}
    platform_api.serve_cdn(host=object_store.endpoint, downloader=("cdn:downloader", DOWNLOADER), uploader=("cdn:uploader", UPLOADER))
    site.prepare()
    key = Ed25519PrivateKey.generate()
    layout = Layout(site.root)
    layout.hardware.touch(mode=0o600)
    layout.hardware.write_text(HARDWARE)
    layout.signing_key.touch(mode=0o600)
    layout.signing_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Place(site, key)


OUTSIDE = ("--only", "broker", "--only", "publishing")
"""What doctor looks at where secrets are shown to somebody; the rest takes its time, and is in the test in which all goes well."""


def have_a_release_wait(site: Site) -> None:
    layout = Layout(site.root)
    with closing(Ledger(layout.ledger)) as ledger:
        layout.onnx.write_bytes(model_that_sees([]))
        digest = hashlib.sha256(layout.onnx.read_bytes()).hexdigest()
        ledger.put_current_model(Model(digest, None, None, {"map50": 0.5, "map50_95": 0.4}, str(layout.onnx), current=True, created=1.0))
        ledger.add_release(digest)


def test_the_search_finds_what_it_looks_for() -> None:
    for secret in (BROKER.encode(), aes_key(SecretStr(MODEL_KEY)).get_secret_value()):
        for before in (b"", b"a", b"ab"):
            whole = before + secret + b" and more"
            hidden = [whole, whole.hex().encode(), base64.b64encode(whole), base64.urlsafe_b64encode(whole), quote(whole, safe="").encode()]
            assert found({"it": secret}, {str(number): text for number, text in enumerate(hidden)}) == [f"it in {n}" for n in range(5)]
    assert found({"it": BROKER.encode()}, {"there": b"refused (RABBITMQ_PASSWORD)"}) == []


def test_when_all_goes_well_no_secret_is_said_or_left(place: Place, object_store: ObjectStore, platform_api: PlatformApi) -> None:
    """Annotations come in, a release is published, a training's worker runs, commands tell; everything at level debug."""
    site = place.site
    up, down = object_store.uploader, object_store.downloader
    platform_api.serve_cdn(host=object_store.endpoint, downloader=(down.key, down.secret), uploader=(up.key, up.secret))
    place.secrets |= {"real uploader": up.secret.encode(), "real downloader": down.secret.encode()}
    place.secrets["real broker"] = site.environment["RABBITMQ_PASSWORD"].encode()
    have_a_release_wait(site)
    shift = scenario(40, seed=5)
    with site.operator.daemon(environment=site.environment) as daemon:
        site.publish(shift.messages)
        daemon.wait_for_status(lambda status: bool(ingested(shift).items() <= status["annotations"].items()), "everything is ingested")
        daemon.wait_for_event("release.published")
        place.secrets |= {f"token {number}": token.encode() for number, token in enumerate(platform_api.tokens._issued)}
        place.command("train", "now")
        worker = daemon.wait_for_event("worker.started")["pid"]
        place.said.append(Path(f"/proc/{worker}/environ").read_text())
        for arguments in (["status"], ["status", "--json"], ["doctor"], ["config", "show"], ["model", "verify"], ["model", "list"]):
            assert place.command(*arguments) == 0
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for_event("config.reloaded")
    site.operator.end_workers()
    assert len(place.secrets) >= 16
    for inside in ALLOWED:
        assert stat.S_IMODE((site.root / inside).stat().st_mode) == 0o600
    assert stat.S_IMODE(site.operator.config.stat().st_mode) & 0o007 == 0
    assert place.leaks() == []


def test_what_is_refused_is_not_told(place: Place, platform_api: PlatformApi) -> None:
    """First the broker and the object store refuse; after a reload the platform; after another nothing speaks TLS."""
    site = place.site
    site.overrides["api"] = {"hardware": HARDWARE}
    wrong = {"RABBITMQ_PASSWORD": BROKER}
    site.configure(wrong)
    have_a_release_wait(site)
    with site.operator.daemon(environment=site.environment | wrong) as daemon:
        assert "refuses the user" in daemon.wait_for_event("stream.disconnected")["why"]
        assert "refused (SignatureDoesNotMatch)" in daemon.wait_for_event("release.waiting")["why"]
        assert place.command("doctor", *OUTSIDE) == 1
        platform_api.users["daemon@example.org"].password = "another"
        platform_api.tokens.revoke_all()
        daemon.process.send_signal(signal.SIGHUP)
        assert "refuses /login" in daemon.wait_for_event("release.waiting", retry_in_s=None)["why"]
        assert place.command("doctor", "--json", *OUTSIDE) == 1
        for arguments in (["status"], ["status", "--json"], ["model", "verify"]):
            place.command(*arguments)
        site.overrides["stream"] = {"tls": True}
        site.configure(wrong | {"AZAION_API_URL": platform_api.url.replace("http:", "https:")})
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for_event("platform.retry")
    assert place.leaks() == []


def test_a_crash_tells_what_was_done_and_no_secret(place: Place) -> None:
    program = """
import azaion_daemon.daemon as daemon
from azaion_daemon.cli import main

async def crash(self):
    settings, session = self._reloader.settings, self._platform._session
    key = daemon.aes_key_of(settings)
    hardware = await self._platform.hardware()
    raise RuntimeError(f"{settings} {settings!r} {session} {session.token} {key} {hardware} {settings.model_dump()} {vars(self)}")

from azaion_daemon.publish.keys import aes_key
daemon.aes_key_of = lambda settings: aes_key(settings.publish.model_key)
daemon.Daemon._work = crash
main()
"""
    with (
        pytest.raises(SandboxError, match="ended with status 1"),
        place.site.operator.daemon([sys.executable, "-c", program]) as daemon,
    ):
        daemon.wait_for_event("daemon.ready")
    crashed = [event for event in daemon.events() if event["event"] == "daemon.crashed"]
    assert ["RuntimeError: api=ApiSettings" in event["exception"] for event in crashed] == [True]
    assert place.leaks() == []


BROKEN = {
    "a name for YAML": ("stream", f"  password: *{BROKER[:16]}\n"),
    "a tag for YAML": ("stream", f"  password: !{BROKER[:16]} x\n"),
    "an anchor alone": ("stream", f"  password: &{BROKER[:16]}\n  password: %{BROKER[:16]}\n"),
    "a colon in it": ("stream", f"  password: a: {BROKER[:16]}: b\n"),
    "a quote that does not end": ("stream", f'  password: "{BROKER[:16]}\n'),
    "an escape that YAML does not know": ("stream", f'  password: "\\q{BROKER[:16]}"\n'),
    "another type": ("stream", f"  password: [{BROKER[:16]}]\n"),
    "in the place of a number": ("stream", f"  port: {BROKER[:16]}\n"),
    "in the place of a choice": ("stream", f"  on_mismatch: {BROKER[:16]}\n"),
    "in an address": ("api", f"  url: http://user:{ACCOUNT[:17]}@127.0.0.1\n"),
    "in an address without a host": ("api", f"  url: http://user:{ACCOUNT[:17]}@\n"),
    "under a wrong name": ("api", f"  pasword: {ACCOUNT[:17]}\n"),
    "as a schedule": ("trigger", f"  schedule: {ACCOUNT[:17]}\n"),
    "as a time zone": ("trigger", f"  schedule_timezone: {ACCOUNT[:17]}\n"),
    "as an extension": ("ingest", f"  image_extensions: [{ACCOUNT[:17]}]\n"),
    "as a directory": ("directories", f"  data: /{ACCOUNT[:17]}\n"),
    "as another root": ("directories", f"  root: {ACCOUNT[:17]}\n"),
}


def test_no_fault_of_a_configuration_shows_what_stands_there(place: Place) -> None:
    config = place.site.operator.config
    whole = config.read_text()
    with place.site.daemon() as daemon:
        daemon.wait_for_event("daemon.ready")
        for number, (case, (section, line)) in enumerate(BROKEN.items(), 1):
            config.write_text(f"{section}:\n{line}" + whole.replace(f"{section}:\n", f"{section}_:\n", 1))
            if number % 6 == 1:  # a process each, which takes its time
                assert place.command("config", "check") == os.EX_CONFIG, case
            daemon.process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 30
            while sum(event["event"] == "config.reload_failed" for event in daemon.events()) < number:
                assert time.monotonic() < until, case
                time.sleep(0.02)
        config.write_text(whole[: len(whole) // 2])
        place.command("config", "show")
    config.write_text(whole)
    place.command("config", "render", "--env-file", "config.yaml")
    assert place.leaks() == []
    faults = [json.loads(line).get("error") for line in place.site.operator.log.read_text().splitlines()]
    assert any("not valid YAML: found undefined alias '…'" in fault for fault in faults if fault)
