"""A consumer's own reading of the signed manifest: from the description in the README, with nothing but `cryptography`.

Written a second time on purpose, as formulas.py: were the product's own code used here, a mistake in it would sign and verify alike.
"""

import base64
import hashlib
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from azaion_daemon.sandbox.processes import SandboxError

_TYPE = "application/vnd.azaion.model-manifest+json"
_VERSION = 1


def open_manifest(envelope: bytes, public_key: bytes) -> dict[str, Any]:
    """The manifest in a DSSE envelope, if the owner of this public key (PEM) has signed it.

    Raises:
        SandboxError: Nobody who is trusted has, or it is of a kind that is not known here.
    """
    key = load_pem_public_key(public_key)
    assert isinstance(key, Ed25519PublicKey)
    try:
        document = json.loads(envelope)
        kind, payload = document["payloadType"], base64.b64decode(document["payload"], validate=True)
        message = b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in document["signatures"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SandboxError(f"the manifest is no DSSE envelope: {error}") from error
    if not any(_verifies(key, signature, message) for signature in signatures):
        raise SandboxError("the manifest is not signed with the key that the consumer trusts")
    manifest: dict[str, Any] = json.loads(payload)
    if kind != _TYPE or manifest["version"] != _VERSION:
        raise SandboxError(f"the manifest is {kind}, version {manifest.get('version')}, which the consumer does not know")
    return manifest


def compare(manifest: dict[str, Any], what: str, content: bytes) -> None:
    """Hold bytes against what was signed of them."""
    signed = manifest[what]
    if (len(content), hashlib.sha256(content).hexdigest()) != (signed["size"], signed["sha256"]):
        raise SandboxError(f"{what} of release {manifest['serial']} is not what was signed")


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
