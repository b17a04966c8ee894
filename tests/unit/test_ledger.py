"""The ledger's thread."""

from pathlib import Path

import pytest

from azaion_daemon.errors import StorageError
from azaion_daemon.store.ledger import Ledger, LedgerThread


async def test_a_ledger_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    thread = LedgerThread(Ledger(path))
    path.write_bytes(b"overwritten by somebody" * 1000)
    with pytest.raises(StorageError, match="using the ledger"):
        await thread(thread.ledger.jobs)
    thread.close()


async def test_what_is_not_sqlites_fault_comes_out_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    thread = LedgerThread(Ledger(path))
    with pytest.raises(ZeroDivisionError):
        await thread(lambda: 1 // 0)
    thread.close()
