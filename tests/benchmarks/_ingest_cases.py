"""The cases beside the daemon, each in a process of its own: what it is told comes on stdin, what was measured goes to stdout.

All of them read as the daemon does, with its read size, its allocator's settings and its credit, so that what differs is how messages are
made into files.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack
from rstream import CompressionType, Consumer, ConsumerOffsetSpecification, MessageContext, OffsetType, amqp_decoder
from rstream.compression import GzipCompressionCodec, StreamCompressionCodecs

import azaion_daemon.stream.consumer  # noqa: F401 - which sets the size of rstream's reads
from azaion_daemon.ingest.staging import image_size
from azaion_daemon.ops.allocator import reuse_memory_of_messages
from azaion_daemon.sections import IngestSettings, StreamSettings
from azaion_daemon.store.durable import FilesystemSync, fsync_directory, replace_durably, write_new
from azaion_daemon.store.layout import Home, Layout
from tests.benchmarks._common import machine_cpu_seconds, restart_peak, status_mb
from tests.benchmarks._workloads import label_text, names, read_photos

StreamCompressionCodecs.register_codec(CompressionType.Gzip, GzipCompressionCodec())  # rstream's own again: the daemon's is of its work

FILES_A_SYNC = 256
FILE_THREADS = 4
_CREDIT: int = StreamSettings.model_fields["initial_credit"].default
_VALIDATING_ROLES = {20, 40, 1000}
_BULK_STATUSES = {b"Validated", b"Deleted"}
_BOX_KEYS = ("classNum", "x", "y", "width", "height")


@dataclass(frozen=True)
class Measured:
    """One run of a case: seconds, bytes of messages, CPU seconds, and the peak of its memory in MB of 10^6 bytes."""

    seconds: float
    messages: int
    bytes: int
    cpu_s: float
    memory_mb: float
    machine_cpu_s: float
    """Of all processes meanwhile: what this one and the broker did not spend, others took from them."""
    broker_cpu_s: float = 0.0
    """0 where it is not known."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


@dataclass(frozen=True)
class Task:
    """What a case is told."""

    host: str
    port: int
    user: str
    password: str
    stream: str
    first_offset: int
    messages: int
    root: str
    images: str | None

    @property
    def layout(self) -> Layout:
        return Layout(Path(self.root), "data", "data-seed", "data_deleted")

    def photos(self) -> list[bytes]:
        assert self.images is not None
        return read_photos(Path(self.images))


def measure(case: str, task: Task) -> Measured:
    """Run a case in a process of its own."""
    command = [sys.executable, "-m", __name__, case]
    done = subprocess.run(command, input=json.dumps(asdict(task)).encode(), stdout=subprocess.PIPE, check=True)
    return Measured(**json.loads(done.stdout))


class Clock:
    """Takes the time of a case, without its preparations."""

    def __init__(self) -> None:
        self.seconds = self.cpu_s = self.machine_cpu_s = 0.0
        self.start()

    def start(self) -> None:
        self._started = self._now()

    def stop(self) -> None:
        self.seconds, self.cpu_s, self.machine_cpu_s = (now - then for now, then in zip(self._now(), self._started, strict=True))

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), machine_cpu_seconds()


async def consume(task: Task, clock: Clock, handle: Callable[[bytes, int], None]) -> int:
    """Hand every message to `handle`, in order; their bytes. As for the daemon, the clock starts before it connects."""
    taken, size = 0, 0
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on_message(data: bytes, context: MessageContext) -> None:  # rstream awaits it
        nonlocal taken, size
        if ended.done():
            return
        try:
            handle(data, context.offset)
        except Exception as error:  # noqa: BLE001 - the library would swallow it
            ended.set_exception(error)
            return
        taken += 1
        size += len(data)
        if taken == task.messages:
            ended.set_result(None)

    clock.start()
    reader = Consumer(task.host, task.port, username=task.user, password=task.password)
    specification = ConsumerOffsetSpecification(OffsetType.OFFSET, task.first_offset)
    await reader.subscribe(task.stream, on_message, decoder=None, offset_specification=specification, initial_credit=_CREDIT)
    await ended
    clock.stop()
    await reader.close()
    return size


def read(task: Task, clock: Clock) -> int:
    """rstream alone: read and discard."""
    return asyncio.run(consume(task, clock, lambda _data, _offset: None))


class Handler:
    """A message at a time, as it is commonly written: decode, write image and label, write the position."""

    def __init__(self, layout: Layout, *, durable: bool) -> None:
        self._layout = layout
        self._durable = durable
        self._put: Callable[[Path, bytes], None] = replace_durably if durable else _put_plainly

    def __call__(self, data: bytes, offset: int) -> None:
        message = amqp_decoder(data)
        fields = msgpack.unpackb(message.body)
        status = message.application_properties[b"AnnotationStatus"]
        if status in _BULK_STATUSES:
            self._move(fields[0], Home.VALIDATED if status == b"Validated" else Home.DELETED)
        else:
            self._write(fields)
        self._put(self._layout.root / "offset.yaml", f"offset: {offset}\n".encode())

    def _write(self, fields: Sequence[Any]) -> None:
        name, extension, detections, image, role = fields[1], fields[4], fields[5], fields[6], fields[7]
        home = Home.VALIDATED if role in _VALIDATING_ROLES else Home.SEED
        label = "".join(" ".join(str(box[key]) for key in _BOX_KEYS) + "\n" for box in json.loads(detections))
        self._put(self._layout.label(home, name), label.encode())
        if image:
            self._put(self._layout.image(home, name, extension), image)

    def _move(self, moved: Sequence[str], home: Home) -> None:
        for name in moved:
            self._layout.label(Home.SEED, name).replace(self._layout.label(home, name))
            self._layout.image(Home.SEED, name, "jpg").replace(self._layout.image(home, name, "jpg"))
        if self._durable:
            for where in (Home.SEED, home):
                fsync_directory(self._layout.labels(where))
                fsync_directory(self._layout.images(where))


def _put_plainly(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)


def plain(task: Task, clock: Clock) -> int:
    """A sequential handler without any fsync."""
    return asyncio.run(consume(task, clock, Handler(task.layout, durable=False)))


def durable(task: Task, clock: Clock) -> int:
    """The same, each file and the position durable before the next message."""
    return asyncio.run(consume(task, clock, Handler(task.layout, durable=True)))


def files(task: Task, clock: Clock) -> int:
    """The same files written durably without a broker, the cheapest way we know."""
    return write_files(task, clock, threads=FILE_THREADS)


def write(task: Task, clock: Clock) -> int:
    """The same on one thread, for its CPU time."""
    return write_files(task, clock, threads=1)


def write_files(task: Task, clock: Clock, *, threads: int) -> int:
    photos, layout, written = task.photos(), task.layout, names(task.messages, "files")
    labels = [label_text(number).encode() for number in range(len(photos))]
    sync = FilesystemSync(layout.root)

    def write_share(numbers: Sequence[int]) -> int:
        size = 0
        for number in numbers:
            home = Home.VALIDATED if number % 2 else Home.SEED
            write_new(layout.label(home, written[number]), labels[number % len(photos)])
            write_new(layout.image(home, written[number], "jpg"), photos[number % len(photos)])
            size += len(photos[number % len(photos)])
        return size

    size = 0
    with ThreadPoolExecutor(threads) as pool:
        clock.start()
        for start in range(0, task.messages, FILES_A_SYNC):
            batch = range(start, min(start + FILES_A_SYNC, task.messages))
            size += sum(pool.map(write_share, [batch[first::threads] for first in range(threads)]))
            sync()
        clock.stop()
    sync.close()
    return size


def decode(task: Task, clock: Clock) -> int:
    """The daemon's look at every image, alone and on one thread."""
    photos, most_pixels = task.photos(), IngestSettings().max_image_pixels
    clock.start()
    for number in range(task.messages):
        size = image_size(photos[number % len(photos)], max_pixels=most_pixels)
        assert not isinstance(size, str), size
    clock.stop()
    return sum(len(photos[number % len(photos)]) for number in range(task.messages))


CASES: dict[str, Callable[[Task, Clock], int]] = {
    "read": read, "plain": plain, "durable": durable, "files": files, "write": write, "decode": decode,
}  # fmt: skip


def main() -> None:
    case, task = CASES[sys.argv[1]], Task(**json.load(sys.stdin))
    reuse_memory_of_messages()
    restart_peak()
    clock = Clock()
    size = case(task, clock)
    print(json.dumps(asdict(Measured(clock.seconds, task.messages, size, clock.cpu_s, status_mb("VmHWM"), clock.machine_cpu_s))))


if __name__ == "__main__":
    main()
