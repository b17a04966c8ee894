"""What is published, as operators and consumers look at it: the key, the manifest, the check of it all, downloads."""

import asyncio
import json
import stat
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from azaion_daemon.cli.common import Commands
from azaion_daemon.cli.published import fetch, key, rollback, verify
from azaion_daemon.ops.published import render_verify
from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.credentials import CdnCredentials, parse_credentials
from azaion_daemon.publish.joining import Joiner
from azaion_daemon.publish.keys import aes_key
from azaion_daemon.publish.manifest import Content, Manifest, Part, ReleaseFacts, SmallPart, sign, versioned_manifest
from azaion_daemon.publish.manifest import verify as verified
from azaion_daemon.publish.names import PartNames
from azaion_daemon.publish.packing import BigPart, padding, small_part
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.publish.release import Publisher
from azaion_daemon.publish.signing import SigningKey, SigningKeys
from azaion_daemon.sandbox import formulas
from azaion_daemon.sandbox.consumer import Consumer, digest
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.settings import load_settings
from azaion_daemon.store.ledger import Ledger
from tests.integration.publishing import NO_PROBE
from tests.integration.test_sandbox_world import model_that_sees
from tests.unit.builders import make_root, settings_on

MODEL_KEY = "a model key"
FACTS = ReleaseFacts(job="j", dataset_id="d", metrics={"map50": 0.9}, input_shape=(2, 3, 64, 64), output_shape=(2, 300, 6))


@click.group(cls=Commands)
def model() -> None:
    """The commands, in a group as they will be."""


for _command in (key, verify, fetch, rollback):
    model.add_command(_command)


@dataclass
class Place:
    """A root with a configuration, and the two stores that it publishes to."""

    directory: Path
    platform_api: PlatformApi
    user: User
    store: ObjectStore

    def __post_init__(self) -> None:
        self.layout = make_root(self.directory / "root")
        self.name = f"azaion{uuid.uuid4().hex[:8]}.onnx"
        self.config = self.directory / "config.yaml"
        up, down = self.store.uploader, self.store.downloader
        self.cdn_yaml = {
            "host": self.store.endpoint,
            "downloader_access_key": down.key,
            "downloader_access_secret": down.secret,
            "uploader_access_key": up.key,
            "uploader_access_secret": up.secret,
        }
        self.platform_api.resources.write("", "cdn.yaml", yaml.safe_dump(self.cdn_yaml).encode())
        self.configure()

    def configure(self, **publish: Any) -> None:
        api = {"url": self.platform_api.url, "email": self.user.email, "password": self.user.password, "hardware": "h"}
        values = {"model_key": MODEL_KEY, "name": self.name, **publish}
        settings = settings_on(self.layout, api=api, publish=values)
        document = settings.model_dump(mode="json", exclude_defaults=True)
        document["api"] |= api
        document["publish"] = values
        document["stream"]["password"] = "p"
        self.config.write_text(yaml.safe_dump(document))
        assert load_settings(self.config).publish.name == self.name

    def credentials_from_a_file(self) -> None:
        file = self.directory / "cdn.yaml"
        file.write_text(yaml.safe_dump(self.cdn_yaml))
        self.configure(cdn_credentials_file=str(file))

    def file(self, serial: int, content: bytes | None = None) -> Path:
        path = self.directory / f"model-{serial}.onnx"
        path.write_bytes(model_that_sees([]) + b"\x32\x01" + bytes([64 + serial]) if content is None else content)
        return path

    def publish(self, serial: int, content: bytes | None = None) -> bytes:
        """Publish a model; its bytes."""
        path = self.file(serial, content)
        settings = load_settings(self.config)

        async def release() -> None:
            async with PlatformClient(settings.api, self.layout.hardware) as client:
                await Publisher(settings.publish, client, self.credentials, self.layout, probe=NO_PROBE).publish(path, serial, FACTS)

        asyncio.run(release())
        return path.read_bytes()

    async def credentials(self) -> CdnCredentials:
        return parse_credentials(yaml.safe_dump(self.cdn_yaml).encode(), source="test")

    def put(self, name: str, content: bytes) -> None:
        async def put() -> None:
            async with CdnClient(await self.credentials(), "models", region=self.store.region) as cdn:
                await cdn.put(name, content)

        asyncio.run(put())

    def get(self, name: str) -> bytes:
        async def get() -> bytes:
            async with CdnClient(await self.credentials(), "models", region=self.store.region) as cdn:
                return b"".join([chunk async for chunk in cdn.download(name)])

        return asyncio.run(get())

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(model, [*arguments, "--config", str(self.config)])

    def checks(self, result: Result) -> dict[str, str]:
        return {
            check["what"].replace(self.name.removesuffix(".onnx"), "azaion"): check["outcome"]
            for check in json.loads(result.stdout)["checks"]
        }

    def words(self, result: Result) -> str:
        """The same for people."""
        return render_verify(json.loads(result.stdout))

    def consumer(self) -> Consumer:
        return Consumer(self.platform_api.url, self.user.email, "h", self.user.password, MODEL_KEY, self.name, region=self.store.region)

    def pem(self) -> bytes:
        return SigningKeys(self.layout, None).public().pem.encode()


@pytest.fixture
def place(tmp_path: Path, platform_api: PlatformApi, platform_user: User, object_store: ObjectStore) -> Place:
    return Place(tmp_path, platform_api, platform_user, object_store)


def test_the_public_key_is_printed_and_the_private_one_is_not(place: Place) -> None:
    result = place.run("key")
    assert result.exit_code == 0
    assert result.stdout.encode() == place.pem()
    document = json.loads(place.run("key", "--json").stdout)
    assert document["pem"] == result.stdout
    assert document["key_id"] in result.stderr
    assert document["base64"] in result.stderr
    assert place.layout.signing_key.read_text().splitlines()[1] not in result.output + json.dumps(document)


def test_without_a_root_or_a_key_it_ends_as_a_configuration_does(place: Place, tmp_path: Path) -> None:
    assert place.run("verify").exit_code == 78  # no key to verify with
    place.configure(signing_key_file=str(tmp_path / "none.pem"))
    assert place.run("key").exit_code == 78
    place.configure()
    place.layout.root_id.unlink()
    assert place.run("key").exit_code == 78
    assert not place.layout.signing_key.exists()
    place.config.unlink()
    assert place.run("verify").exit_code == 78


def test_a_release_has_a_manifest_under_both_names_and_a_consumer_needs_nothing_else(place: Place) -> None:
    content = place.publish(1)
    current = place.get(f"{place.name}.manifest.json")
    versioned = PartNames.versioned(place.name, 1)
    assert place.get(versioned_manifest(place.name, 1)) == current
    manifest = verified(current, [SigningKeys(place.layout, None).public()])
    assert (manifest.serial, manifest.name, manifest.big.name, manifest.small.name) == (1, place.name, versioned.big, versioned.small)
    assert (manifest.job, manifest.dataset_id, manifest.metrics, manifest.input_shape) == ("j", "d", {"map50": 0.9}, (2, 3, 64, 64))
    taken = place.consumer().download_signed(place.pem())
    assert (taken.serial, taken.onnx) == (1, content)


def test_a_consumer_believes_one_key_alone_and_never_goes_back(place: Place) -> None:
    place.publish(1)
    first = place.get(f"{place.name}.manifest.json")
    second = place.publish(2)
    taken = place.consumer().download_signed(place.pem(), last_serial=1)
    assert (taken.serial, taken.onnx) == (2, second)
    place.put(f"{place.name}.manifest.json", first)
    with pytest.raises(SandboxError, match=r"release 1 of .*; 2 was there before"):
        place.consumer().download_signed(place.pem(), last_serial=taken.serial)
    with pytest.raises(SandboxError, match="not signed with the key that the consumer trusts"):
        place.consumer().download_signed(SigningKey(Ed25519PrivateKey.generate()).public.pem.encode())
    big = PartNames.versioned(place.name, 1).big
    place.put(big, bytes(len(place.get(big))))
    with pytest.raises(SandboxError, match="big of release 1 is not what was signed"):
        place.consumer().download_signed(place.pem())


def test_what_is_published_is_verified_end_to_end(place: Place) -> None:
    place.publish(1)
    result = place.run("verify", "--json")
    assert result.exit_code == 0, result.output
    assert place.checks(result) == {
        "azaion.onnx.manifest.json": "ok",
        "azaion-1.onnx.manifest.json": "ok",
        "azaion-1.onnx.big": "ok",
        "azaion-1.onnx.small": "ok",
        "azaion.onnx.small": "ok",
        "azaion.onnx.big": "ok",
        "ONNX Runtime": "ok",
    }
    assert json.loads(result.stdout)["serial"] == 1
    assert "What is published is as it was signed." in place.words(result)
    assert MODEL_KEY not in result.output


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damage_versioned_big(place: Place) -> None:
    name = PartNames.versioned(place.name, 2).big
    place.put(name, flip(place.get(name), 9000))


def damage_current_big(place: Place) -> None:
    place.put(f"{place.name}.big", flip(place.get(f"{place.name}.big"), 9000))


def cut_current_big(place: Place) -> None:
    place.put(f"{place.name}.big", place.get(f"{place.name}.big")[:-7])


def show_the_old_big(place: Place) -> None:
    place.put(f"{place.name}.big", place.get(PartNames.versioned(place.name, 1).big))


def cut_current_small(place: Place) -> None:
    place.platform_api.resources.write("models", f"{place.name}.small", b"short")


def lengthen_versioned_big(place: Place) -> None:
    name = PartNames.versioned(place.name, 2).big
    place.put(name, place.get(name) + bytes(16))


def lengthen_current_big(place: Place) -> None:
    place.put(f"{place.name}.big", place.get(f"{place.name}.big") + bytes(16))


def lose_versioned_small(place: Place) -> None:
    place.platform_api.resources.path("models", PartNames.versioned(place.name, 2).small).unlink()


def forge_manifest(place: Place) -> None:
    envelope = place.get(f"{place.name}.manifest.json")
    manifest = verified(envelope, [SigningKeys(place.layout, None).public()])
    place.put(f"{place.name}.manifest.json", sign(manifest, SigningKey(Ed25519PrivateKey.generate())))


def show_the_old_manifest(place: Place) -> None:
    place.put(f"{place.name}.manifest.json", place.get(versioned_manifest(place.name, 1)))


def pretend_a_release_7(place: Place) -> None:
    place.put(versioned_manifest(place.name, 7), place.get(f"{place.name}.manifest.json"))


@pytest.mark.parametrize(
    ("damage", "failed", "said"),
    [
        (damage_versioned_big, {"azaion-2.onnx.big"}, "is not what was signed"),
        (lengthen_versioned_big, {"azaion-2.onnx.big"}, "is not what was signed"),
        (damage_current_big, {"azaion.onnx.big"}, "model rollback 2"),
        (lengthen_current_big, {"azaion.onnx.big"}, "longer than the one of release 2"),
        (cut_current_big, {"azaion.onnx.big", "ONNX Runtime"}, "are not whole"),
        (show_the_old_big, {"azaion.onnx.big"}, "decrypts to another model"),
        (cut_current_small, {"azaion.onnx.small", "azaion.onnx.big"}, "5 bytes"),
        (lose_versioned_small, {"azaion-2.onnx.small"}, "does not have it"),
        (forge_manifest, {"azaion.onnx.manifest.json"}, "is not by the key that is trusted"),
        (show_the_old_manifest, {"azaion.onnx.big"}, "release 1"),
    ],
)
def test_what_does_not_match_is_named_with_what_to_do(place: Place, damage: Callable[[Place], None], failed: set[str], said: str) -> None:
    place.publish(1)
    place.publish(2)
    damage(place)
    result = place.run("verify", "--json")
    assert result.exit_code == 1
    found = {what for what, outcome in place.checks(result).items() if outcome == "failed"}
    assert found - {"ONNX Runtime"} == failed - {"ONNX Runtime"}
    assert said in place.words(result)
    assert "What is published is not as it should be." in place.words(result)


def test_a_manifest_below_what_this_root_has_published_is_an_old_one(place: Place) -> None:
    place.publish(1)
    with closing(Ledger(place.layout.ledger)) as ledger:
        for _ in range(2):
            ledger.update_release(ledger.add_release("m").serial, "published")
    result = place.run("verify")
    assert result.exit_code == 1
    assert "release 2 was published from here: somebody shows an old one" in result.stdout


def sign_by_hand(place: Place, content: bytes) -> None:
    """Publish anything as release 1, as somebody would who has every key."""
    names, file, model_key = PartNames.versioned(place.name, 1), place.file(1, content), aes_key(SecretStr(MODEL_KEY))
    small = small_part(model_key)
    with BigPart(file, model_key, small) as big:
        ciphertext = big.readall()
    joiner = Joiner(model_key, small, padding_bytes=len(padding(len(content))))
    joiner.take(ciphertext)
    joined = joiner.finish()
    manifest = Manifest(
        name=place.name,
        serial=1,
        created=datetime.now(UTC),
        bucket="models",
        folder="models",
        small=SmallPart.of(names.small, small),
        big=Part(name=names.big, sha256=joined.big, size=len(ciphertext)),
        ciphertext=Content(sha256=joined.ciphertext, size=len(small) + len(ciphertext)),
        plaintext=Content(sha256=joined.plaintext, size=len(padding(len(content))) + len(content)),
        model=Content(sha256=joined.model, size=len(content)),
    )
    envelope = sign(manifest, SigningKeys(place.layout, None).load_or_make())
    for name in (f"{place.name}.manifest.json", versioned_manifest(place.name, 1)):
        place.put(name, envelope)
    for parts in (names, PartNames.current(place.name)):
        place.put(parts.big, ciphertext)
        place.platform_api.resources.write("models", parts.small, small)


def test_a_model_that_does_not_load_is_named(place: Place) -> None:
    sign_by_hand(place, b"no model" * 5000)
    result = place.run("verify", "--json")
    assert result.exit_code == 1
    assert {what for what, outcome in place.checks(result).items() if outcome == "failed"} == {"ONNX Runtime"}


def test_a_model_of_other_shapes_than_were_signed_is_named(place: Place) -> None:
    place.publish(1, model_that_sees([], output=(4, 300, 6)))
    result = place.run("verify", "--json")
    assert result.exit_code == 1
    assert {what for what, outcome in place.checks(result).items() if outcome == "failed"} == {"ONNX Runtime"}
    assert "the manifest says (2, 300, 6)" in place.words(result)


def test_a_small_of_another_release_goes_with_any_big_and_that_is_said(place: Place) -> None:
    place.publish(1)
    small = place.platform_api.resource("models", f"{place.name}.small")
    place.publish(2)
    place.platform_api.resources.write("models", f"{place.name}.small", small)
    result = place.run("verify")
    assert result.exit_code == 0, result.output
    assert "it is another release's, which goes with any .big" in result.stdout


@pytest.mark.parametrize("content", [bytes(3072), small_part(aes_key(SecretStr("another model key")), bytes(16))])
def test_a_small_that_goes_with_no_big_is_not_taken_for_another_releases(place: Place, content: bytes) -> None:
    place.publish(1)
    place.platform_api.resources.write("models", f"{place.name}.small", content)
    result = place.run("verify", "--json")
    assert result.exit_code == 1
    assert {what for what, outcome in place.checks(result).items() if outcome == "failed"} == {"azaion.onnx.small", "ONNX Runtime"}


def test_before_there_is_a_manifest_nothing_is_called_fine(place: Place) -> None:
    place.run("key")
    result = place.run("verify", "--json")
    assert result.exit_code == 1
    assert set(place.checks(result).values()) == {"failed", "not checked"}


def test_where_the_server_hands_out_no_files_it_is_said_what_cannot_be_checked(place: Place) -> None:
    place.credentials_from_a_file()
    place.platform_api.generation = "new"
    content = place.publish(1)
    result = place.run("verify", "--json")
    assert result.exit_code == 0, result.output
    checks = place.checks(result)
    assert {what for what, outcome in checks.items() if outcome != "ok"} == {"azaion-1.onnx.small", "azaion.onnx.small"}
    words = place.words(result)
    assert "hands out no files" in words
    assert "2 could not be checked." in words
    assert place.run("fetch", "--output", str(place.directory / "out.onnx")).exit_code == 0
    assert (place.directory / "out.onnx").read_bytes() == content


def test_another_machine_verifies_with_the_public_key_alone(place: Place, tmp_path: Path) -> None:
    place.publish(1)
    file = tmp_path / "consumer.pem"
    file.write_bytes(place.pem())
    (place.layout.signing_key).rename(tmp_path / "elsewhere.pem")
    place.layout.signing_public_key.unlink()
    assert place.run("verify").exit_code == 78
    assert place.run("verify", "--public-key", str(file)).exit_code == 0
    file.write_text("nothing")
    assert place.run("verify", "--public-key", str(file)).exit_code == 78


def test_a_store_that_is_away_is_no_mismatch_and_no_success(place: Place) -> None:
    place.publish(1)
    place.cdn_yaml["host"] = "http://127.0.0.1:9"
    place.credentials_from_a_file()
    result = place.run("verify")
    assert result.exit_code == 1
    assert "127.0.0.1:9" in result.stderr


def test_a_release_is_fetched_as_the_file_that_it_was(place: Place) -> None:
    first, second = place.publish(1), place.publish(2)
    output = place.directory / "out.onnx"
    output.write_bytes(b"what was there before")
    result = place.run("fetch", "--output", str(output), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"file": str(output), "serial": 2, "sha256": digest(second), "size": len(second)}
    assert output.read_bytes() == second
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert "100 %" in result.stderr
    assert place.run("fetch", "1", "--output", str(output)).exit_code == 0
    assert output.read_bytes() == first
    assert sorted(path.name for path in place.directory.glob(".*")) == []


def test_a_release_is_fetched_encrypted_without_a_model_key(place: Place) -> None:
    content = place.publish(1)
    place.configure(model_key=None)
    output = place.directory / "out.encrypted"
    assert place.run("fetch", "--encrypted", "--output", str(output)).exit_code == 0
    assert formulas.decrypt(output.read_bytes(), MODEL_KEY).endswith(content)
    assert place.run("fetch", "--output", str(output)).exit_code == 78


@pytest.mark.parametrize(
    ("damage", "arguments", "status", "said"),
    [
        (lambda _: None, ["9"], 1, "is not in the object store"),
        (damage_versioned_big, [], 1, "is not what was signed: it was replaced or is damaged. Nothing was written"),
        (damage_versioned_big, ["--encrypted"], 1, "is not what was signed"),
        (lengthen_versioned_big, [], 1, "is not what was signed"),
        (lengthen_versioned_big, ["--encrypted"], 1, "is not what was signed"),
        (forge_manifest, [], 1, "is not to be believed"),
        (lambda place: place.configure(model_key="another"), [], 78, "another model key"),
        (pretend_a_release_7, ["7"], 1, "somebody has put it there"),
    ],
)
def test_what_cannot_be_fetched_leaves_the_file_as_it_was(
    place: Place, damage: Callable[[Place], None], arguments: list[str], status: int, said: str
) -> None:
    place.publish(1)
    place.publish(2)
    damage(place)
    output = place.directory / "out.onnx"
    output.write_bytes(b"what was there before")
    result = place.run("fetch", *arguments, "--output", str(output))
    assert said in result.stderr
    assert result.exit_code == status
    assert output.read_bytes() == b"what was there before"
    assert list(place.directory.glob(".*")) == []


def test_a_directory_that_is_not_there_is_named(place: Place) -> None:
    place.publish(1)
    result = place.run("fetch", "--output", str(place.directory / "none" / "out.onnx"))
    assert result.exit_code == 78
    assert "--output" in result.stderr
