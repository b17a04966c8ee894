"""The cipher as a stream: whatever the pieces, the same as in one go."""

import itertools

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.publish.cipher import CipherError, Decryptor, Encryptor, ciphertext_size, decrypt, encrypt
from azaion_daemon.publish.keys import aes_key

KEY = aes_key("a model key")
IV = bytes(range(16))


def reference(plaintext: bytes, iv: bytes = IV, key: bytes = KEY) -> bytes:
    """The layout written out: IV, then AES-256-CBC of the PKCS#7-padded plaintext."""
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [content[start:end] for start, end in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@given(st.binary(max_size=300), CUTS)
def test_encrypting_in_pieces_equals_one_go(plaintext: bytes, cuts: list[int]) -> None:
    encryptor = Encryptor(KEY, IV)
    stream = encryptor.iv + b"".join(encryptor.update(piece) for piece in pieces(plaintext, cuts)) + encryptor.finish()
    assert stream == reference(plaintext)
    assert len(stream) == ciphertext_size(len(plaintext))


@given(st.binary(max_size=300), CUTS)
def test_decrypting_in_pieces_equals_one_go(plaintext: bytes, cuts: list[int]) -> None:
    decryptor = Decryptor(KEY)
    stream = b"".join(decryptor.update(piece) for piece in pieces(reference(plaintext), cuts)) + decryptor.finish()
    assert stream == plaintext


@given(st.binary(max_size=200))
def test_each_encryption_takes_a_new_iv(plaintext: bytes) -> None:
    first, second = encrypt(plaintext, KEY), encrypt(plaintext, KEY)
    assert first != second
    assert decrypt(first, KEY) == decrypt(second, KEY) == plaintext


@given(st.binary(max_size=100), st.integers(min_value=0, max_value=127))
def test_a_cut_that_is_no_multiple_of_16_is_refused(plaintext: bytes, length: int) -> None:
    stream = reference(plaintext)
    cut = stream[: min(length, len(stream) - 1)]
    if len(cut) % 16 or len(cut) < 32:
        with pytest.raises(CipherError, match="not whole"):
            decrypt(cut, KEY)


def test_another_key_is_refused_by_the_padding() -> None:
    with pytest.raises(CipherError, match="another key"):
        decrypt(reference(b"a model"), aes_key("wrong"))


def test_what_was_never_encrypted_is_refused() -> None:
    with pytest.raises(CipherError):
        decrypt(b"<html>not found</html>", KEY)
