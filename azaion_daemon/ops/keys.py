"""Keys that are pressed while a picture is shown: each at once, unseen, and the terminal is given back as it was."""

import os
import select
import signal
import sys
import termios
import tty
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Self

_END = "\x03"
_LONGEST = 1024


class Keys:
    """Waits for keys, for a new size of the terminal, and for the end. Ctrl-C and SIGTERM are the key Ctrl-C."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._terminal: int | None = None
        self._woken = -1
        self._ended = False

    def __enter__(self) -> Self:
        self._woken, waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stack.callback(os.close, self._woken)
        self._stack.callback(os.close, waking)
        self._stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(waking, warn_on_full_buffer=False))
        for number, handler in ((signal.SIGINT, self._end), (signal.SIGTERM, self._end), (signal.SIGWINCH, _look_again)):
            self._stack.callback(signal.signal, number, signal.signal(number, handler))
        with suppress(OSError, ValueError, termios.error):  # without a terminal to read from there are no keys
            terminal = sys.stdin.fileno()
            before = termios.tcgetattr(terminal)
            self._stack.callback(termios.tcsetattr, terminal, termios.TCSADRAIN, before)
            tty.setcbreak(terminal, termios.TCSADRAIN)
            self._terminal = terminal
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._stack.close()

    def wait(self, longest_s: float) -> set[str]:
        """The keys that were pressed; none when the time is over or the terminal has another size."""
        watched = [self._woken] if self._terminal is None else [self._woken, self._terminal]
        ready = select.select(watched, [], [], longest_s)[0]
        pressed = ""
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, _LONGEST)
        if self._terminal in ready:
            pressed = self._read()
        return {*pressed, *(_END if self._ended else "")}

    def _read(self) -> str:
        assert self._terminal is not None
        with suppress(OSError):
            if pressed := os.read(self._terminal, _LONGEST):
                return pressed.decode(errors="replace")
        self._terminal = None  # it is gone: nobody looks on any more
        return _END

    def _end(self, _: int, __: FrameType | None) -> None:
        self._ended = True


def _look_again(_: int, __: FrameType | None) -> None: ...
