"""Files that are whole or not there."""

import errno
import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from azaion_daemon.errors import DiskFullError, RootError, StorageError
from azaion_daemon.store.durable import (
    FilesystemSync,
    copy_durably,
    exclusive_lock,
    fsync_directory,
    lock_holder,
    remove_temporaries,
    replace_atomically,
    replace_durably,
    replacing,
    storage,
    write_json,
    write_new,
)


@pytest.mark.parametrize("replace", [replace_durably, replace_atomically])
def test_a_file_is_replaced_by_another_and_never_changed_in_place(tmp_path: Path, replace: object) -> None:
    path, link = tmp_path / "f", tmp_path / "link"
    path.write_bytes(b"old and longer")
    os.link(path, link)
    replace(path, b"new")  # type: ignore[operator]
    assert (path.read_bytes(), link.read_bytes()) == (b"new", b"old and longer")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["f", "link"]


def test_a_link_in_the_place_of_the_temporary_file_leads_nowhere(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_bytes(b"a ledger")
    (temporary,) = _temporary_names(tmp_path / "f")
    (tmp_path / temporary).symlink_to(ours)
    with pytest.raises(OSError, match=temporary):
        replace_durably(tmp_path / "f", b"new")
    assert ours.read_bytes() == b"a ledger"
    assert not (tmp_path / "f").exists()


def _temporary_names(path: Path) -> list[str]:
    """What lies beside a file while it is made."""
    with suppress(KeyError), replacing(path):
        names = [one.name for one in path.parent.iterdir() if path.name in one.name]
        raise KeyError
    return names


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_durably(tmp_path / "f", b"x", mode=0o640)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_a_failed_replace_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "inside").touch()
    with pytest.raises(OSError, match="d"):
        replace_durably(tmp_path / "d", b"x")
    assert [one.name for one in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("content", [b"", b"x", bytes(5_000_000)])
def test_a_new_file_has_all_its_bytes(tmp_path: Path, content: bytes) -> None:
    write_new(tmp_path / "f", b"something that was there before")
    write_new(tmp_path / "f", content)
    assert (tmp_path / "f").read_bytes() == content


def test_a_json_document_reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", {"path": tmp_path, "word": "Танк"})
    assert json.loads((tmp_path / "f.json").read_text()) == {"path": str(tmp_path), "word": "Танк"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_and_no_quota_are_a_full_disk(number: int) -> None:
    with pytest.raises(DiskFullError, match=r"writing /f: .*Free some space"), storage("writing"):
        raise OSError(number, os.strerror(number), "/f")


def test_any_other_fault_of_the_disk_says_what_to_do() -> None:
    with pytest.raises(StorageError, match=r"writing /f: Input/output error\. Check the disk") as caught, storage("writing"):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/f")
    assert not isinstance(caught.value, DiskFullError)
    assert caught.value.exit_code == os.EX_IOERR


def test_what_is_no_fault_of_the_disk_passes_through() -> None:
    with pytest.raises(KeyError), storage("writing"):
        raise KeyError


def test_a_filesystem_and_a_directory_can_be_synced(tmp_path: Path) -> None:
    sync = FilesystemSync(tmp_path)
    sync()
    sync.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync()
    fsync_directory(tmp_path)


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path, busy="in use"):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(RootError, match=rf"in use \(pid {os.getpid()}\)"), exclusive_lock(path, busy="in use"):
            pass
    with exclusive_lock(path, busy="in use"):
        pass


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from azaion_daemon.store.durable import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1]), busy='x'): print('held', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "lock"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RootError, match=rf"pid {process.pid}"), exclusive_lock(tmp_path / "lock", busy="x"):
            pass
        process.kill()
        process.wait()
        with exclusive_lock(tmp_path / "lock", busy="x"):
            pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_while_syncing_has_failed(number: int) -> None:
    with pytest.raises(DiskFullError), storage("writing"):
        raise OSError(number, "full")
    with pytest.raises(StorageError) as caught, storage("syncing", syncing=True):
        raise OSError(number, "full")
    assert not isinstance(caught.value, DiskFullError)


def test_a_pid_is_believed_only_while_its_lock_is_held(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert lock_holder(lock) is None
    with exclusive_lock(lock, busy="in use"):
        assert lock_holder(lock) == os.getpid()
    assert lock.read_text().strip() == str(os.getpid())
    assert lock_holder(lock) is None


def test_a_lock_that_cannot_be_written_is_an_error_for_the_operator(tmp_path: Path) -> None:
    with (
        pytest.raises(RootError, match="cannot be written: No such file or directory"),
        exclusive_lock(tmp_path / "gone" / "lock", busy="x"),
    ):
        pass


def test_a_rename_that_failed_names_both_paths(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.touch()
    with pytest.raises(StorageError, match=rf"moving {tmp_path}/a -> {tmp_path}/gone/a: No such file or directory"), storage("moving"):
        file.rename(tmp_path / "gone" / "a")


def test_a_temporary_that_vanishes_while_temporaries_are_removed_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that outlived its killed parent may rename it just then."""
    for name in ("a", "b"):
        (tmp_path / f".{name}.1.tmp").touch()
    listed = list(tmp_path.iterdir())
    monkeypatch.setattr(Path, "glob", lambda *_: iter(listed))
    listed[0].rename(tmp_path / "whole")
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new" * 1000)
    (tmp_path / "target").write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        copy_durably(tmp_path / "missing", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"old"
    copy_durably(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"new" * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_a_file_that_an_error_cuts_short_is_as_it_was_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"before")
    with suppress(ZeroDivisionError), replacing(tmp_path / "f", mode=0o600) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"before")]
    with replacing(tmp_path / "f", mode=0o600) as file:
        file.write(b"after")
        assert (tmp_path / "f").read_bytes() == b"before"
    assert (tmp_path / "f").read_bytes() == b"after"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600
