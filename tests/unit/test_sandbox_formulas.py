import pytest

from azaion_daemon.sandbox import formulas


def test_the_api_key_is_the_published_test_vector() -> None:
    hardware = "CPU: TestCPU. GPU: TestGPU. Memory: 16384. DriveSerial: SN123"
    expected = "9MmaDrBvx6Y2S9ra+g3UyS94AQjS+kNl3dSJ+4btNboOUQNzAoo/bIB/kww7f7eU"
    assert formulas.api_key("u@x.io", "secret12", hardware) == expected


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_what_is_encrypted_decrypts_with_the_same_key_alone(size: int) -> None:
    plaintext = bytes(range(256)) * 4
    ciphertext = formulas.encrypt(plaintext[:size], "key")
    assert len(ciphertext) == 16 + size // 16 * 16 + 16
    assert formulas.decrypt(ciphertext, "key") == plaintext[:size]


def test_a_cut_ciphertext_is_refused() -> None:
    with pytest.raises(ValueError, match="no whole ciphertext"):
        formulas.decrypt(formulas.encrypt(b"text", "key")[:-1], "key")
