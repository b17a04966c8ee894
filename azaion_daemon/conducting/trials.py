"""What a trial adds to a training: the model encrypted and decrypted as for a release, and a sentence for who is to wait for many days."""

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ByteSize, SecretBytes

from azaion_daemon.errors import TrainingError
from azaion_daemon.publish.cipher import CipherError, Decryptor
from azaion_daemon.publish.keys import aes_key
from azaion_daemon.publish.packing import BigPart, model_digests, small_part
from azaion_daemon.sections import PublishSettings
from azaion_daemon.store.durable import storage
from azaion_daemon.training.jobs import JobDirectory, JobResult

_CHUNK_BYTES = 1 << 20
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Peak:
    """The most memory that a worker was seen with, in bytes."""

    gpu_bytes: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Encryption:
    """What encrypting a model took."""

    size_bytes: int
    seconds: float
    with_model_key: bool


def try_encryption(model: Path, settings: PublishSettings) -> Encryption:
    """Encrypt a model as a release would, decrypt it again and compare; nothing is left of it on disk. Blocking.

    Raises:
        TrainingError: It does not come out as it was.
        StorageError: The model cannot be read.
    """
    started = time.monotonic()
    secret = settings.model_key
    key = SecretBytes(os.urandom(_KEY_BYTES)) if secret is None else aes_key(secret)
    expected = model_digests(model).plaintext
    small = small_part(key)
    digest, decryptor = hashlib.sha256(), Decryptor(key)
    digest.update(decryptor.update(small))
    chunk = bytearray(_CHUNK_BYTES)
    with BigPart(model, key, small) as big:
        while size := big.readinto(chunk):
            digest.update(decryptor.update(memoryview(chunk)[:size]))
    try:
        digest.update(decryptor.finish())
    except CipherError as error:
        raise TrainingError(f"the encrypted model cannot be decrypted: {error}") from error
    if digest.hexdigest() != expected:
        raise TrainingError(f"{model} is another after it was encrypted and decrypted; its release would not verify")
    return Encryption(len(small) + big.size, time.monotonic() - started, secret is not None)


def remove_what_it_worked_with(job: JobDirectory) -> None:
    """Remove a trial's sample, checkpoints and the library's files. Blocking; done again it is the same as once.

    Raises:
        StorageError: The disk failed.
    """
    with storage("removing what a trial worked with"):
        for path in job.worked_with():
            shutil.rmtree(path)


def sentence(result: JobResult, encryption: Encryption, peak: Peak) -> str:
    """What was tried, how long each part took, and what it needed."""
    phases = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in result.seconds.items())
    key = (
        "the model key"
        if encryption.with_model_key
        else "a throwaway key, since none is configured (AZAION_MODEL_KEY): releases would wait"
    )
    memory = [f"{_size(peak.bytes)} of memory"] * bool(peak.bytes) + [f"{_size(peak.gpu_bytes)} of GPU memory"] * bool(peak.gpu_bytes)
    needed = f"; it needed up to {' and '.join(memory)}" if memory else ""
    return (
        f"everything works, on a sample and for one epoch: {phases or 'trained'}; "
        f"{_size(encryption.size_bytes)} encrypted and decrypted in {encryption.seconds:.1f} s with {key}{needed}"
    )


def _size(number: int) -> str:
    return ByteSize(number).human_readable(decimal=True, separator=" ")
