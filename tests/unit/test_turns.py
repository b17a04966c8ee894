"""Who waits gets the next turn."""

import threading

import pytest

from azaion_daemon.ingest.turns import Turns


def test_one_at_a_time() -> None:
    turns, inside, most = Turns(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_whoever_waits_gets_its_turn_before_the_one_who_takes_many() -> None:
    turns, waiting, taken, got = Turns(), threading.Event(), 0, threading.Event()

    def wait_for_a_turn() -> None:
        waiting.set()
        with turns:
            got.set()

    waiter = threading.Thread(target=wait_for_a_turn)
    with turns:
        waiter.start()
        waiting.wait()
        while not turns._door.locked():
            pass
    while not got.is_set():
        with turns:
            taken += 1
    waiter.join()
    assert taken <= 1


def test_a_turn_ends_with_an_error_too() -> None:
    turns = Turns()
    with pytest.raises(OSError, match="disk"), turns:
        raise OSError("disk")
    with turns:
        assert not turns._door.locked()
