"""What a process says of itself."""

import threading
from pathlib import Path

from azaion_daemon.ops.own_process import resources


def test_descriptors_and_threads_are_counted_as_they_come_and_go(tmp_path: Path) -> None:
    before = resources(tasks=3)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    with (tmp_path / "file").open("w"):
        thread.start()
        during = resources(tasks=4)
        done.set()
        thread.join()
    after = resources(tasks=3)
    for what in ("descriptors", "threads"):
        assert (during[what] or 0) - (before[what] or 0) == 1
        assert after[what] == before[what]
    assert (before["tasks"], during["tasks"]) == (3, 4)
    assert 1e6 < (before["rss_bytes"] or 0) < 1e10
