"""Every secret is changed as the operator's guide says, under a daemon that goes on running: `config render`, SIGHUP, nothing else."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from azaion_daemon.ops.published import roll_back
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.store.layout import Layout
from tests.harness import Site
from tests.integration.test_rollback import model_called, site

__all__ = ["site"]

REVOKED = ("revoked", "and of no use")


def reload(daemon: RunningDaemon, *applied: str) -> None:
    """SIGHUP, and what it must have changed. Nothing may wait for a restart."""
    before = len([event for event in daemon.events() if event["event"] == "config.reloaded"])
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for_status(lambda _: len(reloads(daemon)) > before, "the reload")
    assert (reloads(daemon)[-1]["applied"], reloads(daemon)[-1]["restart_required"]) == (list(applied), [])


def reloads(daemon: RunningDaemon) -> list[dict[str, Any]]:
    return [event for event in daemon.events() if event["event"] == "config.reloaded"]


def published(serial: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: (status["releases"][-1]["serial"], status["releases"][-1]["state"]) == (serial, "published")


def waits_because(word: str) -> Callable[[dict[str, Any]], bool]:
    return lambda status: word in (status["releases"][-1]["why"] or "")


def publish_again(site: Site, reason: str) -> None:
    """Step three of every rotation that consumers see: the present release once more, under the next serial."""
    roll_back(Layout(site.root), 3, reason)


def test_every_secret_of_a_release_is_rotated_without_a_restart(
    site: Site, platform_api: PlatformApi, platform_user: User, object_store: ObjectStore, tmp_path: Path
) -> None:
    """One daemon and one test, since what comes before a release takes its time."""
    up, down = (object_store.uploader.key, object_store.uploader.secret), (object_store.downloader.key, object_store.downloader.secret)
    store, credentials, signing = object_store.endpoint, tmp_path / "cdn.yaml", tmp_path / "signing.pem"
    (site.root / "state" / "signing.pem").rename(signing)
    (site.root / "state" / "signing.pub.pem").unlink()
    site.overrides["publish"] |= {"signing_key_file": str(signing)}
    site.configure()
    with site.daemon() as daemon:
        daemon.wait_for_event("stream.connected")

        platform_user.password = "rotated #2 $HOME"
        platform_api.tokens.revoke_all()
        write_secret(credentials, cdn_yaml(store, REVOKED, REVOKED))  # not yet those that the store has
        site.environment["AZAION_API_PASSWORD"] = platform_user.password
        site.overrides["publish"] |= {"cdn_credentials_file": str(credentials)}
        site.configure()
        reload(daemon, "api.password", "publish.cdn_credentials_file")
        publish_again(site, "a new password of the platform, new keys of the CDN")
        daemon.wait_for_status(waits_because("refused"), "the revoked keys are refused")
        write_secret(credentials, cdn_yaml(store, down, up))
        reload(daemon)
        daemon.wait_for_status(published(4), "release 4 is published")

        site.environment["AZAION_MODEL_KEY"] = "another key"
        site.configure()
        reload(daemon, "publish.model_key")
        key = Ed25519PrivateKey.generate()
        write_secret(signing, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        publish_again(site, "a new model key, a new signing key")
        daemon.wait_for_status(published(5), "release 5 is published")
        assert daemon.process.poll() is None

    public_key = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert site.operator.command("model", "key").encode() == public_key
    fetched = tmp_path / "fetched.onnx"
    site.operator.command("model", "fetch", "--output", str(fetched))
    assert fetched.read_bytes() == model_called("three")
    site.environment["AZAION_MODEL_KEY"] = "the model key"
    site.configure()
    assert "encrypted with another model key" in site.operator.try_command("model", "fetch", "--output", str(fetched)).stderr


def cdn_yaml(host: str, downloader: tuple[str, str], uploader: tuple[str, str]) -> bytes:
    pairs = {"downloader": downloader, "uploader": uploader}
    keys = "".join(f"{who}_access_key: '{key}'\n{who}_access_secret: '{secret}'\n" for who, (key, secret) in pairs.items())
    return f"host: {host}\n{keys}".encode()


def write_secret(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_bytes(content)
