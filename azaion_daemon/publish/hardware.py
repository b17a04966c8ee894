"""The hardware string: what the platform knows this machine by.

`CPU: {cpu}. GPU: {gpu}. Memory: {memory}. DriveSerial: {serial}`, from lscpu, the GPU's name, the total memory in kB and the serial of the
system's drive. It is computed once and kept, so that a new kernel, driver or memory module does not lock the machine out. A machine that
is already registered under another string gives that one in its configuration.
"""

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from azaion_daemon.children import inherited
from azaion_daemon.logs import get_logger
from azaion_daemon.store.durable import replace_durably, storage, storage_error

_COMMAND_TIMEOUT_S = 20.0
_ABSENT = "none"
_SERIAL_LABEL = "DriveSerial: "
_SHOWN = 4
_VPD_HEADER_BYTES = 4  # SCSI's page 0x80: type, page, length, then the serial
_NO_DRIVES = ("dm-", "fd", "loop", "md", "ram", "sr", "zram")

log = get_logger(__name__)

Run = Callable[..., str]
"""Runs a command and gives its output, empty when it is missing or fails."""


async def hardware_string(configured: SecretStr | None, kept: Path) -> SecretStr:
    """The configured string, else the one kept in a file, else computed now and kept there (mode 0600).

    Raises:
        StorageError: The file cannot be read or written.
    """
    if configured is not None and configured.get_secret_value():
        return configured
    return SecretStr(await asyncio.to_thread(_kept_or_computed, kept))


def compute(system: Path = Path("/"), run: Run | None = None) -> str:
    """The hardware string of the machine whose root directory is `system`. Blocking.

    What a machine or container does not show is "none"; for the drive's serial the machine id stands in.
    """
    run = run or _run
    values = {"CPU": _cpu(system, run), "GPU": _gpu(run), "Memory": _memory(system), "DriveSerial": _drive_serial(system)}
    return ". ".join(f"{name}: {' '.join(value.split()) or _ABSENT}" for name, value in values.items())


def masked(hardware: SecretStr) -> str:
    """A hardware string as it may be shown and logged: what belongs to this one machine alone, the drive's serial, is hidden.

    With the serial it would be half of the key that opens what the platform hands out. Of a string in another form little is shown.
    """
    whole = hardware.get_secret_value()
    known, label, serial = whole.partition(_SERIAL_LABEL)
    shown, hidden = (f"{known}{label}", serial) if label else ("", whole)
    return f"{shown}{hidden[: len(hidden) // 4][:_SHOWN]}*** of {len(hidden)} characters"


def may_be_kept(kept: Path) -> bool:
    """Whether a file has, or this user may make it have, the string: one of another user's would keep the daemon from reading it."""
    directory = kept.parent
    try:
        if kept.exists():
            return os.access(kept, os.R_OK)
        return directory.stat().st_uid == os.geteuid() and os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        return False


def _kept_or_computed(kept: Path) -> str:
    try:
        text = kept.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise storage_error(error, "reading") from error
    if not text:
        text = compute()
        with storage("writing"):
            replace_durably(kept, f"{text}\n".encode(), mode=0o600)
        log.info("hardware.computed", kept_in=str(kept))  # the string itself is part of a key
    return text


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
            env={**inherited(), "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
    return found[1].strip() if found else ""


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    if path.name == "vpd_pg80":
        content = content[_VPD_HEADER_BYTES:]
    return content.decode(errors="replace").strip("\0 \t\n")


def _cpu(system: Path, run: Run) -> str:
    return _first(r"^Model name:\s*(.+)$", run("lscpu")) or _first(r"^model name\s*:\s*(.+)$", _read(system / "proc/cpuinfo"))


def _gpu(run: Run) -> str:
    """The first GPU by CUDA's order; without its driver, the first display controller."""
    name = _first(r"^(.+)$", run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"))
    return name or _first(r"^\S+ (?:VGA compatible|3D|Display) controller: (.+)$", run("lspci"))


def _memory(system: Path) -> str:
    return _first(r"^MemTotal:\s*(\d+) kB$", _read(system / "proc/meminfo"))


def _drive_serial(system: Path) -> str:
    for drive in (*_root_drives(system), *_all_drives(system)):
        number = _read(drive / "dev")
        for file in ("device/serial", "serial", "device/vpd_pg80"):  # NVMe; virtio; SATA and SCSI
            if serial := _read(drive / file):
                return serial
        if serial := _first(r"^E:ID_SERIAL_SHORT=(.+)$", _read(system / "run/udev/data" / f"b{number}")):
            return serial
    return _read(system / "etc/machine-id")


def _root_drives(system: Path) -> Iterator[Path]:
    """The drives under the root filesystem, through partitions, encryption, volumes and RAID; none in a container."""
    for line in _read(system / "proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        fields, source = head.split(), tail.split()
        if len(fields) > 4 and fields[4] == "/" and len(source) > 1:  # noqa: PLR2004 - see proc(5)
            device = system / "sys/dev/block" / fields[2]
            if not device.exists():  # btrfs counts its devices by itself
                device = system / "sys/class/block" / (system / source[1].lstrip("/")).resolve().name
            if device.exists():
                yield from _drives_of(device.resolve())


def _drives_of(device: Path) -> Iterator[Path]:
    if (device / "partition").exists():
        device = device.parent
    below = _entries(device / "slaves")
    for slave in below:
        yield from _drives_of(slave.resolve())
    if not below:
        yield device


def _all_drives(system: Path) -> Iterator[Path]:
    return (device.resolve() for device in _entries(system / "sys/block") if not device.name.startswith(_NO_DRIVES))


def _entries(directory: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(directory.iterdir())
    return []
