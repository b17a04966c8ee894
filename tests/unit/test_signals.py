"""Signals are kept until there is someone to tell, then told; a process of its own for each, since they are the process's."""

import signal
import subprocess
import sys

import pytest

STORY = """
import asyncio, os, signal, sys
from azaion_daemon.signals import Signals

signals = Signals()
signals.keep()
told = []

async def serve():
    actions = {number: (lambda number=number: told.append(number.name)) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)}
    with signals.told(actions, asyncio.get_running_loop()):
        await asyncio.sleep(0)
        for number in sys.argv[2].split(","):
            if number:
                os.kill(os.getpid(), int(number))
        async with asyncio.timeout(20):
            while len(told) < int(sys.argv[3]):
                await asyncio.sleep(0.01)

for number in sys.argv[1].split(","):
    if number:
        os.kill(os.getpid(), int(number))
asyncio.run(serve())
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGTERM)
print(*told)
"""


def story(*, before: list[signal.Signals], during: list[signal.Signals], told: int) -> list[str]:
    numbers = [",".join(str(int(one)) for one in signals) for signals in (before, during)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STORY, *numbers, str(told)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("early", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_comes_too_early_is_told_later_and_one_that_comes_too_late_ends_nothing(early: signal.Signals) -> None:
    assert story(before=[early, early], during=[], told=1) == [early.name]


def test_signals_that_come_while_the_loop_works_are_told_each() -> None:
    assert story(before=[], during=[signal.SIGUSR1, signal.SIGHUP], told=2) == ["SIGUSR1", "SIGHUP"]


def test_a_signal_ends_a_long_wait_of_the_loop() -> None:
    waiting = """
import asyncio, os, signal, threading, time
from azaion_daemon.signals import Signals

async def serve():
    came = asyncio.Event()
    with Signals().told({signal.SIGHUP: came.set}, asyncio.get_running_loop()):
        # A thread sends it: the main thread may be about to wait, and nothing else would ever end that.
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGHUP)).start()
        await came.wait()

asyncio.run(serve())
"""
    subprocess.run([sys.executable, "-c", waiting], check=True, timeout=60)
