"""Whether every part of the daemon gets on: it makes progress, or it waits for something that has a name.

Each part (a task of the daemon, a step of it that runs beside others, the ledger's thread) has a pulse. What a part does not say is work,
and work must get on within the part's limit; only what it says it waits for may take as long as it likes. So nobody has to remember a
timer: a lock that is never released, a disk that does not answer or a future that nobody fulfils shows by itself, as work without an end.

Which pulse is meant follows from where the code runs, as with `asyncio.timeout`: `Vitals.watched` sets it for a task and everything that
it calls, threads of `asyncio.to_thread` too. So `waiting_for` and `beat` stand where the waiting and the work are, many calls below who
is watched, and do nothing where nobody is: in commands and tests. A task that is started beside its part and works for long needs a pulse
of its own (`strand`): in one that is shared, progress of the one would hide that the other stands still.

A blocked event loop needs no rule: then nobody asks for the health, and systemd gets no ping (`azaion_daemon.watchdog`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

STEP_LIMIT_S = 600.0
"""How long one step of a part may take. No step of ours takes minutes on a disk that works, but a sync behind the gigabytes that a training
has just left in the page cache does, and a sick disk is retried by its driver for some minutes before it fails. Too short would be worse
than too long: a restart does not make a slow disk faster, while a part that hangs holds up nothing that a few minutes more would lose."""
JOB_LIMIT_S = 3600.0
"""The same for a job. Some of its steps read or copy gigabytes at once, beside a training that has the disk: a model and its digests, the
manifests of two datasets, what a trial leaves. Its worker is watched by other means (`azaion_daemon.training.stalls`)."""
PUBLISH_LIMIT_S = 900.0
"""The same for a release: a call to the store may take 4 attempts of 120 s, each with 10 s to connect."""
LOCK_LIMIT_S = 86400.0
"""How long a part may wait for another one that has the tree, a dataset or the place of the current model for itself. The other one may
wait for space meanwhile, for hours, and is watched itself; so this ends only what two parts could do to each other."""


class Sign(NamedTuple):
    """What a part is at since when (monotonic seconds), and how long that may take; None: as long as what it waits for takes."""

    part: str
    what: str
    since: float
    limit_s: float | None


class Ailing(NamedTuple):
    """A part that has not got on for `for_s` seconds."""

    part: str
    what: str
    for_s: float


class Health(NamedTuple):
    """What is wrong; nothing, when all is well."""

    ailing: tuple[Ailing, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every part gets on."""
        return not self.ailing


def judge(signs: Iterable[Sign], now: float) -> Health:
    """Which parts have taken longer over something than that may take."""
    return Health(
        tuple(
            Ailing(sign.part, sign.what, now - sign.since) for sign in signs if sign.limit_s is not None and now - sign.since > sign.limit_s
        )
    )


@dataclass(slots=True, eq=False)
class _Doing:
    what: str
    limit_s: float | None
    since: float


class Pulse:
    """What one part is at. The newest of what it has begun and not ended counts; threads may beat."""

    def __init__(self, part: str, doing: str, limit_s: float | None, vitals: "Vitals") -> None:
        """`limit_s` is how long a step may take, in real seconds."""
        self.part = part
        self.limit_s = limit_s
        self.vitals = vitals
        self._doings: tuple[_Doing, ...] = (_Doing(doing, limit_s, vitals.clock()),)  # replaced, never changed: others look at it

    def beat(self) -> None:
        """Say that a step is done."""
        self._doings[-1].since = self.vitals.clock()

    @contextmanager
    def doing(self, what: str, limit_s: float | None) -> Iterator[None]:
        """Be at something while the context lasts."""
        one = _Doing(what, limit_s, self.vitals.clock())
        self._doings = (*self._doings, one)
        try:
            yield
        finally:
            self._doings = tuple(other for other in self._doings if other is not one)
            self.beat()

    def sign(self) -> Sign:
        """What it is at now."""
        newest = self._doings[-1]
        return Sign(self.part, newest.what, newest.since, newest.limit_s)


_pulse: ContextVar[Pulse | None] = ContextVar("pulse", default=None)


class Vitals:
    """The pulses of one daemon."""

    def __init__(self, patience: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`patience` is by what every limit is multiplied."""
        self.clock = clock
        self.patience = patience
        self._pulses: list[Pulse] = []

    async def watched(self, part: str, work: Awaitable[T], *, limit_s: float = STEP_LIMIT_S) -> T:
        """Do the work of a part, which is watched until it ends. `limit_s` is how long each of its steps may take."""
        with self._watching(Pulse(part, "working", limit_s * self.patience, self)):
            return await work

    def thread(self, part: str) -> Pulse:
        """The pulse of a thread that waits for calls. It is watched for ever."""
        pulse = Pulse(part, "waiting for calls", None, self)
        self._pulses.append(pulse)
        return pulse

    @contextmanager
    def _watching(self, pulse: Pulse) -> Iterator[None]:
        self._pulses.append(pulse)
        before = _pulse.set(pulse)
        try:
            yield
        finally:
            _pulse.reset(before)
            self._pulses.remove(pulse)

    @contextmanager
    def strand(self, parent: Pulse, name: str, limit_s: float | None) -> Iterator[None]:
        """See the function of that name."""
        limit_s = parent.limit_s if limit_s is None else limit_s * self.patience
        with self._watching(Pulse(f"{parent.part}: {name}", "working", limit_s, self)):
            yield

    def judged(self) -> Health:
        """Their health at this moment."""
        return judge([pulse.sign() for pulse in self._pulses], self.clock())

    def document(self) -> dict[str, Any]:
        """As JSON, for the status: what each part is at, for how long, and how long that may take."""
        now = self.clock()
        signs = [pulse.sign() for pulse in self._pulses]
        health = judge(signs, now)
        return {
            "ok": health.ok,
            "ailing": [{"part": one.part, "what": one.what, "for_s": round(one.for_s, 1)} for one in health.ailing],
            "parts": {
                sign.part: {"what": sign.what, "for_s": round(max(now - sign.since, 0.0), 1), "limit_s": sign.limit_s} for sign in signs
            },
        }


def beat() -> None:
    """Say that a step is done, where many follow each other without anything to wait for."""
    if (pulse := _pulse.get()) is not None:
        pulse.beat()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what the work is, where a part does several things; it may take as long as any step of the part."""
    if (pulse := _pulse.get()) is None:
        yield
        return
    with pulse.doing(what, pulse.limit_s):
        yield


@contextmanager
def waiting_for(what: str, *, at_most_s: float | None = None) -> Iterator[None]:
    """Wait for something that has a name; `at_most_s` where that is not to be waited for without an end."""
    if (pulse := _pulse.get()) is None:
        yield
        return
    with pulse.doing(f"waiting for {what}", None if at_most_s is None else at_most_s * pulse.vitals.patience):
        yield


@contextmanager
def strand(name: str, *, limit_s: float | None = None) -> Iterator[None]:
    """Work beside others of the same part, with a pulse of one's own; the limit is the part's unless it is given."""
    if (pulse := _pulse.get()) is None:
        yield
        return
    with pulse.vitals.strand(pulse, name, limit_s):
        yield


@contextmanager
def calling(pulse: Pulse | None, what: str) -> Iterator[None]:
    """On a thread: do one call, for which its pulse is the one that counts."""
    if pulse is None:
        yield
        return
    before = _pulse.set(pulse)
    try:
        with pulse.doing(what, STEP_LIMIT_S * pulse.vitals.patience):
            yield
    finally:
        _pulse.reset(before)


@asynccontextmanager
async def holding(lock: asyncio.Lock, what: str) -> AsyncIterator[None]:
    """Hold a lock while the context lasts; `what` is what is waited for until it is had."""
    with waiting_for(what, at_most_s=LOCK_LIMIT_S):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()
