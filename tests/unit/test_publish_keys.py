"""The platform's formulas, against its published vectors."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from azaion_daemon.publish.keys import aes_key, api_key, hardware_hash

HARDWARE = SecretStr("CPU: TestCPU. GPU: TestGPU. Memory: 16384. DriveSerial: SN123")


def test_hardware_hash_is_the_published_one() -> None:
    assert hardware_hash(HARDWARE) == "vJc2X2PUgJ63GahOIBYFnS4j4aZgpTCD3tjuJAWWQ+1hDR9IsGLBKzngammlJxU7"


def test_api_key_is_the_published_one() -> None:
    key = api_key("u@x.io", SecretStr("secret12"), HARDWARE)
    assert key.get_secret_value() == "9MmaDrBvx6Y2S9ra+g3UyS94AQjS+kNl3dSJ+4btNboOUQNzAoo/bIB/kww7f7eU"


@given(st.text())
def test_any_text_gives_keys_of_fixed_length(text: str) -> None:
    assert len(base64.b64decode(hardware_hash(SecretStr(text)), validate=True)) == 48
    assert aes_key(SecretStr(text)).get_secret_value() == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize("change", ["email", "password", "hardware"])
def test_api_key_depends_on_each_of_its_parts(change: str) -> None:
    def key(email: str = "u@x.io", password: str = "p", hardware: str = "h") -> SecretStr:
        return api_key(email, SecretStr(password), SecretStr(hardware))

    assert key() != key(**{change: "other"})
