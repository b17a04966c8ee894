"""What a person sees of the demo: a line a step, and under it, on a terminal, how far it is."""

import sys
import time
from typing import Any

from azaion_daemon.ops.wording import bar

_BAR = 24


class Screen:
    """Writes to standard error."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._started = time.monotonic()
        self._last = ""

    def step(self, text: str) -> None:
        """Something begins."""
        self._write(f"\n{self._clock()} {text}\n")

    def detail(self, text: str) -> None:
        """Something to know about the step."""
        self._write(f"        {text}\n")

    def progress(self, text: str) -> None:
        """How far the step is."""
        if self._live:
            self._write(f"\r\033[K        {text}", transient=True)
        elif text != self._last:
            self._write(f"        {text}\n")
        self._last = text

    def training(self, progress: dict[str, Any]) -> None:
        """How far a training is, an epoch at a time."""
        epoch, epochs, map50 = progress["epoch"], progress["epochs"], progress["map50"]
        quality = "" if map50 is None else f"  mAP50 {map50:.3f}"
        drawn = bar(epoch / max(epochs, 1), _BAR)
        self.progress(f"{progress['phase']:<9} {drawn} epoch {epoch}/{epochs}{quality}")

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"[{seconds // 60}:{seconds % 60:02d}]"

    def _write(self, text: str, *, transient: bool = False) -> None:
        clear = "\r\033[K" if self._live and not transient and self._last else ""
        print(clear + text, end="", file=sys.stderr, flush=True)
        if not transient:
            self._last = ""
