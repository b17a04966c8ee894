"""The cipher as a stream: whatever the pieces, the same as in one go."""

import itertools
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr

from azaion_daemon.publish.cipher import CipherError, Decryptor, Encryptor, ciphertext_size, decrypt, encrypt
from azaion_daemon.publish.keys import aes_key

KEY = aes_key(SecretStr("a model key"))
IV = bytes(range(16))


def reference(plaintext: bytes, iv: bytes = IV, key: SecretBytes = KEY) -> bytes:
    """The layout written out: IV, then AES-256-CBC of the PKCS#7-padded plaintext."""
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key.get_secret_value()), modes.CBC(iv)).encryptor()
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
        decrypt(reference(b"a model"), aes_key(SecretStr("wrong")))


def test_what_was_never_encrypted_is_refused() -> None:
    with pytest.raises(CipherError):
        decrypt(b"<html>not found</html>", KEY)


def test_a_known_answer() -> None:
    """NIST SP 800-38A, F.2.5: CBC-AES256.Encrypt."""
    key = SecretBytes(bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"))
    plaintext = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    expected = bytes.fromhex(
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
    )
    encryptor = Encryptor(key, IV)
    assert encryptor.iv + encryptor.update(plaintext) == IV + expected
    assert decrypt(IV + expected + encryptor.finish(), key) == plaintext


@given(st.binary(min_size=1, max_size=300), st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_never_gives_the_plaintext(plaintext: bytes, place: int, bit: int) -> None:
    """It is an error, or something else, which the digest tells: there is no MAC."""
    damaged = bytearray(reference(plaintext))
    damaged[place % len(damaged)] ^= 1 << bit
    with suppress(CipherError):
        assert decrypt(bytes(damaged), KEY) != plaintext


@given(st.binary(max_size=300), st.integers(min_value=0))
def test_a_cut_of_whole_blocks_never_gives_the_plaintext(plaintext: bytes, blocks: int) -> None:
    stream = reference(plaintext)
    cut = stream[: blocks % (len(stream) // 16) * 16]
    with suppress(CipherError):
        assert decrypt(cut, KEY) != plaintext
