"""What `doctor` says of this machine, against the real stores: each thing that makes a release fail is named before one does."""

import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import click
import pytest
import yaml
from aiohttp import web
from click.testing import CliRunner, Result

from azaion_daemon.cli.common import Commands
from azaion_daemon.cli.health import doctor
from azaion_daemon.errors import OutsideError
from azaion_daemon.ops.doctor.findings import Finding, Outcome
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.ops.doctor.publishing import subjects
from azaion_daemon.ops.doctor.rendering import render_doctor
from azaion_daemon.ops.doctor.running import look
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.publish.probe import OnnxProbe
from azaion_daemon.publish.refusal import RefusedLogin
from azaion_daemon.publish.signing import SigningKeys
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.settings import load_settings
from azaion_daemon.store.layout import Layout
from tests.integration.publishing import MODEL_KEY, Front
from tests.integration.test_publish_release import s3_error
from tests.integration.test_published import Place

HARDWARE = "CPU: TestCPU. GPU: TestGPU. Memory: 16384. DriveSerial: SN123"
HEALTHY = {
    "settings": "ok",
    "root directory": "ok",
    "signing key": "ok",
    "ONNX Runtime": "ok",
    "platform": "ok",
    "platform login": "ok",
    "platform hardware": "ok",
    "platform folder": "ok",
    "CDN credentials": "ok",
    "CDN upload": "ok",
    "CDN download": "ok",
    "CDN removal": "ok",
}


@click.group(cls=Commands)
def cli() -> None:
    """As the whole command line has it."""


cli.add_command(doctor)


class Practice(Place):
    """Examines a root and what it publishes to."""

    def examine(self, *arguments: str) -> Result:
        only = [word for what in ("settings", "root directory", "publishing") for word in ("--only", what)]
        return CliRunner().invoke(cli, ["doctor", *only, *arguments, "--config", str(self.config)])

    def findings(self) -> dict[str, dict[str, str]]:
        result = self.examine("--json")
        document = json.loads(result.stdout)
        broken = any(one["outcome"] == "broken" for one in document["findings"])
        assert (result.exit_code, document["ok"]) == ((1, False) if broken else (0, True))
        secrets = [MODEL_KEY, self.user.password, self.store.uploader.secret, self.store.downloader.secret, "SN123"]
        assert not [secret for secret in secrets if secret in result.output]
        assert not [secret for secret in secrets if secret in render_doctor(document)]
        return {one["subject"]: one for one in document["findings"]}

    def outcomes(self) -> dict[str, str]:
        return {name: one["outcome"] for name, one in self.findings().items()}

    async def looked_at(self) -> dict[str, Finding]:
        """The same without the command line."""
        settings = load_settings(self.config)
        async with PlatformClient(settings.api, self.layout.hardware) as platform, AsyncExitStack() as opened:
            return await look(subjects(settings), Patient(settings, self.layout, platform, opened))

    def configure_api(self, **values: str | None) -> None:
        document = yaml.safe_load(self.config.read_text())
        document["api"] = {key: value for key, value in {**document["api"], **values}.items() if value is not None}
        self.config.write_text(yaml.safe_dump(document))


@pytest.fixture
def place(tmp_path: Path, platform_api: PlatformApi, platform_user: User, object_store: ObjectStore) -> Iterator[Practice]:
    object_store.grant_read(True)  # this store lets nobody remove what he may not see
    made = Practice(tmp_path, platform_api, platform_user, object_store)
    SigningKeys(made.layout, None).load_or_make()
    yield made
    object_store.grant_read(False)


def test_a_healthy_machine_is_called_so_and_nothing_is_left_behind(place: Practice) -> None:
    result = place.examine()
    assert result.exit_code == 0, result.output
    assert "Everything that was checked is as it should be." in result.stdout
    assert place.outcomes() == HEALTHY
    with pytest.raises(OutsideError, match="not there"):
        place.get(f"{place.name}.doctor")


def test_a_newer_server_hands_out_no_credentials_and_a_file_of_them_is_as_good(place: Practice) -> None:
    place.platform_api.generation = "new"
    found = place.findings()
    assert found["CDN credentials"]["outcome"] == "broken"
    assert "publish.cdn_credentials_file" in found["CDN credentials"]["remedy"]
    assert found["CDN upload"]["outcome"] == "not checked"
    place.credentials_from_a_file()
    assert place.outcomes() == HEALTHY


def test_an_uploader_that_may_not_remove_is_a_warning(place: Practice) -> None:
    place.store.grant_read(False)
    assert place.outcomes() == HEALTHY | {"CDN removal": "warning"}


@pytest.mark.parametrize("kept", [False, True])
def test_another_machine_is_shown_what_it_said_and_where_that_is_from(place: Practice, kept: bool) -> None:  # noqa: FBT001
    place.user.hardware = "CPU: the old server"
    if kept:
        place.layout.hardware.write_text(HARDWARE)
    place.configure_api(hardware=None if kept else HARDWARE)
    found = place.findings()
    hardware = found["platform hardware"]
    assert hardware["outcome"] == "broken"
    assert "CPU: TestCPU. GPU: TestGPU. Memory: 16384. DriveSerial: S*** of 5 characters" in hardware["detail"]
    assert (str(place.layout.hardware) if kept else "from api.hardware") in hardware["detail"]
    assert "Set api.hardware to the registered string" in hardware["remedy"]
    assert found["CDN credentials"]["outcome"] == "not checked"


def test_a_wrong_password_is_tried_once_a_run_and_hides_nothing_else(place: Practice) -> None:
    place.credentials_from_a_file()
    place.configure_api(password="last quarter's")
    result = place.examine("--json")
    found = {one["subject"]: one for one in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1
    assert place.user.failures == 1
    assert found["platform login"]["outcome"] == "broken"
    assert "AZAION_API_PASSWORD" in found["platform login"]["remedy"]
    assert found["platform hardware"]["outcome"] == "not checked"
    assert found["CDN download"]["outcome"] == "ok"
    assert not place.layout.refused_login.exists()


def test_a_login_that_was_refused_before_is_not_tried_again(place: Practice) -> None:
    RefusedLogin(place.layout.refused_login).keep(load_settings(place.config).api, "It refuses the password. Correct AZAION_API_PASSWORD.")
    login = place.findings()["platform login"]
    assert (login["outcome"], login["remedy"]) == ("broken", "Correct AZAION_API_PASSWORD")
    assert "not tried again" in login["detail"]
    assert place.platform_api.calls["POST /login"] == 0


@pytest.mark.parametrize(("status", "wait"), [(423, "60 s"), (429, "1 s")])
def test_a_platform_that_asks_for_patience_is_asked_once(place: Practice, status: int, wait: str) -> None:
    place.platform_api.fail_next("/login", status)
    result = place.examine("--json")
    login = next(one for one in json.loads(result.stdout)["findings"] if one["subject"] == "platform login")
    assert login["outcome"] == "broken"
    assert f"left alone for {wait}" in login["detail"]
    assert place.platform_api.calls["POST /login"] == 1


def test_a_platform_that_is_away_hides_neither_the_store_nor_this_machine(place: Practice) -> None:
    place.credentials_from_a_file()
    place.platform_api.down = True
    assert place.outcomes() == HEALTHY | {
        "platform": "broken",
        "platform login": "not checked",
        "platform hardware": "not checked",
        "platform folder": "not checked",
    }


@pytest.mark.parametrize(("url", "word"), [("http://no-such-host.invalid", "DNS"), ("https://127.0.0.1:{port}", "api.ca_file")])
def test_names_and_certificates_are_told_from_outages(place: Practice, url: str, word: str) -> None:
    place.configure_api(url=url.format(port=place.platform_api.url.rpartition(":")[2]))
    platform = place.findings()["platform"]
    assert platform["outcome"] == "broken"
    assert word in platform["remedy"]


def test_a_store_that_is_away_is_broken_in_time(place: Practice) -> None:
    place.cdn_yaml["host"] = "http://127.0.0.1:9"
    place.credentials_from_a_file()
    begun = time.monotonic()
    result = place.examine("--json")
    assert time.monotonic() - begun < 60
    found = {one["subject"]: one["outcome"] for one in json.loads(result.stdout)["findings"]}
    assert found == HEALTHY | {"CDN upload": "broken", "CDN download": "not checked", "CDN removal": "not checked"}


def test_an_uploader_without_rights_is_named(place: Practice) -> None:
    down = place.store.downloader
    place.cdn_yaml |= {"uploader_access_key": down.key, "uploader_access_secret": down.secret}
    place.credentials_from_a_file()
    upload = place.findings()["CDN upload"]
    assert upload["outcome"] == "broken"
    assert "AccessDenied" in upload["detail"]
    assert "access keys" in upload["remedy"]


async def test_clocks_that_differ_are_called_that(place: Practice, front: tuple[str, Front]) -> None:
    place.cdn_yaml["host"] = front[0]
    place.credentials_from_a_file()
    front[1].on_request = lambda _: s3_error(403, "RequestTimeTooSkewed")
    upload = (await place.looked_at())["CDN upload"]
    assert (upload.outcome, "clocks differ" in upload.detail, "timedatectl" in upload.remedy) == (Outcome.BROKEN, True, True)


async def test_a_cache_before_the_store_is_found_and_the_object_is_removed_all_the_same(place: Practice, front: tuple[str, Front]) -> None:
    async def stale(_: int, what: str, answer: web.Response) -> web.Response:
        return web.Response(body=b"of yesterday") if what.startswith("GET") else answer

    place.cdn_yaml["host"] = front[0]
    place.credentials_from_a_file()
    front[1].on_answer = stale
    found = await place.looked_at()
    assert (found["CDN download"].outcome, "cache" in found["CDN download"].remedy) == (Outcome.BROKEN, True)
    assert front[1].seen[-1] == f"DELETE /models/{place.name}.doctor"
    assert found["CDN removal"].outcome is Outcome.OK


def test_before_init_it_says_so_and_makes_nothing(place: Practice, tmp_path: Path) -> None:
    place.layout = Layout(tmp_path / "not-yet")
    place.configure()
    place.configure_api(hardware=None)
    found = place.findings()
    assert found["root directory"]["outcome"] == "broken"
    assert "azaion-daemon init" in found["root directory"]["remedy"]
    assert found["signing key"]["outcome"] == "warning"
    assert found["platform login"]["outcome"] == "ok"
    assert found["platform hardware"]["outcome"] == "not checked"
    assert found["CDN upload"]["outcome"] == "not checked"
    assert place.user.hardware is None
    assert not place.layout.root.exists()
    place.configure_api(hardware="h")
    assert place.outcomes() == HEALTHY | {"root directory": "broken", "signing key": "warning"}


def test_keys_that_are_missing_open_or_lost_are_told_apart(place: Practice) -> None:
    key = place.layout.signing_key
    key.chmod(0o644)
    found = place.findings()["signing key"]
    assert (found["outcome"], "open to others" in found["detail"]) == ("broken", True)
    key.unlink()
    found = place.findings()["signing key"]
    assert (found["outcome"], "is gone" in found["detail"]) == ("broken", True)
    place.layout.signing_public_key.unlink()
    place.configure(model_key=None)
    assert place.outcomes() == HEALTHY | {"signing key": "warning", "settings": "warning"}
    assert not key.exists()


def test_a_configuration_that_cannot_be_used_ends_it_as_other_commands(place: Practice) -> None:
    place.config.write_text("api: 1")
    result = place.examine("--json")
    assert (result.exit_code, result.stdout) == (78, "")


async def test_without_onnx_runtime_there_is_a_warning(place: Practice) -> None:
    settings = load_settings(place.config)
    async with PlatformClient(settings.api, place.layout.hardware) as platform, AsyncExitStack() as opened:
        patient = Patient(settings, place.layout, platform, opened, probe=OnnxProbe(module="no_such_runtime"))
        found = await look([one for one in subjects(settings) if one.name == "ONNX Runtime"], patient)
    assert found["ONNX Runtime"].outcome is Outcome.WARNING


def test_what_to_do_stands_below_what_was_found() -> None:
    broken = {"subject": "root", "outcome": "broken", "detail": "it is not there", "remedy": "Make it"}
    unchecked = {"subject": "store", "outcome": "not checked", "detail": "it needs the root", "remedy": None}
    assert render_doctor({"ok": False, "findings": [broken, unchecked]}).splitlines() == [
        "broken       root   it is not there",
        "             -> Make it",
        "not checked  store  it needs the root",
        "1 thing is broken: the daemon could not do all of its work. 1 could not be checked.",
    ]
    warned = broken | {"outcome": "warning"}
    assert render_doctor({"ok": True, "findings": [warned]}).endswith("see what is warned of.")
