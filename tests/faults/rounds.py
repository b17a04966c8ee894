"""Rounds of random kills: the daemon with SIGKILL at any moment, the broker now and then, while an annotator publishes all the time.

The rounds come in chapters: a stream, two roots that follow it, a story. Each round starts the daemon on a root and kills it. At a
chapter's end both daemons consume the rest in peace, and the roots must equal the truth of what the stream holds.
"""

import asyncio
import random
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rstream.exceptions
import yaml

from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from tests.faults.ground import Damage, Ground, heard
from tests.faults.story import Act, Story

ROOTS = 2
_CHUNK = 200
_BACKLOG = 1000
"""So many messages the annotator is ahead of the slower root, at most."""
_BROKER_LIVES_S = (8.0, 20.0)
_BROKER_IS_AWAY_S = (0.0, 2.0)
_PATIENCE_S = 3.0
_PUBLISHING_FAILS = (SandboxError, OSError, rstream.exceptions.ServerError, rstream.exceptions.ClientError)


@dataclass
class Tally:
    """What was done, and what was found afterwards."""

    seed: int
    rounds: int = 0
    chapters: int = 0
    messages: int = 0
    broker_kills: int = 0
    unconfirmed: int = 0
    """Chunks that were sent again, since the broker died before it had confirmed them."""
    kills: Counter[str] = field(default_factory=Counter)
    """By what the daemon was in the middle of."""
    damage: Damage = field(default_factory=Damage)
    seconds: float = 0.0

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {moment}" for moment, count in self.kills.most_common())
        return (
            f"{self.rounds} rounds in {self.seconds:.0f} s ({kills}), {self.broker_kills} kills of the broker, {self.messages} messages, "
            f"{self.unconfirmed} chunks sent again: {len(self.damage.lost)} lost, {len(self.damage.doubled)} doubled, "
            f"{len(self.damage.torn)} torn; seed {self.seed}"
        )


class Chapter:
    """One stream and the roots that follow it."""

    def __init__(self, directory: Path, broker: Broker, stream: str, seed: int, tally: Tally) -> None:
        self._broker = broker
        self._stream = stream
        self._story = Story(seed)
        self._tally = tally
        self._annotator = Annotator(broker, stream, confirm_timeout_s=5.0)
        self._acts: list[Act] = []
        self._chances = [random.Random(f"{seed} {number}") for number in range(ROOTS)]
        self._grounds = [Ground(directory / f"root-{number}", broker, stream) for number in range(ROOTS)]
        self._killing = threading.Event()
        self._tallying = threading.Lock()

    def play(self, rounds: int, is_over: Callable[[], bool]) -> None:
        """Kill so many times on all roots together, or until it is over; then compare."""
        self._killing.set()
        share = -(-rounds // ROOTS)
        with ThreadPoolExecutor(ROOTS + 1, thread_name_prefix="chapter") as threads:
            publishing = threads.submit(self._keep_publishing)
            killing = [threads.submit(self._kill, number, share, is_over) for number in range(ROOTS)]
            for root in killing:
                root.exception()
            self._killing.clear()
            for ending in (publishing, *killing):
                ending.result()

    def compare(self) -> None:
        """Let the daemons consume the rest, and look for damage."""
        last = self._story.ending()
        self._publish([last])
        truth = heard(self._broker, self._stream, self._story, self._acts, last=last.message.body)
        assert truth.position is not None
        for ground in self._grounds:
            ground.finish(truth.position)
            damage = ground.damage(truth)
            for found, all_found in (
                (damage.lost, self._tally.damage.lost),
                (damage.doubled, self._tally.damage.doubled),
                (damage.torn, self._tally.damage.torn),
            ):
                all_found += [f"{ground.root}: {one}" for one in found]
        self._tally.chapters += 1

    def _keep_publishing(self) -> None:
        acts = iter(self._story)
        while self._killing.is_set():
            behind = min(ground.position() or 0 for ground in self._grounds)
            if len(self._acts) - behind < _BACKLOG:
                self._publish([next(acts) for _ in range(_CHUNK)])
            else:
                time.sleep(0.01)

    def _publish(self, acts: list[Act]) -> None:
        """Publish until it is confirmed: what the broker has of an attempt that failed is in the stream twice."""
        self._acts += acts
        while True:
            try:
                asyncio.run(self._annotator.publish([act.message for act in acts]))
            except _PUBLISHING_FAILS:
                self._tally.unconfirmed += 1
                time.sleep(0.1)
            else:
                self._tally.messages += len(acts)
                return

    def _kill(self, number: int, rounds: int, is_over: Callable[[], bool]) -> None:
        ground, chance = self._grounds[number], self._chances[number]
        for _ in range(rounds):
            if is_over():
                return
            _vary(ground, chance)
            with ground.site.daemon() as daemon:
                _wait_for_a_moment(daemon, ground.site.operator.log, chance)
                assert daemon.process.poll() is None, f"the daemon ended by itself: {daemon.events()[-2:]}"
                daemon.kill()
                daemon.process.returncode = 0  # as intended
                moment = _moment(ground, daemon)
            with self._tallying:
                self._tally.rounds += 1
                self._tally.kills[moment] += 1


def _vary(ground: Ground, chance: random.Random) -> None:
    """Other batches every round."""
    path = ground.site.operator.config
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    config["ingest"] |= {
        "batch_messages": chance.choice([1, 4, 16, 64, 256]),
        "batch_delay_s": chance.choice([0.0, 0.01, 0.05]),
        "sync_interval_s": chance.choice([0.05, 0.2, 1.0]),
        "threads": chance.choice([1, 2, 4]),
    }
    path.write_text(yaml.safe_dump(config))


def _wait_for_a_moment(daemon: RunningDaemon, log: Path, chance: random.Random) -> None:
    """Mostly while batches are committed, else anywhere between the process's start and some time after it is ready."""
    if chance.random() < 0.2:
        time.sleep(chance.uniform(0.0, 1.2))
        return
    batches = chance.choice([0, 1, 1, 2, 3, 5])
    deadline = time.monotonic() + _PATIENCE_S
    event = b'"ingest.batch"' if batches else b'"stream.connected"'
    with log.open("rb") as lines:
        lines.seek(daemon.log_start)
        seen = 0
        while seen < max(batches, 1) and time.monotonic() < deadline:
            if line := lines.readline():
                seen += event in line
            else:
                time.sleep(0.001)
    time.sleep(chance.uniform(0.0, 0.04))


def _moment(ground: Ground, daemon: RunningDaemon) -> str:
    """What the daemon was in the middle of, from what it has left."""
    if not any(event["event"] == "daemon.ready" for event in daemon.events()):
        return "while starting"
    state = ground.root / "state"
    aside = ground.root.parent / "aside"
    aside.mkdir(exist_ok=True)
    for name in ("ledger.db", "ledger.db-wal"):  # a look at the ledger itself would tidy it up
        if (state / name).exists():
            shutil.copy(state / name, aside / name)
    with closing(sqlite3.connect(aside / "ledger.db")) as db:
        staged = [name for (name,) in db.execute("SELECT staged FROM annotations WHERE dirty IS NOT NULL")]
    shutil.rmtree(aside)
    incoming = {path.name for path in (state / "incoming").iterdir()}
    if incoming & set(staged):
        return "between transaction and tree"
    if incoming:
        return "between staging and transaction"
    return "before the marks were cleared" if staged else "at rest"


@contextmanager
def _broker_killer(broker: Broker, chance: random.Random, tally: Tally) -> Iterator[None]:
    """Kill the broker now and then while the context lasts; afterwards it runs."""
    ending = threading.Event()

    def work() -> None:
        while not ending.wait(chance.uniform(*_BROKER_LIVES_S)):
            broker.kill()
            tally.broker_kills += 1
            ending.wait(chance.uniform(*_BROKER_IS_AWAY_S))
            broker.start()

    with ThreadPoolExecutor(1, thread_name_prefix="broker-killer") as thread:
        killing = thread.submit(work)
        try:
            yield
        finally:
            ending.set()
            killing.result()


def play(directory: Path, seed: int, *, chapter_rounds: int, is_over: Callable[[Tally], bool], say: Callable[[str], None]) -> Tally:
    """Play chapters until it is over, or until there is damage, whose roots stay."""
    tally = Tally(seed)
    started = time.monotonic()
    chance = random.Random(seed)
    with Broker(directory / "rabbitmq") as broker:
        while not is_over(tally) and not tally.damage:
            name = f"azaion-annotations-{tally.chapters}"
            broker.create_stream(name)
            place = directory / f"chapter-{tally.chapters}"
            chapter = Chapter(place, broker, name, chance.getrandbits(32), tally)
            with _broker_killer(broker, chance, tally):
                chapter.play(chapter_rounds, lambda: is_over(tally))
            chapter.compare()
            tally.seconds = time.monotonic() - started
            say(str(tally))
            broker.delete_stream(name)
            if not tally.damage:
                shutil.rmtree(place)
    return tally
