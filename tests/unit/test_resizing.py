"""Resizing in processes of its own: all cores, none that outlives us, none whose death loses an image."""

import asyncio
import errno
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from blockbuster import BlockBuster

from azaion_daemon.dataset.reduction import Kind, Reduction
from azaion_daemon.dataset.resized_cache import cached, cached_digests
from azaion_daemon.dataset.resizing import Progress, Resizing, Work
from azaion_daemon.errors import DiskFullError, ResizeError, StorageError
from tests.faults.disk import Disk
from tests.pictures import aerial, encoded

HOW = Reduction(128, 90)
MODULE = "azaion_daemon.dataset.resizer"
UNLIMITED = 1 << 40


def resizing(cache: Path, *, min_free_bytes: int = 0, command: list[str] | None = None, processes: int = 2) -> Resizing:
    return Resizing(cache, HOW, max_pixels=UNLIMITED, min_free_bytes=min_free_bytes, processes=processes, command=command)


def works(directory: Path, count: int, width: int = 400) -> list[Work]:
    directory.mkdir(exist_ok=True)
    picture = aerial(width, width // 2)
    found = []
    for number in range(count):
        content = encoded(picture, comment=str(number))
        path = directory / f"{number:03}.jpg"
        path.write_bytes(content)
        found.append(Work(path.stem, str(path), hashlib.sha256(content).hexdigest()))
    return found


def dying_on(tmp_path: Path, condition: str) -> list[str]:
    """A resizer that ends itself in the middle of an image of which `condition` is true."""
    script = tmp_path / "dying.py"
    script.write_text(
        "import os, signal\n"
        f"from {MODULE} import main\n"
        f"import {MODULE} as real\n"
        "made = real.resize\n"
        "def resize(path, digest, setup):\n"
        f"    if {condition}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return made(path, digest, setup)\n"
        "real.resize = resize\n"
        "main()\n"
    )
    return [sys.executable, str(script)]


def running() -> list[psutil.Process]:
    """Our resizers: their last argument says what to make."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if child.cmdline()[-1:] and child.cmdline()[-1].startswith("["):
                found.append(child)
    return found


def debris(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob(".*")]


@asynccontextmanager
async def under_way(cache: Path, work: list[Work]) -> AsyncIterator["asyncio.Task[object]"]:
    """Resizing that has made its first images and is far from its end."""
    task = asyncio.create_task(resizing(cache).run(work))
    await until(lambda: len(cached_digests(cache, HOW)) >= 4)
    assert not task.done()
    try:
        yield task
    finally:
        task.cancel()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another process brings it about
            await asyncio.sleep(0.005)


async def test_every_image_gets_its_outcome_and_no_process_is_left(tmp_path: Path, no_blocking_calls: BlockBuster) -> None:
    large, small = works(tmp_path / "large", 9), works(tmp_path / "small", 1, width=64)
    lost = Work("lost", str(tmp_path / "lost.jpg"), "0" * 64)
    (tmp_path / "torn.jpg").write_bytes(b"torn")
    torn = Work("torn", str(tmp_path / "torn.jpg"), hashlib.sha256(b"torn").hexdigest())
    small = [small[0]._replace(name="small")]
    seen: list[Progress] = []
    outcomes = await resizing(tmp_path / "cache").run([*large, *small, lost, torn], seen.append)
    assert [outcomes[work.name].kind for work in large] == [Kind.REDUCED] * 9
    assert [outcomes[name].kind for name in ("small", "lost", "torn")] == [Kind.KEPT, Kind.GONE, Kind.UNUSABLE]
    assert await asyncio.to_thread(cached_digests, tmp_path / "cache", HOW) == {work.digest for work in large}
    assert seen[0].total == 12
    assert running() == []


async def test_nothing_to_do_starts_nothing(tmp_path: Path) -> None:
    assert await resizing(tmp_path / "cache").run([]) == {}
    assert not (tmp_path / "cache").exists()


async def test_resizers_go_last_and_have_no_secrets_and_a_session_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_PASSWORD", "secret12")
    async with under_way(tmp_path / "cache", works(tmp_path / "images", 200, width=1000)):
        await until(lambda: [child.nice() for child in running()] == [19, 19])
        for child in running():
            assert "RABBITMQ_PASSWORD" not in child.environ()
            assert os.getsid(child.pid) == child.pid


async def test_a_killed_resizer_is_replaced_and_its_image_is_not_lost(tmp_path: Path) -> None:
    cache, work = tmp_path / "cache", works(tmp_path / "images", 60, width=1000)
    async with under_way(cache, work) as task:
        running()[0].kill()
        outcomes = await task
    assert isinstance(outcomes, dict)
    assert {outcome.kind for outcome in outcomes.values()} == {Kind.REDUCED}
    assert cached_digests(cache, HOW) == {one.digest for one in work}


async def test_what_a_kill_of_all_leaves_is_cleaned_up_and_the_next_run_goes_on(tmp_path: Path) -> None:
    cache, work = tmp_path / "cache", works(tmp_path / "images", 60, width=1000)
    async with under_way(cache, work) as task:
        for child in running():
            child.kill()
        task.cancel()
        await asyncio.wait([task])
    made = cached_digests(cache, HOW)
    torn = cached(cache, work[0].digest, HOW)
    torn.parent.mkdir(exist_ok=True)
    torn.with_name(f".{torn.name}.1.tmp").write_bytes(b"half")
    before = {digest: cached(cache, digest, HOW).stat().st_mtime_ns for digest in made}
    await resizing(cache).run([one for one in work if one.digest not in made])
    assert cached_digests(cache, HOW) == {one.digest for one in work}
    assert {digest: cached(cache, digest, HOW).stat().st_mtime_ns for digest in made} == before
    assert debris(cache) == []


async def test_a_cancellation_ends_all_resizers_at_once(tmp_path: Path) -> None:
    async with under_way(tmp_path / "cache", works(tmp_path / "images", 40, width=2000)) as task:
        started = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert running() == []
        assert time.monotonic() - started < 1


def test_resizers_end_when_the_daemon_is_killed(tmp_path: Path) -> None:
    works(tmp_path / "images", 400, width=1000)
    script = tmp_path / "daemon.py"
    script.write_text(
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.unit.test_resizing import resizing, works\n"
        "root = Path(sys.argv[1])\n"
        "asyncio.run(resizing(root / 'cache').run(works(root / 'images', 400, width=1000)))\n"
    )
    daemon = psutil.Popen([sys.executable, str(script), str(tmp_path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        deadline = time.monotonic() + 30
        while not cached_digests(tmp_path / "cache", HOW):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        resizers = daemon.children()
        assert len(resizers) == 2
    finally:
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    assert psutil.wait_procs(resizers, timeout=5)[1] == []


async def test_an_image_that_ends_every_resizer_is_left_out_and_the_others_are_made(tmp_path: Path) -> None:
    work = works(tmp_path / "images", 12)
    outcomes = await resizing(tmp_path / "cache", command=dying_on(tmp_path, "path.endswith('/003.jpg')")).run(work)
    assert outcomes["003"] == (Kind.UNUSABLE, "its image ended every process that was to resize it", 0, None, None)
    assert [name for name, outcome in outcomes.items() if outcome.kind is not Kind.REDUCED] == ["003"]


async def test_resizers_that_do_nothing_but_die_are_an_error_that_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no module named as ours')"]
    with pytest.raises(ResizeError, match=r"ended with status 1.*no module named as ours"):
        await resizing(tmp_path / "cache", command=command).run(works(tmp_path / "images", 12))
    assert running() == []


async def test_a_full_disk_leaves_whole_images_only(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    disk = Disk(tmp_path / "disk.image", place, 8)
    try:
        work = works(tmp_path / "images", 40)
        with pytest.raises(DiskFullError, match="No space left on device"):
            await fill(resizing(place / "cache"), place).run(work)
        made = cached_digests(place / "cache", HOW)
        assert 0 < len(made) < 40
        assert debris(place / "cache") == []
        assert all(cached(place / "cache", digest, HOW).read_bytes().endswith(b"\xff\xd9") for digest in made)
    finally:
        disk.unmount()


def fill(made: Resizing, place: Path) -> Resizing:
    """Leave space for a few images only."""
    free = os.statvfs(place)
    with (place / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - (200 << 10))
    return made


async def test_it_stops_before_the_ingest_has_no_space_left(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"ingest\.min_free_disk.*set dataset\.images to linked"):
        await resizing(tmp_path / "cache", min_free_bytes=UNLIMITED).run(works(tmp_path / "images", 4))
    assert running() == []


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
async def test_a_machine_that_starts_no_more_processes_fails_the_resizing_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("subprocess.Popen", refuse)
    with pytest.raises(ResizeError, match=f"starting a process that resizes images: .*{os.strerror(code)}.*images: linked"):
        await resizing(tmp_path / "cache").run(works(tmp_path, 3))


async def test_a_full_tmp_fails_the_resizing_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ResizeError, match="temporary file"):
        await resizing(tmp_path / "cache").run(works(tmp_path, 3))


async def test_a_disk_that_does_not_say_what_is_free_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("shutil.disk_usage", fail)
    with pytest.raises(StorageError, match="looking for space for resized images"):
        await resizing(tmp_path / "cache").run(works(tmp_path, 3))
    assert running() == []
