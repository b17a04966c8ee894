"""The root: that it is ours, that everything in it can be done that the daemon does there, room, and how long a durable write takes."""

import asyncio
import errno
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from azaion_daemon.dataset.classes import Mode, load_classes, mode_of
from azaion_daemon.errors import RootError
from azaion_daemon.ops.doctor.configuration import owner_of
from azaion_daemon.ops.doctor.findings import AS_THE_DAEMON, Area, Finding, Outcome, Subject
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.ops.reading import reading
from azaion_daemon.ops.status import disk
from azaion_daemon.ops.wording import size
from azaion_daemon.store.durable import replace_durably
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.root import open_root

_WRITES = 20
_SLOW_S = 0.1
_SAMPLE = 200
_NAMED = 3
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}
_PROTECTED = Path("/proc/sys/fs/protected_hardlinks")


async def _root(patient: Patient) -> Finding:
    layout = patient.layout
    try:
        await asyncio.to_thread(open_root, layout)
    except RootError as error:
        if not _is_owner(layout) and not os.access(layout.state, os.W_OK | os.X_OK, effective_ids=True):
            return Finding(Outcome.UNCHECKED, f"this user may not look at {layout.root} as the daemon does", AS_THE_DAEMON)
        if layout.root_id.exists():
            return Finding.of(error)
        found = Finding.of(error)
        return Finding(Outcome.BROKEN, f"{found.detail}; {_before_init(layout)}", found.remedy)
    return Finding.ok(f"{layout.root} is initialised, and this user may write it")


def _is_owner(layout: Layout) -> bool:
    return owner_of(layout) in {None, os.geteuid()}


def _before_init(layout: Layout) -> str:
    """What init would do."""
    new = [directory for directory in layout.directories() if not directory.is_dir()]
    there = layout.root
    while not there.exists():
        there = there.parent
    allowed = "may" if os.access(there, os.W_OK | os.X_OK, effective_ids=True) else "may not"
    return f"init would make {len(new)} directories below {there}, which this user {allowed} do there"


async def _directories(patient: Patient) -> Finding:
    return await asyncio.to_thread(_try_directories, patient.layout)


def _try_directories(layout: Layout) -> Finding:
    """Make a file as the daemon does, and link it into every directory: one filesystem, hard links, and rights all show in that."""
    directories = layout.directories()
    name = f".doctor.{os.getpid()}.tmp"  # hidden, and of those that a start removes, should this end in between
    probe = layout.incoming / name
    made: list[Path] = []
    without_links: OSError | None = None
    try:
        probe.write_bytes(b"doctor")
        made.append(probe)
        for directory in directories:
            if directory == layout.incoming:
                continue
            try:
                (directory / name).hardlink_to(probe)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    return _failed(layout, directory, error)
                without_links = error
                (directory / name).write_bytes(b"doctor")
            made.append(directory / name)
    except OSError as error:
        return _failed(layout, Path(error.filename or layout.root), error)
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    if without_links is not None:
        return Finding(
            Outcome.WARNING,
            f"this filesystem makes no hard links ({without_links.strerror}): every dataset is a whole copy of its images",
            "Put the root on ext4 or XFS",
        )
    return Finding.ok(f"all {len(directories)} directories can be written, lie on one filesystem, and hard links can be made between them")


def _failed(layout: Layout, where: Path, error: OSError) -> Finding:
    if error.errno == errno.EACCES and not _is_owner(layout):
        return Finding(Outcome.UNCHECKED, f"this user may not write to {where}", AS_THE_DAEMON)
    if error.errno == errno.EXDEV:
        return Finding(Outcome.BROKEN, f"{where} is on another filesystem or mount than the rest of the root", "Undo that mount or link")
    return Finding(Outcome.BROKEN, f"{where} cannot be written: {error.strerror}", f"Check its owner, mode and disk. {AS_THE_DAEMON}")


async def _owners(patient: Patient) -> Finding:
    return await asyncio.to_thread(_look_at_owners, patient.layout)


def _look_at_owners(layout: Layout) -> Finding:
    """Whether files belong to another user than the root does, as after a command that was run as root."""
    owner = layout.root_id.stat().st_uid
    ours = [*_files(layout.state), *_files(layout.requests), *_files(layout.models), layout.classes, *layout.directories()]
    images = [path for home in Home for path in islice(_files(layout.images(home)), _SAMPLE)]
    foreign = list(_foreign(ours, owner))
    if foreign:
        several = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        return Finding(
            Outcome.WARNING,
            f"files belong to another user than the root: {', '.join(map(str, foreign[:_NAMED]))}{several}",
            f"chown -R --from=root {owner} {layout.root}, and run commands as the user of the daemon",
        )
    if (linked := list(_foreign(images, owner))) and _protected():
        return Finding(
            Outcome.BROKEN,
            f"images such as {linked[0]} belong to another user, and fs.protected_hardlinks lets nobody else link them: "
            "no dataset can be made",
            f"chown -R {owner} {layout.root}",
        )
    return Finding.ok("all files that were looked at belong to the owner of the root")


def _files(directory: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _foreign(paths: Iterable[Path], owner: int) -> Iterator[Path]:
    for path in paths:
        with suppress(FileNotFoundError):
            if path.lstat().st_uid != owner:
                yield path


def _protected() -> bool:
    try:
        return _PROTECTED.read_text().strip() != "0"
    except OSError:
        return True


async def _space(patient: Patient) -> Finding:
    found = await asyncio.to_thread(disk, patient.layout.root)
    return judge_space(
        found["free_bytes"], found["pressure"], patient.settings.ingest.min_free_disk, patient.settings.dataset.min_free_disk
    )


def judge_space(free: int, pressure: str | None, ingest: int, dataset: int) -> Finding:
    """Whether there is room for what the settings want to be free."""
    remedy = "Free some space on the root's filesystem, or give it a larger one"
    if free < ingest:
        return Finding(Outcome.BROKEN, f"{size(free)} are free, ingest.min_free_disk is {size(ingest)}: nothing would be taken", remedy)
    if free < dataset:
        return Finding(
            Outcome.BROKEN, f"{size(free)} are free, dataset.min_free_disk is {size(dataset)}: no dataset would be formed", remedy
        )
    detail = f"{size(free)} are free; ingest wants {size(ingest)}, datasets {size(dataset)}"
    return Finding(Outcome.WARNING, f"{detail}, but the disk is nearly full", remedy) if pressure else Finding.ok(detail)


async def _inodes(patient: Patient) -> Finding:
    found = await asyncio.to_thread(disk, patient.layout.root)
    if not found["inodes_total"]:
        return Finding.ok("this filesystem has no fixed number of files")
    used = 1 - found["inodes_free"] / found["inodes_total"]
    detail = f"{found['inodes_free']:,} more files fit, of {found['inodes_total']:,}"
    remedy = "An annotation takes two, and two more in each dataset. Lower retention.datasets_keep, or make the filesystem with more inodes"
    return Finding(Outcome.WARNING, detail, remedy) if used > 0.8 else Finding.ok(detail)  # noqa: PLR2004 - as the disk's pressure


async def _latency(patient: Patient) -> Finding:
    return judge_latency(await asyncio.to_thread(_measure, patient.layout.state))


def _measure(directory: Path) -> list[float]:
    """How long small durable writes take, in seconds: file, rename and directory, each synced."""
    path = directory / f".doctor.{os.getpid()}.tmp"
    times = []
    try:
        for number in range(_WRITES):
            begun = time.perf_counter()
            replace_durably(path, b"%d" % number)
            times.append(time.perf_counter() - begun)
    finally:
        path.unlink(missing_ok=True)
    return times


def judge_latency(times: list[float]) -> Finding:
    """Whether the disk is fast enough for ingest, from how long durable writes took, in seconds."""
    median = statistics.median(times)
    detail = f"a small durable write takes {1000 * median:.1f} ms, {1000 * max(times):.1f} ms at worst of {len(times)}"
    if median > _SLOW_S:
        remedy = (
            "Look what else writes to that disk (iostat -x 1), and whether it is a network's or failing (smartctl); ingest will be slow"
        )
        return Finding(Outcome.WARNING, detail, remedy)
    return Finding.ok(detail)


async def _classes(patient: Patient) -> Finding:
    classes = await asyncio.to_thread(load_classes, patient.layout.classes)
    known = sum(mode_of(id_) is Mode.NORM for id_ in classes.known)
    return Finding.ok(f"{patient.layout.classes} can be read; classes in it: {known}")


async def _ledger(patient: Patient) -> Finding:
    def read() -> tuple[int | None, int]:
        with reading(patient.layout) as ledger:
            return ledger.last_position(), len(ledger.models())

    position, models = await asyncio.to_thread(read)
    consumed = "nothing is consumed yet" if position is None else f"it is at position {position:,}"
    return Finding.ok(f"it can be read; {consumed}; models in it: {models}")


SUBJECTS = (
    Subject("root directory", _root, area=Area.ROOT),
    Subject("directories", _directories, needs=("root directory",), area=Area.ROOT),
    Subject("owners", _owners, needs=("root directory",), area=Area.ROOT),
    Subject("disk space", _space, needs=("root directory",), area=Area.ROOT),
    Subject("inodes", _inodes, needs=("root directory",), area=Area.ROOT),
    Subject("disk latency", _latency, needs=("directories",), area=Area.ROOT, limit_s=60.0),
    Subject("classes", _classes, area=Area.ROOT),
    Subject("ledger", _ledger, needs=("root directory",), area=Area.ROOT),
)
