"""DSSE, version 1 (https://github.com/secure-systems-lab/dsse): a signed envelope around bytes of a named type.

What is signed is PAE(type, payload), so that a signature over one type of document is none over another, and the payload is signed as it
is stored: nobody has to bring it into a canonical form first.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from typing import Any

from azaion_daemon.errors import ReleaseError
from azaion_daemon.publish.signing import PublicKey, SigningKey

MOST_BYTES = 256 << 10
_MOST_SIGNATURES = 16


class EnvelopeError(ReleaseError):
    """An envelope that is none, or whose signature is not by a key that is trusted."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])


def seal(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """An envelope with one signature, as JSON. The same for the same payload and key."""
    signature = key.sign(pae(payload_type, payload))
    document = {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode("ascii"),
        "signatures": [{"keyid": key.public.id, "sig": base64.b64encode(signature).decode("ascii")}],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def unseal(envelope: bytes, payload_type: str, keys: Sequence[PublicKey]) -> bytes:
    """The payload, if one of these keys has signed it. The key id is a hint: it says which key to try first, and nothing else.

    Raises:
        EnvelopeError: It is no such envelope, too large, of another type, or nobody who is trusted has signed it.
    """
    payload, signatures = _read(envelope, payload_type)
    message = pae(payload_type, payload)
    for key_id, signature in signatures:
        for key in sorted(keys, key=lambda key: key.id != key_id):
            if key.verifies(signature, message):
                return payload
    named = ", ".join(sorted({key_id[:12] for key_id, _ in signatures if key_id})) or "no key"
    trusted = ", ".join(key.id[:12] for key in keys)
    raise EnvelopeError(f"its signature (it names {named}) is not by the key that is trusted here ({trusted}), or the content was changed")


def unverified(envelope: bytes, payload_type: str) -> bytes:
    """The payload, whoever has signed it: not to be believed.

    Raises:
        EnvelopeError: It is no such envelope.
    """
    return _read(envelope, payload_type)[0]


def read_json(content: bytes) -> Any:
    """JSON in which each key stands once and each number is one.

    Raises:
        ValueError: It is something else.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read(envelope: bytes, payload_type: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    if len(envelope) > MOST_BYTES:
        raise EnvelopeError(f"it has more than {MOST_BYTES} bytes")
    try:
        document = read_json(envelope)
    except ValueError as error:
        raise EnvelopeError(f"it is not JSON: {error}") from None
    match document:
        case {"payloadType": str(kind), "payload": str(payload), "signatures": [_, *_] as signatures}:
            pass
        case _:
            raise EnvelopeError("it is not a DSSE envelope")
    if kind != payload_type:
        raise EnvelopeError(f"it holds {kind[:100]!r}; {payload_type} was expected")
    if len(signatures) > _MOST_SIGNATURES:
        raise EnvelopeError(f"it has more than {_MOST_SIGNATURES} signatures")
    return _bytes(payload), [_signature(one) for one in signatures]


def _signature(document: object) -> tuple[str, bytes]:
    match document:
        case {"sig": str(signature), **others}:
            key_id = others.get("keyid")
            return key_id if isinstance(key_id, str) else "", _bytes(signature)
        case _:
            raise EnvelopeError("it holds a signature that is none")


def _bytes(text: str) -> bytes:
    """Of base64, of either alphabet, in the one way that these bytes are written: the specification leaves it to us to be strict."""
    standard = text.replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(standard, validate=True)
    except (binascii.Error, ValueError):
        raise EnvelopeError("it is not base64 throughout") from None
    if base64.b64encode(content).decode("ascii") != standard:
        raise EnvelopeError("it is not base64 throughout")
    return content


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:100]!r} stands twice")
        found[key] = value
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")
