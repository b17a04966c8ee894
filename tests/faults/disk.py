"""A small ext4 filesystem of its own, in a file, that can be filled, fail and lose its power."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN of the kernel: from then on nothing reaches the device, and everything asked of it fails with EIO."""
_WITHOUT_LOG_FLUSH = 2


class Disk:
    """Mounted at `place`. After an error it is read-only, as servers' disks are.

    What a power cut would lose is really lost: after `cut_power` and `mount` there is what had reached the device, and no more.
    """

    def __init__(self, image: Path, place: Path, size_mib: int) -> None:
        """Make and mount it. Skips the test where that cannot be done."""
        self._image, self._place = image, place
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        place.mkdir(parents=True, exist_ok=True)
        for command in (["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", str(image)], self._mounting()):
            try:
                done = subprocess.run(command, check=False, capture_output=True, text=True)
            except FileNotFoundError:
                pytest.skip(f"{command[0]} is not installed")
            if done.returncode:
                pytest.skip(f"no filesystem of its own can be mounted here: {done.stderr.strip()}")

    def _mounting(self) -> list[str]:
        return ["mount", "-t", "ext4", "-o", "loop,errors=remount-ro", str(self._image), str(self._place)]

    def mount(self) -> None:
        """Mount it again; its journal is replayed."""
        subprocess.run(self._mounting(), check=True)

    def unmount(self) -> None:
        """Take it away, under whoever uses it."""
        subprocess.run(["umount", "--lazy", self._place], check=True)

    def is_mounted(self) -> bool:
        """Whether it is where it belongs."""
        return self._place.is_mount()

    def fail(self) -> None:
        """Let the kernel find an error in the filesystem, after which it is read-only."""
        found = subprocess.run(["findmnt", "--noheadings", "--output", "SOURCE", self._place], check=True, capture_output=True, text=True)
        Path(f"/sys/fs/ext4/{Path(found.stdout.strip()).name}/trigger_fs_error").write_text("a test says so")

    def repair(self) -> None:
        """Unmount, check and mount it, as an operator does after an error."""
        subprocess.run(["umount", self._place], check=True)
        done = subprocess.run(["e2fsck", "-fy", self._image], check=False, capture_output=True, text=True)
        assert done.returncode <= 1, done.stdout
        self.mount()

    def sync(self) -> None:
        """Bring everything written so far to the device."""
        subprocess.run(["sync", "--file-system", self._place], check=True)

    def cut_power(self) -> None:
        """From now on nothing is written any more, not even what was written and not synced."""
        descriptor = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restore_power(self) -> None:
        """Mount what has reached the device. Nobody uses it any more."""
        subprocess.run(["umount", self._place], check=True)
        self.mount()
