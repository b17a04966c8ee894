import asyncio
from pathlib import Path

import pytest
from blockbuster import BlockBuster, BlockingError

from azaion_daemon.store.durable import replace_durably


async def test_a_blocking_call_of_ours_in_the_loop_is_noticed(no_blocking_calls: BlockBuster, tmp_path: Path) -> None:
    with pytest.raises(BlockingError):
        replace_durably(tmp_path / "file", b"content")


async def test_the_same_call_on_a_thread_is_none(no_blocking_calls: BlockBuster, tmp_path: Path) -> None:
    await asyncio.to_thread(replace_durably, tmp_path / "file", b"content")
    assert (tmp_path / "file").exists()
