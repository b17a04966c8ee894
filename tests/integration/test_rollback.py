"""Going back to an older release, with the real daemon: asked for while it runs, and while it does not."""

import asyncio
import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.errors import OperatorError
from azaion_daemon.ops.published import roll_back
from azaion_daemon.publish.credentials import credentials_source
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.publish.release import Publisher
from azaion_daemon.publish.signing import SigningKeys
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.consumer import Consumer
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.settings import load_settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger
from azaion_daemon.store.records import Model
from tests.harness import Site
from tests.integration.test_sandbox_world import model_that_sees


def model_called(name: str) -> bytes:
    """A model with a doc_string, so that each is another one."""
    return model_that_sees([]) + bytes([0x32, len(name)]) + name.encode()


@pytest.fixture
def site(tmp_path: Path, broker: Broker, stream: str, platform_api: PlatformApi, platform_user: User, object_store: ObjectStore) -> Site:
    """A daemon's place with three published releases, of the models one, two and three."""
    up, down = object_store.uploader, object_store.downloader
    platform_api.serve_cdn(host=object_store.endpoint, downloader=(down.key, down.secret), uploader=(up.key, up.secret))
    made = Site(tmp_path, broker, stream)
    made.environment |= {
        "AZAION_API_URL": platform_api.url,
        "AZAION_API_EMAIL": platform_user.email,
        "AZAION_API_PASSWORD": platform_user.password,
    }
    made.overrides |= {"publish": {"name": f"{stream}.onnx"}, "api": {"hardware": "h"}}
    made.prepare()
    layout, settings = Layout(made.root), load_settings(made.operator.config)

    async def publish(model: Path, serial: int) -> None:
        async with PlatformClient(settings.api, layout.hardware) as client:
            await Publisher(settings.publish, client, credentials_source(settings, client), layout).publish(model, serial)

    with closing(Ledger(layout.ledger)) as ledger:
        for name in ("one", "two", "three"):
            kept = layout.models / name / "azaion.onnx"
            kept.parent.mkdir()
            kept.write_bytes(model_called(name))
            digest = hashlib.sha256(kept.read_bytes()).hexdigest()
            ledger.put_current_model(Model(digest, None, None, {"map50": 0.5, "map50_95": 0.4}, str(kept), current=True, created=1.0))
            serial = ledger.add_release(digest).serial
            asyncio.run(publish(kept, serial))
            ledger.update_release(serial, "published")
        layout.onnx.write_bytes(kept.read_bytes())
    return made


def release_4_is_published(status: dict[str, Any]) -> bool:
    last = status["releases"][-1]
    return (last["serial"], last["state"]) == (4, "published")


def taken(site: Site, user: User, store: ObjectStore, last_serial: int = 0) -> tuple[int, bytes]:
    settings = load_settings(site.operator.config)
    consumer = Consumer(str(settings.api.url), user.email, "h", user.password, "the model key", settings.publish.name, region=store.region)
    found = consumer.download_signed(SigningKeys(Layout(site.root), None).public().pem.encode(), last_serial=last_serial)
    return found.serial, found.onnx


def test_a_running_daemon_goes_back_and_consumers_get_the_older_model_under_a_new_serial(
    site: Site, platform_user: User, object_store: ObjectStore
) -> None:
    layout = Layout(site.root)
    assert taken(site, platform_user, object_store) == (3, model_called("three"))
    with site.daemon() as daemon:
        daemon.wait_for_status(lambda status: status["state"] == "running", "the daemon runs")
        said = roll_back(layout, None, "it sees boats that are not there")
        assert "release 2" in said
        assert "published as release 4" in said
        daemon.wait_for_status(release_4_is_published, "release 4 is published")
        assert daemon.wait_for_event("release.rolled_back")["why"] == "it sees boats that are not there"
        with pytest.raises(OperatorError, match=r"release 9 was never published.*Published are: 1, 2, 3, 4"):
            roll_back(layout, 9, "r")
        (layout.models / "one" / "azaion.onnx").unlink()
        with pytest.raises(OperatorError, match="azaion-daemon model fetch 1 --output"):
            roll_back(layout, None, "further back")
        current = daemon.wait_for_status(lambda _: True, "a status")["models"]["current"]
        assert current["sha256"] == hashlib.sha256(layout.onnx.read_bytes()).hexdigest()
    assert layout.onnx.read_bytes() == model_called("two")
    assert taken(site, platform_user, object_store, last_serial=3) == (4, model_called("two"))


def test_without_a_daemon_its_next_start_goes_back_once(site: Site, platform_user: User, object_store: ObjectStore) -> None:
    assert "No daemon is running" in roll_back(Layout(site.root), 1, "r")
    for _ in range(2):
        with site.daemon() as daemon:
            daemon.wait_for_status(release_4_is_published, "release 4 is published")
    assert taken(site, platform_user, object_store, last_serial=3) == (4, model_called("one"))
    with closing(Ledger(Layout(site.root).ledger, read_only=True)) as ledger:
        assert [release.serial for release in ledger.releases()] == [1, 2, 3, 4]
    assert not [file for file in (site.root / "state" / "requests").iterdir() if "rollback" in json.loads(file.read_text()).values()]
