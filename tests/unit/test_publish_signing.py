"""The signing key: one is made, once, and nothing ever takes its place by itself."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from azaion_daemon.publish.signing import PublicKey, SigningKeyError, SigningKeys
from azaion_daemon.store.layout import Layout
from tests.unit.builders import make_root

# RFC 8032, section 7.1, test 2.
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "root")


def pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_first_use_makes_a_key_that_only_its_owner_may_read_and_later_ones_take_it(layout: Layout) -> None:
    first = SigningKeys(layout, None).load_or_make()
    assert stat.S_IMODE(layout.signing_key.stat().st_mode) == 0o600
    assert SigningKeys(layout, None).load_or_make().public == first.public == SigningKeys(layout, None).public()
    assert first.public.verifies(first.sign(b"m"), b"m")
    assert list(layout.state.glob(".*")) == []


def test_looking_at_the_key_makes_none_and_finds_what_using_it_would(tmp_path: Path, layout: Layout) -> None:
    keys = SigningKeys(layout, None)
    assert keys.load() is None
    assert SigningKeys(Layout(tmp_path / "no-root"), None).load() is None
    assert not layout.signing_key.exists()
    made = keys.load_or_make().public
    layout.signing_public_key.unlink()
    found = keys.load()
    assert found is not None
    assert found.public == made
    assert not layout.signing_public_key.exists()
    keys.load_or_make()
    layout.signing_key.unlink()
    with pytest.raises(SigningKeyError, match="is gone"):
        keys.load()


def test_signatures_and_keys_are_those_of_the_standard(tmp_path: Path, layout: Layout) -> None:
    file = key_file(tmp_path / "key.pem", pem(Ed25519PrivateKey.from_private_bytes(RFC_SEED)))
    key = SigningKeys(layout, file).load_or_make()
    assert key.public.raw == RFC_PUBLIC
    assert key.sign(b"\x72") == RFC_SIGNATURE
    assert not layout.signing_key.exists()


def test_a_public_key_can_be_given_as_pem_or_as_base64(layout: Layout) -> None:
    public = SigningKeys(layout, None).load_or_make().public
    for form in (public.pem, public.base64, f"\n{public.base64}\n"):
        assert PublicKey.parse(form.encode(), source="file") == public
    assert len(public.id) == 64


@pytest.mark.parametrize("content", [b"", b"AAAA", b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_is_named(content: bytes) -> None:
    with pytest.raises(SigningKeyError, match=r"consumer\.pem is not a public Ed25519 key"):
        PublicKey.parse(content, source="consumer.pem")


def _make(root: Path, barrier: "multiprocessing.synchronize.Barrier", made: "multiprocessing.Queue[bytes]") -> None:
    barrier.wait()
    made.put(SigningKeys(Layout(root), None).load_or_make().public.raw)


def test_processes_that_need_one_at_the_same_time_make_one_key(layout: Layout) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, made = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_make, args=(layout.root, barrier, made)) for _ in range(4)]
    for process in processes:
        process.start()
    keys = {made.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(keys) == 1


@pytest.mark.parametrize("left", [0, 1, 40, -2])
def test_a_torn_key_is_an_error_and_stays_as_it_is(layout: Layout, left: int) -> None:
    SigningKeys(layout, None).load_or_make()
    torn = layout.signing_key.read_bytes()[:left]
    layout.signing_key.write_bytes(torn)
    with pytest.raises(SigningKeyError, match=r"signing\.pem is not a private key .* or is torn\. Restore it from a backup") as caught:
        SigningKeys(layout, None).load_or_make()
    assert layout.signing_key.read_bytes() == torn
    assert torn.decode()[28:60] not in str(caught.value) or left < 60


def test_a_key_that_is_gone_is_not_replaced_by_another(layout: Layout) -> None:
    before = SigningKeys(layout, None).load_or_make()
    layout.signing_key.unlink()
    with pytest.raises(SigningKeyError, match="is gone, and consumers trust its public key"):
        SigningKeys(layout, None).load_or_make()
    assert SigningKeys(layout, None).public() == before.public
    layout.signing_public_key.unlink()
    (layout.releases / "1.json").write_text('{"manifest": "{}"}')
    with pytest.raises(SigningKeyError, match=r"are gone, but .* has releases that were signed"):
        SigningKeys(layout, None).load_or_make()
    key_file(layout.signing_key, pem(Ed25519PrivateKey.generate()))  # as the message says
    assert SigningKeys(layout, None).load_or_make().public != before.public


def test_a_kill_between_the_two_files_is_mended_by_the_next_use(layout: Layout) -> None:
    key = SigningKeys(layout, None).load_or_make()
    layout.signing_public_key.unlink()
    assert SigningKeys(layout, None).load_or_make().public == key.public == SigningKeys(layout, None).public()


def test_a_pair_that_does_not_belong_together_is_an_error(layout: Layout) -> None:
    SigningKeys(layout, None).load_or_make()
    key_file(layout.signing_key, pem(Ed25519PrivateKey.generate()))
    with pytest.raises(SigningKeyError, match="is not the private key of"):
        SigningKeys(layout, None).load_or_make()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602, 0o604])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, layout: Layout, mode: int) -> None:
    file = key_file(tmp_path / "key.pem", pem(Ed25519PrivateKey.generate()), mode)
    with pytest.raises(SigningKeyError, match=rf"signing_key_file .*is open to others \(mode {mode:04o}\).*chmod 600"):
        SigningKeys(layout, file).load_or_make()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_of_another_user_may_be_readable_by_a_group_since_that_is_how_it_was_given(tmp_path: Path, layout: Layout) -> None:
    file = key_file(tmp_path / "key.pem", pem(Ed25519PrivateKey.generate()), 0o640)
    os.chown(file, 65534, 0)
    SigningKeys(layout, file).load_or_make()
    file.chmod(0o644)
    with pytest.raises(SigningKeyError, match="is open to others"):
        SigningKeys(layout, file).load_or_make()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "is not an Ed25519 key"),
        (
            Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"p")),
            "is protected by a password",
        ),
        (b"no key", "is not a private key in PEM"),
    ],
)
def test_a_file_that_is_of_no_use_is_named_with_what_to_do(tmp_path: Path, layout: Layout, content: bytes, said: str) -> None:
    with pytest.raises(SigningKeyError, match=said):
        SigningKeys(layout, key_file(tmp_path / "key.pem", content)).load_or_make()


def test_a_file_that_is_not_there_or_is_none_is_named(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(SigningKeyError, match=r"signing_key_file .*key\.pem cannot be read: No such file"):
        SigningKeys(layout, tmp_path / "key.pem").load_or_make()
    os.mkfifo(tmp_path / "key.pem", 0o600)
    with pytest.raises(SigningKeyError, match="is not a private key"):
        SigningKeys(layout, tmp_path / "key.pem").load_or_make()


def test_before_there_is_a_key_nothing_can_be_verified_and_it_is_said_how_to_make_one(layout: Layout) -> None:
    with pytest.raises(SigningKeyError, match="azaion-daemon model key"):
        SigningKeys(layout, None).public()
    assert not layout.signing_key.exists()


def test_the_private_key_shows_nowhere(layout: Layout) -> None:
    key = SigningKeys(layout, None).load_or_make()
    secret = layout.signing_key.read_text().splitlines()[1]
    assert secret not in f"{key!r} {key} {vars(key)} {key.public!r}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_root_makes_no_key_that_the_daemon_could_not_read(layout: Layout) -> None:
    os.chown(layout.state, 65534, 65534)
    with pytest.raises(SigningKeyError, match="Run this as the user of the daemon"):
        SigningKeys(layout, None).load_or_make()
    assert not layout.signing_key.exists()
