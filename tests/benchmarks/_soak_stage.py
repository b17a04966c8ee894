"""Who does what at random moments, each on a thread of its own, and the intermissions in which nobody does."""

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks._common import progress

Act = Callable[[random.Random], str | None]
"""Does something, is through when it returns, and says what it was; None when there was nothing to do."""

_MOST_ERRORS = 20


@dataclass(frozen=True)
class Role:
    """Somebody who acts, with pauses between two bounds in seconds. Whatever an act breaks is whole again when it returns."""

    name: str
    act: Act
    pause_s: tuple[float, float]


class Stage:
    """Lets roles act while the context lasts, but in intermissions."""

    def __init__(self, seed: int, *, pace: float) -> None:
        """`pace` multiplies all pauses."""
        self.done: Counter[str] = Counter()
        """How often what was done, by role and act."""
        self.errors: list[str] = []
        """What went wrong in acts: faults of the soak, or of what it asked the daemon for."""
        self.ending = threading.Event()
        """Set from outside, or when an act fails too often: the soak is to come to its end."""
        self.quiet = threading.Event()
        """Nothing is under way, and has not been for a while."""
        self._seed = seed
        self._pace = pace
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._acting: dict[str, float] = {}
        self._over = threading.Event()

    @contextmanager
    def playing(self, roles: list[Role]) -> Iterator[None]:
        """Let them act while the context lasts; afterwards nobody does."""
        threads = [threading.Thread(target=self._play, args=(role,), name=f"soak-{role.name}", daemon=True) for role in roles]
        for thread in threads:
            thread.start()
        self._open.set()
        try:
            yield
        finally:
            self._open.clear()
            self._over.set()
            for thread in threads:
                thread.join()

    def pause(self) -> None:
        """Begin an intermission: nobody begins anything more. What was begun is through when nobody is `acting` any more."""
        self._open.clear()

    def resume(self) -> None:
        """End an intermission."""
        self.quiet.clear()
        self._open.set()

    def acting(self) -> list[str]:
        """Who is in the middle of something."""
        with self._lock:
            return sorted(self._acting)

    def fail(self, what: str) -> None:
        """Note what went wrong."""
        progress(f"WRONG: {what}")
        with self._lock:
            self.errors.append(what)
            if len(self.errors) >= _MOST_ERRORS:
                self.ending.set()

    def _play(self, role: Role) -> None:
        chance = random.Random(f"{self._seed} {role.name}")
        while not self._over.is_set():
            low, high = role.pause_s
            self._over.wait(chance.uniform(low, high) * self._pace)
            self._act(role, chance)

    def _act(self, role: Role, chance: random.Random) -> None:
        with self._lock:
            if not self._open.is_set():
                return
            self._acting[role.name] = time.monotonic()
        try:
            did = role.act(chance)
        except Exception:  # noqa: BLE001 - whatever it is, the soak goes on and reports it
            self.fail(f"{role.name}: {traceback.format_exc(limit=-4).strip()}")
        else:
            if did is not None:
                with self._lock:
                    self.done[f"{role.name}: {did}"] += 1
        finally:
            with self._lock:
                del self._acting[role.name]
