"""A root on which the daemon is killed, what is found there afterwards, and how that differs from the truth."""

import asyncio
import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rstream

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.connecting import connecting
from azaion_daemon.sandbox.operator import RunningDaemon
from tests.faults.launcher import Fault, environment
from tests.faults.story import Act, Story, Truth
from tests.harness import Site

_PROJECT = Path(__file__).parents[2]
_POLL_S = 0.02
_LIMIT_S = 60.0
_SMALL_BATCHES = {"batch_messages": 16, "batch_delay_s": 0.05, "sync_interval_s": 0.05, "threads": 2, "min_free_disk": "0"}
_OF_THE_TREE = {"dirty", "staged", "stale_extensions"}
"""Columns that say how far the tree is, not what is true."""
_OF_TIME = {"changes"}
"""Tables that say when something was, and nothing else."""
_TIMES = {"first_seen", "changed", "updated", "time", "id"}


@dataclass
class Damage:
    """What a root has not, has too much of, or has otherwise than it should: files and rows by name."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.torn)

    def found(self) -> list[str]:
        """One line for each."""
        kinds = {"lost": self.lost, "doubled": self.doubled, "torn": self.torn}
        return [f"{kind}: {one}" for kind, all_of_it in kinds.items() for one in all_of_it]

    def add(self, what: str, found: dict[Any, Any], expected: dict[Any, Any]) -> None:
        """Compare two mappings; `what` they are is named before each key."""
        self.lost += [f"{what} {key}" for key in expected.keys() - found.keys()]
        self.doubled += [f"{what} {key}" for key in found.keys() - expected.keys()]
        self.torn += [
            f"{what} {key}: {found[key]!r}, not {expected[key]!r}" for key in expected.keys() & found if found[key] != expected[key]
        ]


class Ground:
    """One root, the daemon that works on it, with or without faults, and the stream that it follows."""

    def __init__(self, directory: Path, broker: Broker, stream: str, ingest: dict[str, Any] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.site = Site(directory, broker, stream)
        self.root = self.site.root
        self.census = directory / "census"
        self._ledger = self.root / "state" / "ledger.db"
        self.site.overrides["ingest"] = {**_SMALL_BATCHES, **(ingest or {})}
        self.site.prepare()

    def configure(self, ingest: dict[str, Any]) -> None:
        """Set `ingest.…` beside what makes batches many and small."""
        self.site.overrides["ingest"] = {**_SMALL_BATCHES, **ingest}
        self.site.configure()

    def daemon(self, *faults: Fault) -> RunningDaemon:
        """A context in which the daemon runs with faults."""
        variables = {**environment(*faults, census=self.census), "PYTHONPATH": str(_PROJECT)}
        return self.site.operator.daemon([sys.executable, "-m", "tests.faults.launcher"], variables)

    def reached(self) -> set[str]:
        """The points that were reached until now."""
        return {line for line in self._census() if not line.startswith("fault ")}

    def faults_done(self) -> list[str]:
        """The points of the faults that were done until now, in order."""
        return [line.removeprefix("fault ") for line in self._census() if line.startswith("fault ")]

    def reached_since_the_last_fault(self) -> set[str]:
        """The points that a process reached for the first time after its fault."""
        lines = self._census()
        (last,) = [number for number, line in enumerate(lines) if line.startswith("fault ")][-1:]
        return set(lines[last + 1 :])

    def _census(self) -> list[str]:
        return self.census.read_text().splitlines() if self.census.exists() else []

    def die(self, *faults: Fault) -> str:
        """Run the daemon until a fault kills it; the fault's point."""
        done = len(self.faults_done())
        with self.daemon(*faults) as daemon:
            deadline = time.monotonic() + _LIMIT_S
            while (code := daemon.process.poll()) is None:
                assert time.monotonic() < deadline, f"{[fault.point for fault in faults]} was never reached"
                time.sleep(_POLL_S)
            assert code == -9, f"ended with {code} instead of at {[fault.point for fault in faults]}: {daemon.events()[-3:]}"
            daemon.process.returncode = 0  # as intended
        (point,) = self.faults_done()[done:]
        return point

    def finish(self, last: int) -> None:
        """Run the daemon without faults until it has consumed the message `last`, and stop it."""
        with self.daemon() as daemon:
            daemon.wait_for_event("daemon.ready")
            self.wait_for_position(daemon, last)

    def wait_for_position(self, daemon: RunningDaemon, last: int) -> None:
        """Wait until the ledger has a message."""
        deadline = time.monotonic() + _LIMIT_S
        while (position := self.position()) is None or position < last:
            assert daemon.process.poll() is None, f"the daemon ended: {daemon.events()[-3:]}"
            assert time.monotonic() < deadline, f"stays at {position} and does not come to {last}"
            time.sleep(_POLL_S)

    def position(self) -> int | None:
        """The last message that the ledger has."""
        rows = self._select("SELECT offset FROM position")
        return int(rows[0][0]) if rows else None

    def damage(self, truth: Truth) -> Damage:
        """How the root differs from the truth. The daemon does not run."""
        damage = Damage()
        damage.add("file", self.site.tree(), truth.tree())
        columns = "name, home, label, pending, image, image_missing, image_conflict"
        rows = {row[0]: tuple(row[1:]) for row in self._select(f"SELECT {columns} FROM annotations")}
        damage.add("row", rows, truth.rows())
        damage.add("quarantined", self.quarantined(), truth.quarantined)
        damage.doubled += [f"temporary {name}" for name in self.debris()]
        damage.torn += [f"mark of {name}" for (name,) in self._select("SELECT name FROM annotations WHERE dirty IS NOT NULL")]
        if self.position() != truth.position:
            damage.torn.append(f"position {self.position()}, not {truth.position}")
        return damage

    def quarantined(self) -> dict[int, bytes]:
        """The bodies of the messages in the quarantine, by offset; each has its JSON, and that is true."""
        found = {}
        directory = self.root / "quarantine"
        for path in directory.glob("*.amqp"):
            content = path.read_bytes()
            entry = json.loads(path.with_suffix(".json").read_text())
            assert (entry["sha256"], entry["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
            found[int(path.stem)] = rstream.amqp_decoder(content).body
        assert {path.stem for path in directory.glob("*.json")} == {str(offset) for offset in found}
        return found

    def debris(self) -> list[str]:
        """Staged and temporary files."""
        left = [*(self.root / "state" / "incoming").iterdir(), *self.root.rglob("*.tmp"), *self.root.rglob(".*")]
        return sorted({str(path.relative_to(self.root)) for path in left})

    def history(self) -> dict[str, list[dict[str, Any]]]:
        """Every table of the ledger without times and without what says how far the tree is."""
        tables = [name for (name,) in self._select("SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'")]
        return {table: self._table(table) for table in tables if table not in _OF_TIME}

    def _table(self, name: str) -> list[dict[str, Any]]:
        with closing(self._open()) as db:
            db.row_factory = sqlite3.Row
            rows = [dict(row) for row in db.execute(f"SELECT * FROM {name}")]
        return [{key: value for key, value in row.items() if key not in _OF_THE_TREE | _TIMES} for row in rows]

    def _select(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self._open()) as db:
            return db.execute(query).fetchall()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._ledger}?mode=ro", uri=True, timeout=10)


def heard(broker: Broker, stream: str, story: Story, acts: Iterable[Act], *, last: bytes) -> Truth:
    """The truth of a whole stream, whose last message has the body `last`.

    It has the messages of all these acts, which the broker has confirmed, and no others; in whatever order, and some more than once.
    """
    meaning = {act.message.body: act for act in acts}
    messages = asyncio.run(read(broker, stream, 0, last=last))
    assert meaning.keys() == {body for _, body in messages}, "the broker has lost messages that it had confirmed"
    truth = Truth(story.images)
    for offset, body in messages:
        truth.hear(offset, meaning[body])
    return truth


async def read(broker: Broker, stream: str, start: int, *, last: bytes) -> list[tuple[int, bytes]]:
    """The offsets and bodies of a stream from `start` on, to the message whose body is `last`."""
    found: list[tuple[int, bytes]] = []
    ended = asyncio.Event()

    def take(payload: bytes, context: rstream.MessageContext) -> None:
        if context.offset >= start and not ended.is_set():
            found.append((context.offset, rstream.amqp_decoder(payload).body))
            if found[-1][1] == last:
                ended.set()

    login = broker.consumer
    where = rstream.ConsumerOffsetSpecification(rstream.OffsetType.OFFSET, start)
    async with (
        asyncio.timeout(_LIMIT_S),
        connecting(rstream.Consumer(broker.host, broker.port, username=login.user, password=login.password)) as consumer,
    ):
        await consumer.subscribe(stream, take, decoder=None, offset_specification=where)
        await ended.wait()
    return found
