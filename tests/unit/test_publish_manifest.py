"""The manifest and its envelope: what was signed is read as it was, and anything else is refused."""

import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.publish import dsse, manifest
from azaion_daemon.publish.dsse import EnvelopeError, pae, seal
from azaion_daemon.publish.manifest import PAYLOAD_TYPE, Content, Manifest, ManifestError, Part, SmallPart, seen_serial, sign, verify
from azaion_daemon.publish.signing import SigningKey
from azaion_daemon.sandbox import signed
from azaion_daemon.sandbox.processes import SandboxError

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
TRUSTED = [KEY.public]


def content(number: int, size: int) -> Content:
    return Content(sha256=hashlib.sha256(bytes([number])).hexdigest(), size=size)


def made(**others: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": "azaion.onnx",
        "serial": 7,
        "created": datetime(2026, 4, 1, 12, tzinfo=UTC),
        "bucket": "models",
        "folder": "models",
        "small": SmallPart.of("azaion-7.onnx.small", b"s" * 3072),
        "big": Part(name="azaion-7.onnx.big", **content(1, 50_000).model_dump()),
        "ciphertext": content(2, 53_072),
        "plaintext": content(3, 53_050),
        "model": content(4, 48_951),
        "dataset_id": "d",
        "input_shape": (4, 3, 1280, 1280),
        "metrics": {"map50": 0.75},
        "versions": {"ultralytics": "8.4"},
    }
    return Manifest(**{**fields, **others})


ENVELOPE = sign(made(), KEY)


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ENVELOPE)
    return found


def payload() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(document()["payload"]))
    return found


def signed_payload(text: bytes | dict[str, Any], kind: str = PAYLOAD_TYPE) -> bytes:
    return seal(text if isinstance(text, bytes) else json.dumps(text).encode(), kind, KEY)


def test_the_encoding_is_that_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("ä", b"\x00 \xff") == b"DSSEv1 2 \xc3\xa4 3 \x00 \xff"


def test_what_was_signed_is_read_as_it_was() -> None:
    assert verify(ENVELOPE, TRUSTED) == made()
    assert verify(ENVELOPE, [OTHER.public, KEY.public]) == made()
    assert verify(ENVELOPE, TRUSTED).small.held() == b"s" * 3072
    assert verify(ENVELOPE, TRUSTED).padding_bytes == 4099


def test_the_same_manifest_has_the_same_bytes() -> None:
    assert sign(made(), KEY) == ENVELOPE == sign(verify(ENVELOPE, TRUSTED), KEY)


def test_the_consumer_reads_the_same_with_code_of_its_own() -> None:
    read = signed.open_manifest(ENVELOPE, KEY.public.pem.encode())
    assert Manifest.model_validate_json(json.dumps(read)) == made()
    with pytest.raises(SandboxError, match="not signed with the key"):
        signed.open_manifest(ENVELOPE, OTHER.public.pem.encode())


@given(st.sampled_from(["payload", "sig"]), st.integers(min_value=0), st.integers(0, 7))
def test_a_flipped_bit_in_payload_or_signature_is_refused(where: str, position: int, bit: int) -> None:
    flipped = document()
    holder = flipped if where == "payload" else flipped["signatures"][0]
    raw = bytearray(base64.b64decode(holder[where]))
    raw[position % len(raw)] ^= 1 << bit
    holder[where] = base64.b64encode(raw).decode()
    with pytest.raises(EnvelopeError):
        verify(json.dumps(flipped).encode(), TRUSTED)


@given(st.sampled_from(["payload", "sig", "payloadType"]), st.integers(min_value=0), st.integers(0, 6))
def test_a_flipped_bit_in_their_text_is_refused_too(where: str, position: int, bit: int) -> None:
    flipped = document()
    holder = flipped["signatures"][0] if where == "sig" else flipped
    raw = bytearray(holder[where].encode())
    raw[position % len(raw)] ^= 1 << bit
    holder[where] = raw.decode()
    with pytest.raises(EnvelopeError):
        verify(json.dumps(flipped).encode(), TRUSTED)


@given(st.integers(min_value=0), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(position: int, bit: int) -> None:
    raw = bytearray(ENVELOPE)
    raw[position % len(raw)] ^= 1 << bit
    with suppress(EnvelopeError):
        assert verify(bytes(raw), TRUSTED) == made()  # in white space, in the key id


@given(st.binary(max_size=2000))
def test_what_is_no_envelope_is_refused(garbage: bytes) -> None:
    with pytest.raises(EnvelopeError):
        verify(garbage, TRUSTED)
    assert seen_serial(garbage, TRUSTED) is None


def test_another_key_is_not_believed_and_says_which_is_trusted() -> None:
    with pytest.raises(EnvelopeError, match=rf"{OTHER.public.id[:12]}.* is not by the key that is trusted here \({KEY.public.id[:12]}\)"):
        verify(sign(made(), OTHER), TRUSTED)
    with pytest.raises(EnvelopeError):
        verify(ENVELOPE, [])


def test_one_trusted_signature_of_several_is_enough_whatever_the_key_ids_say() -> None:
    both = document()
    (ours,) = both["signatures"]
    both["signatures"] = [json.loads(sign(made(), OTHER))["signatures"][0], {"sig": ours["sig"], "keyid": OTHER.public.id}]
    assert verify(json.dumps(both).encode(), TRUSTED) == made()
    both["signatures"] = [{"sig": ours["sig"]}]
    assert verify(json.dumps(both).encode(), TRUSTED) == made()


def test_base64_of_the_other_alphabet_is_accepted_as_the_specification_asks() -> None:
    other = document()
    other["payload"] = other["payload"].replace("+", "-").replace("/", "_")
    other["signatures"][0]["sig"] = other["signatures"][0]["sig"].replace("+", "-").replace("/", "_")
    assert verify(json.dumps(other).encode(), TRUSTED) == made()


def change(**changes: Any) -> Callable[[], bytes]:
    return lambda: json.dumps({**document(), **changes}).encode()


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        (lambda: ENVELOPE + b" " * dsse.MOST_BYTES, "more than"),
        (lambda: b"[" * 100_000, "not JSON"),
        (change(payloadType="application/json"), "was expected"),
        (change(payload="===="), "base64"),
        (change(payload=1), "not a DSSE envelope"),
        (change(signatures=[]), "not a DSSE envelope"),
        (change(signatures={}), "not a DSSE envelope"),
        (change(signatures=["x"]), "a signature that is none"),
        (change(signatures=[{"sig": ""}] * 17), "more than 16 signatures"),
        (lambda: ENVELOPE.rstrip()[:-1] + b', "payload": ""}', "stands twice"),
        (lambda: signed_payload(b"{}", "text/plain"), "was expected"),
    ],
)
def test_an_envelope_that_is_not_as_it_should_be_says_why(envelope: Callable[[], bytes], said: str) -> None:
    with pytest.raises(EnvelopeError, match=said):
        verify(envelope(), TRUSTED)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in payload().items() if key != name}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({**payload(), "version": 2}, "version"),
        ({**payload(), "serial": "7"}, "serial"),
        ({**payload(), "serial": 0}, "serial"),
        ({**payload(), "serial": 1 << 53}, "serial"),
        ({**payload(), "name": "../azaion.onnx"}, "name"),
        ({**payload(), "created": "2026-04-01T12:00:00"}, "created"),
        ({**payload(), "big": {**payload()["big"], "sha256": "A" * 64}}, "big.sha256"),
        ({**payload(), "big": {**payload()["big"], "size": 1}}, "do not add up"),
        ({**payload(), "model": {**payload()["model"], "size": 1 << 40}}, "do not add up"),
        ({**payload(), "small": {**payload()["small"], "content": "AAAA"}}, "what sha256 and size say"),
        ({**payload(), "metrics": {"map50": "high"}}, "metrics"),
        (without("serial"), "serial"),
        (without("padding_format") | {"padding_format": 2}, "padding_format"),
        (json.dumps(payload()).encode()[:-1] + b', "serial": 9}', "stands twice"),
        (json.dumps(payload()).encode().replace(b"0.75", b"NaN"), "NaN is not a number"),
        (b"[]", "manifest"),
        (b"\xff", "manifest"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_signed_document_that_is_no_manifest_of_ours_says_where(text: bytes | dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        verify(signed_payload(text), TRUSTED)


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = payload()
    later["calibration"] = {"name": "azaion.int8_calib.cache"}
    later["small"]["etag"] = "x"
    assert verify(signed_payload(later), TRUSTED) == made()


def test_a_serial_is_seen_also_where_the_signature_or_the_version_is_another() -> None:
    assert seen_serial(ENVELOPE, TRUSTED) == (7, True)
    assert seen_serial(sign(made(serial=9), OTHER), TRUSTED) == (9, False)
    assert seen_serial(signed_payload({"version": 3, "serial": 12}), TRUSTED) == (12, True)
    assert seen_serial(signed_payload({"version": 3, "serial": "12"}), TRUSTED) is None
    assert seen_serial(signed_payload(b"no JSON"), TRUSTED) is None


def test_names_keep_the_suffix() -> None:
    assert manifest.current_manifest("azaion.onnx") == "azaion.onnx.manifest.json"
    assert manifest.versioned_manifest("azaion.onnx", 7) == "azaion-7.onnx.manifest.json"
