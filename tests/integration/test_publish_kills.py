"""Whatever happens to whoever publishes, a consumer gets the results of the old model or of the new one: killed, refused, two at once.

Prints what was done as a table: the step, what happened there, what the consumer got while and after that, how it ended.
"""

import asyncio
import hashlib
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import botocore.session
import numpy as np
import pytest
from aiohttp import web
from botocore.config import Config
from onnx import TensorProto, helper

from azaion_daemon.errors import AzaionError
from azaion_daemon.publish.manifesting import SerialUsedError
from azaion_daemon.sandbox import formulas
from azaion_daemon.sandbox.consumer import Model
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import BusinessError
from azaion_daemon.sandbox.scenes import draw_scene
from tests.integration import publish_child
from tests.integration.publishing import MODEL_KEY, Front, World

pytestmark = pytest.mark.timeout(900)  # many processes, one after the other
IMAGE = draw_scene(1, 64).image_jpeg


def detector(seed: int) -> bytes:
    """A model of the shape that consumers read: what it sees depends on the mean colour and on its weights."""
    weights = np.random.default_rng(seed).random((3, 1800), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["colour"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["colour", "weights"], ["rows"]),
            helper.make_node("Reshape", ["rows", "shape"], ["output0"]),
        ],
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 300, 6])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, [3, 1800], weights.tobytes(), raw=True),
            helper.make_tensor("shape", TensorProto.INT64, [3], [1, 300, 6]),
        ],
    )
    content: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
    return content


def results(onnx: bytes) -> str:
    """What a consumer gets out of a model for the probe image, as a digest."""
    return hashlib.sha256(repr(list(Model(onnx).detect([IMAGE]))).encode()).hexdigest()


class Consumer:
    """Downloads, joins, decrypts and runs over and over, on a thread of its own; and whenever `look` is called.

    It takes the `.small` that it gets, and the first one that it ever got: devices keep theirs where servers hand out none any more.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._first_small = b""
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self.known: dict[str, int] = {}
        self.got: list[int] = []
        self.looks = 0
        self.wrong: list[str] = []
        self._s3 = botocore.session.get_session().create_client(
            "s3",
            region_name=world.store.region,
            endpoint_url=world.store.endpoint,
            aws_access_key_id=world.store.downloader.key,
            aws_secret_access_key=world.store.downloader.secret,
            config=Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required"),
        )
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._s3.close()

    def know(self, serial: int, onnx: bytes) -> None:
        self.known[results(onnx)] = serial

    def look(self) -> int:
        """The serial of the model that a consumer gets now, by its results; 0 while there is none."""
        with self._lock:
            try:
                big = self._s3.get_object(Bucket="models", Key=f"{self._world.name}.big")["Body"].read()
            except self._s3.exceptions.NoSuchKey:
                return 0
            try:
                small = self._world.platform_api.resource("models", f"{self._world.name}.small")
            except BusinessError:  # the platform deletes before it writes: a consumer tries again, or has one
                small = self._first_small
            serial = 0
            for part in {small, self._first_small or small}:
                try:
                    serial = self.known[results(formulas.decrypt(part + big, MODEL_KEY))]
                except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
                    self.wrong.append(f"{type(error).__name__}: {error}")
            self._first_small = self._first_small or small
            self.got.append(serial)
            self.looks += 1
            return serial

    def _poll(self) -> None:
        while not self._ending.wait(0.2):
            self.look()


class Row(NamedTuple):
    step: str
    kind: str
    got: str
    ended: str


class Matrix:
    """Releases one after the other, each with a mishap, and what came of them."""

    def __init__(self, world: World, front: Front, consumer: Consumer, mode: str) -> None:
        self.world, self.front, self.consumer, self.mode = world, front, consumer, mode
        self.serial = 0
        self.rows: list[Row] = []
        self.mishap: Callable[[int, str, web.Response], Awaitable[web.Response]] | None = None
        front.on_answer = self._on_answer

    async def first(self) -> list[str]:
        """A release without a mishap; its requests."""
        self.front.seen.clear()
        await self.world.publish(self.new_model(), self.serial)
        assert await asyncio.to_thread(self.consumer.look) == self.serial
        return list(self.front.seen)

    def new_model(self) -> Path:
        self.serial += 1
        onnx = detector(self.serial)
        path = self.world.root / f"model-{self.serial}.onnx"
        path.write_bytes(onnx)
        self.consumer.know(self.serial, onnx)
        return path

    async def killed(self, step: str, *, at: int = 0, die_at: str = "") -> bool:
        """A release that is killed once the `at`-th request is done, but not answered, or by itself; whether it came so far."""
        model, old = self.new_model(), self.serial - 1
        self.consumer.got.clear()
        before = self.front.requests
        dead = asyncio.Event()
        process = publish_child.start(self._orders(model, die_at))

        async def kill(number: int, _: str, answer: web.Response) -> web.Response:
            if number == before + at:
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                await dead.wait()
            return answer

        earlier, self.mishap = self.mishap, (_both(self.mishap, kill) if at else self.mishap)
        await asyncio.to_thread(process.join)
        dead.set()
        self.mishap = earlier
        reached = process.exitcode == -signal.SIGKILL
        assert reached or process.exitcode in {0, publish_child.FAILED}, process.exitcode
        await self._note(step, "killed", old, model, reached=reached)
        return reached

    async def _note(self, step: str, kind: str, old: int, model: Path, *, reached: bool = True) -> None:
        after = await asyncio.to_thread(self.consumer.look)
        got = self._said(old)
        mishap, self.mishap = self.mishap, None
        await self.world.publish(model, self.serial)
        self.mishap = mishap
        ended = await asyncio.to_thread(self.consumer.look)
        self._said(old)
        assert ended == self.serial, (step, kind)
        assert [path.name for path in self.world.layout.releases.iterdir() if not re.fullmatch(r"\d+\.json", path.name)] == []
        assert not self.world.layout.uploads.exists(), step
        if reached:
            self.rows.append(Row(step, kind, got, f"{'new' if after == self.serial else 'old'} model, then finished: new"))

    def _said(self, old: int) -> str:
        assert self.consumer.wrong == []
        assert set(self.consumer.got) <= {old, self.serial}, self.consumer.got
        return " and ".join(sorted({"new" if serial == self.serial else "old" for serial in self.consumer.got}, reverse=True))

    async def refused(self, times: int, *, visible: bool) -> None:
        """A release of which each call, or each to what is `visible`, is refused so many times, with as many attempts as that takes."""
        model, old = self.new_model(), self.serial - 1
        self.consumer.got.clear()
        failures: Counter[tuple[str, int]] = Counter()
        while True:
            seen: Counter[str] = Counter()
            failed: list[str] = []

            def fail(_: int, seen: Counter[str] = seen, failed: list[str] = failed) -> web.Response | None:
                what = self.front.seen[-1]
                seen[what] += 1
                call = (what, seen[what])
                if failed or failures[call] >= times or what.startswith("DELETE") or (visible and not self._is_visible(what)):
                    return None
                failures[call] += 1
                failed.append(what)
                return web.Response(status=400)

            self.front.on_request = fail
            outcome = (await asyncio.gather(self.world.publish(model, self.serial), return_exceptions=True))[0]
            self.front.on_request = lambda _: None
            await asyncio.to_thread(self.consumer.look)
            got = self._said(old)
            if not isinstance(outcome, BaseException):
                break
            assert isinstance(outcome, AzaionError), outcome
            assert failed, outcome
        assert await asyncio.to_thread(self.consumer.look) == self.serial
        assert max(failures.values()) == times
        assert len(failures) > (5 if visible else 15)
        self.rows.append(Row(f"each of {len(failures)} calls{' to what is visible' if visible else ''}", f"refused {times}x", got, "new"))

    async def dropped(self) -> None:
        """A release of which each call loses its connection once."""
        model, old = self.new_model(), self.serial - 1
        self.consumer.got.clear()
        dropped: set[str] = set()

        def drop(_: int) -> None:
            what = self.front.seen[-1]
            if what not in dropped and what != "POST /login":
                dropped.add(what)
                raise ConnectionError

        self.front.on_request = drop
        await self.world.publish(model, self.serial)
        self.front.on_request = lambda _: None
        assert await asyncio.to_thread(self.consumer.look) == self.serial
        self.rows.append(Row(f"each of {len(dropped)} calls", "connection lost 1x", self._said(old), "new, in one attempt"))

    def damage(self) -> None:
        """From now on the first download of the current `.big` in each attempt after a swap is damaged."""
        current = f"/models/{self.world.name}.big"
        swapped = False

        async def flip(_: int, what: str, answer: web.Response) -> web.Response:
            nonlocal swapped
            if what.startswith(("PUT", "POST")) and what.endswith(current):
                swapped = True
            elif what == f"GET {current}" and swapped:
                swapped = False
                assert isinstance(answer.body, bytes)
                content = bytearray(answer.body)
                content[9_000] ^= 1
                answer.body = bytes(content)
            return answer

        self.mishap = flip

    async def _on_answer(self, number: int, what: str, answer: web.Response) -> web.Response:
        if self._is_visible(what):
            await asyncio.to_thread(self.consumer.look)
        return answer if self.mishap is None else await self.mishap(number, what, answer)

    def _is_visible(self, what: str) -> bool:
        return f"/{self.world.name}." in what or what == "POST /resources/models"

    def _orders(self, model: Path, die_at: str) -> publish_child.Orders:
        world = self.world
        return publish_child.Orders(world.root, model, self.serial, world.api(), world.settings, world.credentials, die_at)


def _both(
    first: Callable[[int, str, web.Response], Awaitable[web.Response]] | None,
    second: Callable[[int, str, web.Response], Awaitable[web.Response]],
) -> Callable[[int, str, web.Response], Awaitable[web.Response]]:
    async def one_after_the_other(number: int, what: str, answer: web.Response) -> web.Response:
        answer = answer if first is None else await first(number, what, answer)
        return await second(number, what, answer)

    return one_after_the_other


@pytest.fixture
def consumer(world: World) -> Iterator[Consumer]:
    with Consumer(world) as polling:
        yield polling


@pytest.fixture
async def matrix(
    world: World,
    front: tuple[str, Front],
    consumer: Consumer,
    platform_api: PlatformApi,
    object_store: ObjectStore,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> AsyncIterator[Matrix]:
    generation, copying = request.param
    platform_api.generation = generation
    object_store.grant_read(copying)
    made = Matrix(world, front[1], consumer, f"{generation} platform, copying {'allowed' if copying else 'refused'}")
    yield made
    object_store.grant_read(False)
    with capsys.disabled():
        print(f"\n{made.mode}; the consumer looked {consumer.looks} times")
        for row in made.rows:
            print(f"  {row.step:<58} {row.kind:<20} got {row.got:<12} {row.ended}")


ALL = [("old", False), ("old", True), ("new", False)]


def named(requests: list[str], name: str) -> list[str]:
    return [request.replace(name.removesuffix(".onnx"), "azaion") for request in requests]


def changes(step: str) -> bool:
    """Whether a request changes anything. A kill at one that only reads finds what the one before has left, or the record test does."""
    return not step.startswith(("GET", "HEAD", "POST /resources/get", "POST /login"))


@pytest.mark.parametrize("matrix", ALL, indirect=True)
async def test_killed_at_any_change_consumers_have_a_whole_model_and_the_next_start_finishes(matrix: Matrix) -> None:
    requests = await matrix.first()
    steps = named(requests, matrix.world.name)
    small = "POST /resources/models"
    visible = [number for number, step in enumerate(steps, 1) if step == small][-1]
    begin = 1 if matrix.mode.endswith("refused") and matrix.mode.startswith("old") else visible
    for number in range(begin, len(steps) + 1):
        if changes(steps[number - 1]):
            assert await matrix.killed(f"{number:2} {steps[number - 1]}", at=number), number
    assert {row.ended.split()[0] for row in matrix.rows} == {"old", "new"}


@pytest.mark.parametrize("matrix", [("old", True)], indirect=True)
async def test_killed_at_any_record_or_while_the_model_is_run_it_is_the_same(matrix: Matrix) -> None:
    await matrix.first()
    assert await matrix.killed("the model is run", die_at="probe")
    number = 1
    while await matrix.killed(f"record {number} is written", die_at=f"record {number} after"):
        number += 1
    assert number > 4


@pytest.mark.parametrize("matrix", [("old", True), ("new", False)], indirect=True)
async def test_with_each_call_refused_once_and_twice_and_dropped_it_is_the_same(matrix: Matrix) -> None:
    await matrix.first()
    old = matrix.mode.startswith("old")
    await matrix.refused(1 if old else 2, visible=not old)
    if old:
        await matrix.dropped()


@pytest.mark.parametrize("matrix", [("old", True), ("new", False)], indirect=True)
async def test_a_release_that_does_not_verify_after_the_swap_is_taken_back_also_when_that_is_killed(matrix: Matrix) -> None:
    await matrix.first()
    model = matrix.new_model()
    matrix.damage()
    matrix.front.seen.clear()
    with pytest.raises(AzaionError, match="something else"):
        await matrix.world.publish(model, matrix.serial)
    assert await asyncio.to_thread(matrix.consumer.look) == matrix.serial - 1  # the model before
    steps = named(matrix.front.seen, matrix.world.name)
    matrix.mishap = None
    await matrix.world.publish(model, matrix.serial)
    matrix.rows.append(Row("what was swapped in reads damaged", "", "old and new", "old model, then published again: new"))
    if matrix.mode.startswith("new"):
        return
    matrix.damage()
    verified = steps.index("GET /models/azaion.onnx.big") + 1
    for number in range(verified, len(steps) + 1):
        if number > verified and not changes(steps[number - 1]):
            continue
        assert await matrix.killed(f"{number:2} {steps[number - 1]} (taking back)", at=number)


@pytest.mark.parametrize("matrix", [("old", False), ("old", True)], indirect=True)
async def test_two_that_publish_at_once_leave_the_model_of_one_of_them(matrix: Matrix, tmp_path: Path) -> None:
    await matrix.first()
    old = matrix.serial
    world = matrix.world
    other = World(tmp_path / "other", world.platform_api, world.user, world.store, world.url)
    other.settings, other.name = world.settings, world.name

    async def until_done(who: World, model: Path, serial: int) -> bool:
        while True:
            try:
                await who.publish(model, serial)
            except SerialUsedError:  # the other one, with the higher number, is through
                return False
            except AzaionError:
                await asyncio.sleep(0.05 * serial)
            else:
                return True

    for _ in range(2):
        first, second = matrix.new_model(), matrix.new_model()
        matrix.consumer.got.clear()
        done = await asyncio.gather(until_done(world, first, matrix.serial - 1), until_done(other, second, matrix.serial))
        assert any(done)
        now = await asyncio.to_thread(matrix.consumer.look)
        assert matrix.consumer.wrong == []
        assert set(matrix.consumer.got) <= {old, matrix.serial - 1, matrix.serial}
        assert now in {matrix.serial - 1, matrix.serial}
        matrix.rows.append(Row("two publishers", "at once", f"{len(set(matrix.consumer.got))} models", f"one of both ({done})"))
        old = now
