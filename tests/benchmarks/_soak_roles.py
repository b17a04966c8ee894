"""What happens to the daemon during a soak: annotators, a broker and a network that fail, reloads, outages, operators, trainings."""

import asyncio
import json
import random
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Coroutine
from copy import deepcopy
from typing import Any

import rstream.exceptions

from azaion_daemon.sandbox.annotations import Author
from azaion_daemon.sandbox.annotations import Role as Rank
from azaion_daemon.sandbox.annotations import Status as Wire
from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.sandbox.tcp_proxy import flip_last_byte
from azaion_daemon.stream.events import Status
from tests.benchmarks._soak_site import CALM, SoakSite
from tests.benchmarks._soak_stage import Role, Stage
from tests.benchmarks._soak_worker import REAL_EPOCHS
from tests.faults.story import Act, Story

_PUBLISHING_FAILS = (SandboxError, OSError, rstream.exceptions.ServerError, rstream.exceptions.ClientError)
_LEFT_BEHIND_S = 5.0
_ENOUGH = 60
"""Validated annotations for a real training: on each side of the split there are some then."""
_COMMANDS: list[tuple[str, ...]] = [
    ("status",),
    ("status", "--json"),
    ("doctor",),
    ("index", "check"),
    ("model", "list"),
    ("model", "show"),
    ("model", "verify"),
    ("quarantine", "list"),
    ("dataset", "list"),
    ("dataset", "show"),
    ("dataset", "build", "--dry-run"),
    ("train", "list", "--all"),
    ("train", "logs"),
    ("config", "check"),
]
_IN_TRAINING = frozenset({"requested", "forming", "queued", "running"})


class Roles:
    """All of them, over one site and one daemon."""

    def __init__(self, site: SoakSite, daemon: RunningDaemon, stage: Stage, seed: int, *, real_every_s: float) -> None:
        self.story = Story(seed)
        self.acts: list[Act] = []
        """What was published, in order."""
        self.unconfirmed = 0
        """How often something was sent again, since the broker had not confirmed it in time."""
        self.exits: Counter[str] = Counter()
        """How commands ended, by their name and status."""
        self._site = site
        self._daemon = daemon
        self._stage = stage
        self._acts = iter(self.story)
        self._names: list[str] = []
        self._annotator = Annotator(site.world.broker, site.world.stream, confirm_timeout_s=5.0)
        self._real_every_s = real_every_s
        self._next_real = time.monotonic()

    def all(self) -> list[Role]:
        """The roles with their pauses, for a soak of an hour."""
        return [
            Role("annotators", self.annotate, (2, 14)),
            Role("broker", self.break_broker, (90, 240)),
            Role("network", self.break_network, (20, 80)),
            Role("reload", self.reload, (10, 50)),
            Role("outage", self.break_platform, (40, 150)),
            Role("operator", self.operate, (4, 20)),
            Role("training", self.train, (15, 60)),
        ]

    # Annotators

    def annotate(self, chance: random.Random) -> str:
        """A burst of messages; now and then many names at once."""
        if self._names and chance.random() < 0.1:
            names = tuple(chance.sample(self._names, k=min(len(self._names), chance.randint(10, 300))))
            author = Author("validator@example.org", Rank.VALIDATOR)
            burst = [Act(author.validated(names), Status.VALIDATED, names)]
            what = "bulk"
        else:
            burst = [next(self._acts) for _ in range(chance.randint(1, 40))]
            what = "burst"
        self.publish(burst)
        return what

    def publish(self, acts: list[Act]) -> None:
        """Publish until it is confirmed: what the broker has of an attempt that failed is in the stream twice."""
        self.acts += acts
        self._names += [act.names[0] for act in acts if act.message.status is Wire.CREATED and act.names]
        while True:
            try:
                _run_client(self._annotator.publish([act.message for act in acts]))
            except _PUBLISHING_FAILS:
                self.unconfirmed += 1
                time.sleep(0.3)
            else:
                return

    # The broker and the way there

    def break_broker(self, chance: random.Random) -> str:
        site = self._site
        broker, away_s = site.world.broker, chance.uniform(0, 8)
        with site.broker_lock:
            match chance.choice(["killed", "stopped", "frozen"]):
                case "frozen":
                    broker.freeze()
                    time.sleep(chance.uniform(1, 40))  # beyond the daemon's patience, or not
                    broker.thaw()
                    return "frozen"
                case "killed" as how:
                    broker.kill()
                case how:
                    broker.stop()
            time.sleep(away_s)
            site.start_broker()
        return how

    def break_network(self, chance: random.Random) -> str:
        proxy = self._site.proxy
        how = chance.choice(["cut", "hang up", "frozen", "damage", "cut in a chunk", "refusing", "slow"])
        match how:
            case "cut":
                proxy.cut()
            case "hang up":
                proxy.hang_up()
            case "frozen":
                proxy.freeze()
                time.sleep(chance.uniform(0.5, 6))
                proxy.thaw()
            case "damage":
                proxy.damage_delivery(chance.randint(1, 3), flip_last_byte)
            case "cut in a chunk":
                proxy.cut_in_delivery(chance.randint(1, 3))
            case "refusing":
                proxy.refusing = True
                proxy.cut()
                time.sleep(chance.uniform(0.5, 10))
                proxy.refusing = False
            case _:
                proxy.bytes_per_s = 20_000
                time.sleep(chance.uniform(1, 5))
                proxy.bytes_per_s = None
        return how

    def break_platform(self, chance: random.Random) -> str:
        """Outages of the API and the CDN, whole and partial; a token that is not taken any more."""
        platform, store, lasts_s = self._site.world.platform, self._site.world.store, chance.uniform(2, 30)
        how = chance.choice(["API away", "API slow", "API fails", "tokens revoked", "CDN away", "both away"])
        if how in {"API away", "both away"}:
            platform.down = True
        if how in {"CDN away", "both away"}:
            store.stop()
        match how:
            case "API slow":
                platform.slow(1.0)
            case "API fails":
                platform.fail_next("/", chance.choice([429, 500, 503]), times=chance.randint(1, 5))
                return how
            case "tokens revoked":
                platform.tokens.revoke_all()
                return how
        time.sleep(lasts_s)
        platform.slow(0.0)
        platform.down = False
        if how in {"CDN away", "both away"}:
            store.start()
        return how

    # Whoever sits at the server

    def reload(self, chance: random.Random) -> str:
        site, daemon = self._site, self._daemon
        match chance.choices(["changed", "broken", "half", "broker password", "API password", "storm"], [8, 2, 2, 1, 1, 1])[0]:
            case "broken" as how:
                self._refused(chance.choice([b"\x00\xff", b"stream: [", b"log: {level: loud}\n", b""]))
            case "half" as how:
                content = site.config.read_bytes()
                self._refused(content[: chance.randrange(len(content) - 1)])
            case "broker password" as how:
                with site.broker_lock:
                    site.rotate_broker_password(secrets.token_urlsafe(12))
                    site.render(wild(chance))
                site.reload(daemon)
            case "API password" as how:
                site.world.daemon_user.password = secrets.token_urlsafe(12)
                site.render(wild(chance))
                site.reload(daemon)
            case "storm" as how:
                site.render(wild(chance))
                site.reload(daemon, times=50)
            case how:
                site.render(wild(chance))
                site.reload(daemon)
        return how

    def _refused(self, content: bytes) -> None:
        """Have the daemon read something that is no configuration; afterwards the good one is there again."""
        path = self._site.config
        good = path.read_bytes()
        path.write_bytes(content)
        try:
            self._site.reload(self._daemon, ok=False)
        finally:
            path.write_bytes(good)

    def operate(self, chance: random.Random) -> str | None:
        """A command that an operator gives beside the running daemon."""
        kinds = {_look: len(_COMMANDS), self._promote: 1, self._roll_back: 1, self._replay: 1}
        words = chance.choices(list(kinds), list(kinds.values()))[0](chance)
        if words is None:
            return None
        return self._command(*words)

    def train(self, chance: random.Random) -> str | None:
        """Ask for a training, a real one when it is time for that; or cancel one."""
        jobs = self._jobs()
        if time.monotonic() >= self._next_real and self._site.status()["annotations"]["validated"] >= _ENOUGH:
            self._next_real = time.monotonic() + self._real_every_s * chance.uniform(0.8, 1.2)
            wishes = ("--trial",) if chance.random() < 0.2 else ("--epochs", str(REAL_EPOCHS))
            self._command("train", "now", "--reason", "real", *wishes)
            return "real"
        running = [job for job in jobs if job["state"] in _IN_TRAINING and "(real)" not in job["reason"]]
        if running and chance.random() < 0.3:
            self._command("train", "cancel", chance.choice(running)["id"], "--reason", "changed my mind")
            return "cancel"
        self._command("train", "now", "--reason", "stand-in")
        return "stand-in"

    def _promote(self, chance: random.Random) -> tuple[str, ...] | None:
        held = [job["id"] for job in self._jobs() if job["state"] == "held"]
        models = [model["sha256"] for model in json.loads(self._output("model", "list", "--json") or "[]") if "sha256" in model]
        found = [*held, *models]
        return ("model", "promote", chance.choice(found), "--reason", "soak") if found else None

    def _roll_back(self, _: random.Random) -> tuple[str, ...] | None:
        released = [release for release in self._site.status()["releases"] if release["state"] == "published"]
        return ("model", "rollback", "--reason", "soak") if len(released) > 1 else None

    def _replay(self, chance: random.Random) -> tuple[str, ...] | None:
        positions = [path.stem for path in (self._site.root / "quarantine").glob("*.amqp")]
        return ("quarantine", "replay", chance.choice(positions)) if positions else None

    def _jobs(self) -> list[dict[str, Any]]:
        return list(self._site.status()["training"]["jobs"])

    def _output(self, *words: str) -> str:
        return self._run(*words).stdout

    def _command(self, *words: str) -> str:
        """Give a command; its name. Whatever its status, it must not end by a signal or a traceback."""
        name = " ".join(word for word in words[:2] if not word.startswith("-"))
        done = self._run(*words)
        self.exits[f"{name}: {done.returncode}"] += 1
        if done.returncode < 0 or "Traceback" in done.stderr:
            self._stage.fail(f"`{' '.join(words)}` ended with {done.returncode}: {done.stderr[-800:]}")
        return name

    def _run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self._site.ground.site.operator.try_command(*words)


def _run_client(doing: Coroutine[Any, Any, object]) -> None:
    """As asyncio.run, but a task of the client that outlives its cancelling, as some do when the broker goes, is left behind."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(doing)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_LEFT_BEHIND_S))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _look(chance: random.Random) -> tuple[str, ...] | None:
    return chance.choice(_COMMANDS)


def wild(chance: random.Random) -> dict[str, dict[str, Any]]:
    """A configuration that the daemon takes, unlike the one before."""
    sections = deepcopy(CALM)
    sections["trigger"] = {
        "new_annotations": chance.choice([20, 60, 200, None]),
        "min_total": chance.choice([1, 50, 1_000_000]),
        "quiet_minutes": chance.choice([0, 0.02, 0.2]),
        "cooldown_hours": chance.choice([0, 0.005, 0.02]),
    }
    sections["ingest"] |= {
        "batch_messages": chance.choice([1, 8, 64, 256]),
        "batch_delay_s": chance.choice([0, 0.05, 0.5]),
        "sync_interval_s": chance.choice([0.05, 1, 5]),
    }
    sections["gate"] |= {"min_images": chance.choice([1, 1, 5000])}
    sections["training"] |= {"max_parallel_jobs": chance.choice([1, 2, 3])}
    sections["dataset"] |= {"split_by": chance.choice(["media", "name"]), "images": chance.choice(["linked", "resized"])}
    sections["stream"] = {"initial_credit": chance.choice([1, 2, 10]), "heartbeat_s": chance.choice([2, 5, 10])}
    sections["retention"] |= {"jobs_keep": chance.choice([3, 5]), "models_keep": chance.choice([2, 3])}
    sections["log"] |= {"level": chance.choice(["debug", "info", "info", "warning"])}
    return sections
