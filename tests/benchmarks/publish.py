"""Publishing a model: encrypted on the way against a bare multipart upload of the same bytes, and against the all-in-memory way.

python -m tests.benchmarks.publish [--quick]
"""

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from azaion_daemon.publish.cdn import PART_BYTES, CdnClient
from azaion_daemon.publish.cipher import encrypt
from azaion_daemon.publish.credentials import CdnCredentials, parse_credentials
from azaion_daemon.publish.keys import aes_key
from azaion_daemon.publish.packing import BigPart, padding, small_part
from tests.benchmarks._common import at_least, at_most, finish, progress, restart_peak, status_mb

MOST_MEMORY_MB = 64.0
LEAST_SPEED = 0.8
KEY = aes_key(SecretStr("benchmark"))
BARE_PART_BYTES = 8 << 20
BARE_PARTS_IN_FLIGHT = 4


@dataclass(frozen=True)
class Measured:
    """One upload in a process of its own. Memory is the peak above the idle process, before anything of S3 is imported."""

    seconds: float
    cpu_seconds: float
    memory_mb: float


async def upload_streamed(credentials: CdnCredentials, model: Path) -> None:
    """As the daemon does."""
    async with CdnClient(credentials, "models", region="us-east-1") as cdn:
        with BigPart(model, KEY, small_part(KEY)) as big:
            await cdn.upload("benchmark-streamed", big)


async def upload_file(credentials: CdnCredentials, ciphertext: Path) -> None:
    """The daemon's own uploader on a file that is encrypted already."""
    async with CdnClient(credentials, "models", region="us-east-1") as cdn:
        with ciphertext.open("rb") as file:
            await cdn.upload("benchmark-file", file)


async def _client(credentials: CdnCredentials) -> Any:
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - its memory is part of what is measured
    from aiobotocore.session import get_session  # noqa: PLC0415

    return get_session().create_client(
        "s3",
        endpoint_url=credentials.endpoint,
        region_name="us-east-1",
        aws_access_key_id=credentials.uploader_access_key,
        aws_secret_access_key=credentials.uploader_access_secret.get_secret_value(),
        config=AioConfig(
            request_checksum_calculation="when_required", response_checksum_validation="when_required", s3={"addressing_style": "path"}
        ),
    )


async def upload_bare(credentials: CdnCredentials, ciphertext: Path) -> None:
    """Nothing but aiobotocore, with parts of a usual size."""
    target = {"Bucket": "models", "Key": "benchmark-bare"}
    async with await _client(credentials) as s3:
        upload = {**target, "UploadId": (await s3.create_multipart_upload(**target))["UploadId"]}
        count = -(-ciphertext.stat().st_size // BARE_PART_BYTES)  # noqa: ASYNC240 - nothing else runs
        numbers = iter(range(count))
        parts: dict[int, str] = {}

        async def work(descriptor: int) -> None:
            for number in numbers:
                content = await asyncio.to_thread(os.pread, descriptor, BARE_PART_BYTES, number * BARE_PART_BYTES)
                answer = await s3.upload_part(**upload, PartNumber=number + 1, Body=io.BytesIO(content))
                parts[number + 1] = answer["ETag"]

        with ciphertext.open("rb") as file:
            await asyncio.gather(*(work(file.fileno()) for _ in range(BARE_PARTS_IN_FLIGHT)))
        listing = [{"PartNumber": number, "ETag": parts[number]} for number in sorted(parts)]
        await s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": listing})


async def upload_in_memory(credentials: CdnCredentials, model: Path) -> None:
    """Read it, encrypt it, put it."""
    async with await _client(credentials) as s3:
        content = model.read_bytes()  # noqa: ASYNC240 - the simple way, as it is written
        await s3.put_object(Bucket="models", Key="benchmark-memory", Body=io.BytesIO(encrypt(padding(len(content)) + content, KEY)))


CASES = {"streamed": upload_streamed, "file": upload_file, "bare": upload_bare, "in_memory": upload_in_memory}


def child(case: str, file: Path) -> Measured:
    """Measure one case in this process; the credentials come on stdin."""
    credentials = parse_credentials(sys.stdin.buffer.read(), source="stdin")
    restart_peak()
    idle_mb = status_mb("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    asyncio.run(CASES[case](credentials, file))
    return Measured(time.perf_counter() - start, time.process_time() - cpu, status_mb("VmHWM") - idle_mb)


def measure(case: str, file: Path, credentials: bytes) -> Measured:
    """Measure one case in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.publish", "--case", case, "--file", str(file)]
    done = subprocess.run(command, input=credentials, stdout=subprocess.PIPE, check=True)
    return Measured(**json.loads(done.stdout))


def write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def write_encrypted(model: Path, target: Path) -> None:
    with BigPart(model, KEY, small_part(KEY)) as big, target.open("wb") as file:
        buffer = bytearray(PART_BYTES)
        while size := big.readinto(buffer):
            file.write(memoryview(buffer)[:size])


def run(size: int, rounds: int) -> dict[str, list[Measured]]:
    from azaion_daemon.sandbox.object_store import ObjectStore  # noqa: PLC0415 - not in the measured processes

    with tempfile.TemporaryDirectory(prefix="benchmark-publish-") as work, ObjectStore(Path(work) / "swift") as store:
        up, down = store.uploader, store.downloader
        credentials = (
            f"host: {json.dumps(store.endpoint)}\n"
            f"uploader_access_key: {json.dumps(up.key)}\nuploader_access_secret: {json.dumps(up.secret)}\n"
            f"downloader_access_key: {json.dumps(down.key)}\ndownloader_access_secret: {json.dumps(down.secret)}\n"
        ).encode()
        model, ciphertext = Path(work) / "model.onnx", Path(work) / "model.onnx.big"
        write_random(model, size)
        write_encrypted(model, ciphertext)
        files = {"streamed": model, "file": ciphertext, "bare": ciphertext, "in_memory": model}
        measure("bare", ciphertext, credentials)  # warms the server and the page cache
        measured: dict[str, list[Measured]] = {case: [] for case in CASES}
        for number in range(rounds):
            for case in CASES:
                if case != "in_memory" or number == 0:  # its memory is what matters
                    measured[case].append(measure(case, files[case], credentials))
                    progress(f"round {number + 1}: {case} {measured[case][-1].seconds:.2f} s")
        return measured


def report(size: int, measured: dict[str, list[Measured]]) -> None:
    seconds = {case: statistics.median(one.seconds for one in all_of_it) for case, all_of_it in measured.items()}
    memory = {case: max(one.memory_mb for one in all_of_it) for case, all_of_it in measured.items()}
    cpu = {case: statistics.median(one.cpu_seconds for one in all_of_it) for case, all_of_it in measured.items()}
    bare = min(seconds["bare"], seconds["file"])
    speed = bare / seconds["streamed"]
    print(f"{size >> 20} MiB, median of {len(measured['bare'])} rounds\n")
    print(f"{'':12}{'seconds':>10}{'MiB/s':>10}{'CPU s':>10}{'MB above idle':>16}")
    for case in measured:
        print(f"{case:12}{seconds[case]:>10.2f}{(size >> 20) / seconds[case]:>10.1f}{cpu[case]:>10.2f}{memory[case]:>16.1f}")
    print(f"\nencrypted on the way, of the speed of the faster bare upload: {speed:.2f}")
    targets = [
        at_most("memory_above_idle_mb", memory["streamed"], MOST_MEMORY_MB),
        at_least("speed_of_bare_upload", speed, LEAST_SPEED),
    ]
    figures = {"size_bytes": size, **{case: [asdict(one) for one in all_of_it] for case, all_of_it in measured.items()}}
    finish("publish", targets, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 MB instead of 1 GB")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(asdict(child(arguments.case, arguments.file))))
        return
    size, rounds = (64 << 20, 3) if arguments.quick else (1 << 30, 3)
    report(size, run(size, rounds))


if __name__ == "__main__":
    main()
