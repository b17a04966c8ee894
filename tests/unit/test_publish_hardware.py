"""The hardware string, from made-up machines."""

import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from azaion_daemon.errors import StorageError
from azaion_daemon.publish.hardware import compute, hardware_string, may_be_kept

MOUNT = "22 1 {number} / / rw,relatime shared:1 - {kind} {source} rw\n"


class Machine:
    """A root directory with just what is looked at, and commands with fixed output."""

    def __init__(self, system: Path) -> None:
        self.system = system
        self.commands: dict[str, str] = {}
        self.put("proc/meminfo", "MemTotal:       65741824 kB\nMemFree: 1 kB\n")

    def put(self, path: str, content: str | bytes) -> None:
        target = self.system / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def drive(self, name: str, number: str, **files: str | bytes) -> Path:
        base = f"sys/devices/{name}"
        self.put(f"{base}/dev", number)
        for file, content in files.items():
            self.put(f"{base}/{file.replace('__', '/')}", content)
        device = self.system / base
        for link in (f"sys/dev/block/{number}", f"sys/class/block/{name}", f"sys/block/{name}"):
            (self.system / link).parent.mkdir(parents=True, exist_ok=True)
            (self.system / link).symlink_to(device)
        return device

    def partition(self, drive: Path, name: str, number: str) -> Path:
        device = drive / name
        device.mkdir()
        (device / "partition").write_text("1")
        for link in (f"sys/dev/block/{number}", f"sys/class/block/{name}"):
            (self.system / link).symlink_to(device)
        return device

    def mount_root(self, number: str, source: str, kind: str = "ext4") -> None:
        self.put("proc/self/mountinfo", "30 22 0:5 / /proc rw - proc proc rw\n" + MOUNT.format(number=number, source=source, kind=kind))

    def run(self, *command: str) -> str:
        return self.commands.get(command[0], "")

    @property
    def serial(self) -> str:
        return compute(self.system, self.run).partition("DriveSerial: ")[2]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_gpu_server_with_an_nvme_drive(machine: Machine) -> None:
    machine.commands = {
        "lscpu": "Architecture:   x86_64\nModel name:          AMD EPYC 9354  32-Core Processor\n",
        "nvidia-smi": "NVIDIA L40S\nNVIDIA L40S\n",
    }
    nvme = machine.drive("nvme0n1", "259:0", device__serial="S64 GNX0T1\n")
    machine.partition(nvme, "nvme0n1p2", "259:2")
    machine.mount_root("259:2", "/dev/nvme0n1p2")
    expected = "CPU: AMD EPYC 9354 32-Core Processor. GPU: NVIDIA L40S. Memory: 65741824. DriveSerial: S64 GNX0T1"
    assert compute(machine.system, machine.run) == expected


def test_without_lscpu_and_nvidia_smi_the_kernel_and_the_bus_are_asked(machine: Machine) -> None:
    machine.put("proc/cpuinfo", "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i9\n")
    machine.commands = {"lspci": "00:02.0 Bus: x\n01:00.0 VGA compatible controller: NVIDIA Corporation GA102 (rev a1)\n"}
    assert compute(machine.system, machine.run).startswith("CPU: Intel(R) Core(TM) i9. GPU: NVIDIA Corporation GA102 (rev a1). ")


def test_a_bare_container_still_has_a_string(machine: Machine) -> None:
    machine.mount_root("0:45", "overlay", "overlay")
    assert compute(machine.system, machine.run) == "CPU: none. GPU: none. Memory: 65741824. DriveSerial: none"
    machine.put("etc/machine-id", "0123456789abcdef\n")
    assert machine.serial == "0123456789abcdef"


def test_a_sata_drive_gives_the_serial_of_its_vital_product_data(machine: Machine) -> None:
    machine.drive("sda", "8:0", device__vpd_pg80=b"\x00\x80\x00\x08WD-12345")
    machine.mount_root("8:0", "/dev/sda")
    assert machine.serial == "WD-12345"


def test_a_virtual_drive_gives_its_own_serial(machine: Machine) -> None:
    machine.drive("vda", "252:0", serial="disk-1\n")
    machine.mount_root("252:0", "/dev/vda")
    assert machine.serial == "disk-1"


def test_udev_knows_the_serial_of_a_drive_that_does_not_show_it(machine: Machine) -> None:
    machine.drive("sda", "8:0")
    machine.put("run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_SERIAL=Model_SN77\nE:ID_SERIAL_SHORT=SN77\n")
    machine.mount_root("8:0", "/dev/sda")
    assert machine.serial == "SN77"


def test_a_volume_leads_to_the_drive_under_it(machine: Machine) -> None:
    nvme = machine.drive("nvme0n1", "259:0", device__serial="DEEP")
    partition = machine.partition(nvme, "nvme0n1p3", "259:3")
    crypt = machine.drive("dm-0", "253:0")
    volume = machine.drive("dm-1", "253:1")
    for upper, lower in ((crypt, partition), (volume, crypt)):
        (upper / "slaves").mkdir()
        (upper / "slaves" / lower.name).symlink_to(lower)
    machine.drive("nvme1n1", "259:9", device__serial="OTHER")
    machine.mount_root("253:1", "/dev/mapper/vg-root")
    assert machine.serial == "DEEP"


def test_btrfs_is_found_by_its_device(machine: Machine) -> None:
    sda = machine.drive("sda", "8:0", device__serial="FIRST")
    sdb = machine.drive("sdb", "8:16", device__serial="SECOND")
    machine.partition(sda, "sda1", "8:1")
    machine.partition(sdb, "sdb1", "8:17")
    machine.put("dev/sdb1", "")
    machine.mount_root("0:31", "/dev/sdb1", "btrfs")
    assert machine.serial == "SECOND"


def test_in_a_container_the_first_drive_of_the_host_stands_in(machine: Machine) -> None:
    machine.drive("loop0", "7:0", serial="never")
    machine.drive("nvme0n1", "259:0", device__serial="HOST")
    machine.mount_root("0:45", "overlay", "overlay")
    assert machine.serial == "HOST"


async def test_the_configured_string_goes_first(tmp_path: Path) -> None:
    kept = tmp_path / "hardware.txt"
    assert await hardware_string(SecretStr("CPU: registered"), kept) == SecretStr("CPU: registered")
    assert not kept.exists()


async def test_it_is_computed_once_and_kept_for_the_daemon_alone(tmp_path: Path) -> None:
    kept = tmp_path / "hardware.txt"
    first = (await hardware_string(None, kept)).get_secret_value()
    assert first.startswith("CPU: ")
    assert not first.endswith(".")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.write_text("CPU: before the new memory module\n")
    assert await hardware_string(None, kept) == SecretStr("CPU: before the new memory module")


async def test_a_file_that_cannot_be_read_is_an_error_and_not_a_new_string(tmp_path: Path) -> None:
    kept = tmp_path / "hardware.txt"
    kept.mkdir()
    with pytest.raises(StorageError, match=r"hardware\.txt"):
        await hardware_string(None, kept)


def test_real_commands_that_fail_or_are_missing_count_as_silent(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = machine.system / "bin"
    machine.put("bin/lscpu", "#!/bin/sh\necho 'Model name: Broken'\nexit 3\n")
    (commands / "lscpu").chmod(0o755)
    monkeypatch.setenv("PATH", str(commands))
    assert compute(machine.system).startswith("CPU: none. GPU: none. ")


def test_a_string_may_be_kept_where_the_directory_is_ours_and_is_never_made_elsewhere(tmp_path: Path) -> None:
    kept = tmp_path / "hardware.txt"
    assert may_be_kept(kept)
    assert not may_be_kept(tmp_path / "no-root" / "hardware.txt")
    assert not kept.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_the_string_of_another_users_root_to_that_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    kept = tmp_path / "hardware.txt"
    assert not may_be_kept(kept)
    kept.write_text("h")
    assert may_be_kept(kept)
