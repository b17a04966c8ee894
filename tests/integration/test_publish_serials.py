"""Serial numbers only grow, and a manifest is the same however often its release is cut short."""

import asyncio
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from azaion_daemon.errors import AzaionError, OutsideError
from azaion_daemon.outbox import Outbox
from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.manifest import Manifest, ReleaseFacts, current_manifest, sign, verify, versioned_manifest
from azaion_daemon.publish.manifesting import SerialUsedError, fetch_manifest
from azaion_daemon.publish.signing import SigningKey, SigningKeyError, SigningKeys
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.records import Model
from tests.integration.publishing import Front, World
from tests.unit.builders import make_root


async def stored(world: World, name: str) -> bytes | None:
    direct = world.credentials.model_copy(update={"host": world.store.endpoint})
    async with CdnClient(direct, "models", region=world.store.region) as cdn:
        return await fetch_manifest(cdn, name)


async def put(world: World, name: str, content: bytes) -> None:
    direct = world.credentials.model_copy(update={"host": world.store.endpoint})
    async with CdnClient(direct, "models", region=world.store.region) as cdn:
        await cdn.put(name, content)


async def published(world: World) -> Manifest | None:
    envelope = await stored(world, current_manifest(world.name))
    return None if envelope is None else verify(envelope, [SigningKeys(world.layout, None).public()])


def forget_everything(world: World, directory: str, *, keep_key: bool = True) -> None:
    """Another root, as after a loss: the signing key comes out of a backup, or not."""
    before, world.layout = world.layout, Layout(world.root / directory)
    world.layout.releases.mkdir(parents=True)
    if keep_key:
        shutil.copy2(before.signing_key, world.layout.signing_key)


async def test_a_serial_below_what_was_published_is_not_used_although_everything_here_was_lost(world: World) -> None:
    await world.publish(world.model(7), 7)
    forget_everything(world, "anew")
    for serial in (1, 7):
        with pytest.raises(SerialUsedError, match=r"manifest\.json in the object store is of release 7") as caught:
            await world.publish(world.model(serial), serial)
        assert caught.value.highest == 7
    assert await world.consumed() == world.model(7).read_bytes()
    await world.publish(world.model(8), 8)
    assert await world.consumed() == world.model(8).read_bytes()


async def test_a_release_whose_manifest_never_became_the_current_one_counts_too(world: World, front: tuple[str, Front]) -> None:
    await world.publish(world.model(1), 1)
    current = f"PUT /models/{current_manifest(world.name)}"
    front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1] == current else None
    with pytest.raises(OutsideError):
        await world.publish(world.model(2), 2)
    front[1].on_request = lambda _: None
    forget_everything(world, "anew")
    with pytest.raises(SerialUsedError, match=r"-2\.onnx\.manifest\.json in the object store is of release 2"):
        await world.publish(world.model(3), 2)


async def test_the_records_alone_hold_back_an_older_serial(world: World) -> None:
    await world.publish(world.model(4), 4)
    with pytest.raises(SerialUsedError, match="release 4 was begun before, as its record says"):
        await world.publish(world.model(4), 3)
    with pytest.raises(SerialUsedError, match="another model"):
        await world.publish(world.model(5), 4)


async def test_a_manifest_of_a_lost_key_counts_as_far_as_that_can_do_no_harm(world: World) -> None:
    await world.publish(world.model(7), 7)
    manifest = await published(world)
    assert manifest is not None
    forget_everything(world, "anew", keep_key=False)
    with pytest.raises(SerialUsedError) as caught:
        await world.publish(world.model(1), 1)
    assert caught.value.highest == 7
    somebody = SigningKey(Ed25519PrivateKey.generate())
    await put(world, current_manifest(world.name), sign(manifest.model_copy(update={"serial": 1 << 52}), somebody))
    await world.publish(world.model(8), 8)
    after = await published(world)
    assert after is not None
    assert after.serial == 8


@pytest.mark.parametrize("garbage", [b"", b"{}", b"x" * 400_000])
async def test_what_is_no_manifest_holds_nothing_back(world: World, garbage: bytes) -> None:
    await put(world, current_manifest(world.name), garbage)
    await world.publish(world.model(1), 1)
    assert await published(world) is not None


async def test_the_outbox_publishes_under_the_next_free_serial_of_a_ledger_that_came_out_of_a_backup(
    world: World,
    tmp_path: Path,
) -> None:
    await world.publish(world.model(7), 7)
    layout = make_root(tmp_path / "restored")
    shutil.copy2(world.layout.signing_key, layout.signing_key)
    world.layout = layout
    ledger = LedgerThread(Ledger(layout.ledger))
    file = world.model(1)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    await ledger(ledger.ledger.put_current_model, Model(digest, None, "d", {}, str(file), current=True, created=1.0))
    released = asyncio.Event()

    class Watched:
        async def publish(self, model: Path, serial: int, facts: ReleaseFacts, **_: object):  # type: ignore[no-untyped-def] # noqa: ANN202
            async with world.client() as client:
                done = await world.publisher(client).publish(model, serial, facts)
            released.set()
            return done

        async def abort_uploads(self) -> None:
            raise AssertionError("a release waits: its attempt does it")

    outbox = Outbox(world.settings, ledger, Watched(), facts=lambda model: ReleaseFacts(dataset_id=model.dataset_id))
    await outbox.order(digest)
    running = asyncio.create_task(outbox.run())
    async with asyncio.timeout(60):
        await released.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [release.serial for release in ledger.ledger.releases()] == [8]
    await asyncio.to_thread(ledger.close)
    manifest = await published(world)
    assert manifest is not None
    assert (manifest.serial, manifest.dataset_id) == (8, "d")


async def test_an_end_at_any_of_the_last_requests_leaves_a_manifest_that_leads_to_a_whole_release_and_never_goes_back(
    world: World,
    front: tuple[str, Front],
) -> None:
    proxy = front[1]
    await world.publish(world.model(1), 1)
    serial, last, cut = 1, 1, 0
    before_the_manifest = proxy.requests - 7
    while True:
        serial += 1
        model = world.model(serial)
        attempt = asyncio.ensure_future(world.publish(model, serial))
        fail_at = proxy.requests + before_the_manifest + serial - 1
        proxy.on_request = lambda number, fail_at=fail_at: web.Response(status=400) if number >= fail_at else None  # type: ignore[misc]
        failed = (await asyncio.gather(attempt, return_exceptions=True))[0]
        proxy.on_request = lambda _: None
        if not isinstance(failed, BaseException):
            break
        assert isinstance(failed, AzaionError)
        seen = await published(world)
        assert seen is not None
        assert last <= seen.serial <= serial
        assert hashlib.sha256(await world.big(seen.big.name)).hexdigest() == seen.big.sha256
        between = await stored(world, versioned_manifest(world.name, serial))
        await world.publish(model, serial)
        after = await stored(world, versioned_manifest(world.name, serial))
        assert after == await stored(world, current_manifest(world.name))
        if between is not None:
            cut += 1
            assert after == between  # the same bytes, also when it is done again
        last = serial
    assert cut >= 3  # ends between the first and the last request of a manifest


async def test_a_signing_key_of_no_use_is_noticed_before_anything_is_uploaded(world: World, front: tuple[str, Front]) -> None:
    await world.publish(world.model(1), 1)
    world.layout.signing_key.write_bytes(b"torn")
    front[1].seen.clear()
    with pytest.raises(SigningKeyError, match="Restore it from a backup"):
        await world.publish(world.model(2), 2)
    assert [request for request in front[1].seen if not request.startswith("GET")] == []


async def test_a_key_that_was_replaced_in_between_signs_the_same_once_more(world: World, front: tuple[str, Front]) -> None:
    current = f"PUT /models/{current_manifest(world.name)}"
    front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1] == current else None
    with pytest.raises(OutsideError):
        await world.publish(world.model(1), 1)
    front[1].on_request = lambda _: None
    first = await stored(world, versioned_manifest(world.name, 1))
    assert first is not None
    before = verify(first, [SigningKeys(world.layout, None).public()])
    another = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    world.layout.signing_key.write_bytes(another)  # as the operator's guide says
    world.layout.signing_public_key.unlink()
    await world.publish(world.model(1), 1)
    assert await published(world) == before
    assert await stored(world, versioned_manifest(world.name, 1)) != first


async def test_the_private_key_is_in_no_record_and_no_log_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="azaion_daemon")
    await world.publish(world.model(1), 1)
    secret = world.layout.signing_key.read_text().splitlines()[1]
    (record,) = world.layout.releases.iterdir()
    assert secret not in record.read_text() + caplog.text


async def test_a_release_that_a_version_without_manifests_began_is_begun_anew(world: World, front: tuple[str, Front]) -> None:
    front[1].on_request = lambda _: web.Response(status=400) if front[1].seen[-1].startswith("POST /resources") else None
    with pytest.raises(OutsideError):
        await world.publish(world.model(1), 1)
    front[1].on_request = lambda _: None
    async with world.client() as client:
        records = world.publisher(client)._records
    record = records.load(1)
    assert record is not None
    records.save(replace(record, model_size=None))
    await world.publish(world.model(1), 1)
    assert await world.consumed() == world.model(1).read_bytes()
    assert await published(world) is not None
