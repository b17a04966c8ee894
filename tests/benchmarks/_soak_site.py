"""Where a soak takes place: the whole world, a proxy before the broker, a root, and the daemon's configuration as it changes."""

import json
import os
import signal
import sqlite3
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnx import TensorProto, helper

from azaion_daemon.sandbox.broker import Login
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from azaion_daemon.sandbox.scenes import CLASS_NAMES
from azaion_daemon.sandbox.tcp_proxy import Proxy
from azaion_daemon.sandbox.world import World
from tests.benchmarks._soak_daemon import TRACE
from tests.benchmarks._soak_worker import ONNX
from tests.faults.ground import Ground
from tests.harness import NEVER

_PROJECT = Path(__file__).parents[2]
_RELOAD_S = 30.0
_POLL_S = 0.1
_SIDE = 64
BUSY_JOBS = ("requested", "forming", "queued", "running", "accepted", "releasing")
CALM: dict[str, dict[str, Any]] = {
    "trigger": dict(NEVER),
    "ingest": {"batch_messages": 64, "batch_delay_s": 0.05, "sync_interval_s": 1, "threads": 2, "min_free_disk": "1MiB"},
    "dataset": {"min_images": 1, "min_objects": 1, "min_free_disk": "1MiB"},
    "training": {"gpus": "none", "max_parallel_jobs": 2, "max_attempts": 4},
    "gate": {"min_images": 1, "min_map50_95": 0, "max_drop": 1, "max_class_drop": 1},
    "publish": {"keep_versions": 2},
    "retention": {f"{what}_{limit}": value for what in ("datasets", "models", "jobs") for limit, value in (("keep", 3), ("keep_days", 0))},
    "log": {"level": "info", "format": "json"},
}
"""The configuration in intermissions, and what all others begin with. Little is kept, so that what is kept does not grow."""


class SoakSite:
    """Everything that the daemon meets, while the context lasts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.world = World(directory, epochs=1)
        self.proxy: Proxy
        self.ground: Ground
        self.broker_lock = threading.Lock()
        """Held by who changes the broker: its process, or its users."""
        self._original = self.world.broker.consumer
        self._parts = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            parts.enter_context(self.world)
            self.proxy = parts.enter_context(Proxy(self.world.broker.port))
            self.ground = Ground(self.directory, self.world.broker, self.world.stream)
            self.render(CALM)
            _write_model(self.directory / ONNX)
            self._parts = parts.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        with suppress(SandboxError, OSError):
            self.ground.site.operator.end_workers()
        self._parts.close()

    @property
    def root(self) -> Path:
        """The daemon's root directory."""
        return self.ground.root

    @property
    def config(self) -> Path:
        """The file that the daemon reads."""
        return self.ground.site.operator.config

    def daemon(self, *, trace: Path | None = None) -> RunningDaemon:
        """A context in which the daemon runs; `trace` gets what holds its memory."""
        variables = {"PYTHONPATH": str(_PROJECT), **({TRACE: str(trace)} if trace else {})}
        return self.ground.site.operator.daemon([sys.executable, "-m", "tests.benchmarks._soak_daemon"], variables)

    def render(self, overrides: dict[str, dict[str, Any]]) -> None:
        """Render a configuration with the passwords of now."""
        site = self.ground.site
        site.environment |= self.world.environment() | {
            "RABBITMQ_PORT": str(self.proxy.port),
            "TRAINING_IMGSZ": str(_SIDE),
            "TRAINING_BATCH_SIZE": "16",
            "TRAINING_SAVE_PERIOD": "1",
            "EXPORT_ONNX_IMGSZ": str(_SIDE),
        }
        site.overrides = overrides
        site.configure()

    def reload(self, daemon: RunningDaemon, *, ok: bool = True, times: int = 1) -> None:
        """Have the daemon read its configuration, and see that it takes it or refuses it.

        Raises:
            SandboxError: It does otherwise, or nothing.
        """
        asked = time.monotonic()
        for _ in range(times):
            os.kill(daemon.process.pid, signal.SIGHUP)

        while (last := self.status()["config"]["last_reload"]) is None or last["begun_monotonic"] < asked:
            if daemon.process.poll() is not None or time.monotonic() > asked + _RELOAD_S:
                raise SandboxError(f"no reload within {_RELOAD_S:.0f} s")
            time.sleep(_POLL_S)
        if last["ok"] is not ok:
            raise SandboxError(f"a configuration that is {'right' if ok else 'wrong'} was answered with {last}")

    def rotate_broker_password(self, password: str) -> None:
        """Give the daemon's user of the broker another password; `broker_lock` is held."""
        broker = self.world.broker
        broker.change_password(broker.consumer, password)
        broker.consumer = Login(broker.consumer.user, password)

    def start_broker(self) -> None:
        """Start the broker again, which has forgotten a changed password; `broker_lock` is held."""
        broker = self.world.broker
        broker.start()
        if broker.consumer != self._original:
            broker.change_password(broker.consumer, broker.consumer.password)

    def busy(self) -> list[str]:
        """Jobs and releases that are not through, from the ledger."""
        with closing(sqlite3.connect(f"file:{self.root}/state/ledger.db?mode=ro", uri=True, timeout=10)) as db:
            jobs = db.execute(f"SELECT id, state, why FROM jobs WHERE state IN ({','.join('?' * len(BUSY_JOBS))})", BUSY_JOBS).fetchall()
            releases = db.execute("SELECT serial, state, why FROM releases WHERE state='waiting'").fetchall()
        return [
            *(f"job {name} is {state} ({why})" for name, state, why in jobs),
            *(f"release {serial} is {state} ({why})" for serial, state, why in releases),
        ]

    def ended_jobs(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        with closing(sqlite3.connect(f"file:{self.root}/state/ledger.db?mode=ro", uri=True, timeout=10)) as db:
            return dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())

    def status(self) -> dict[str, Any]:
        """The daemon's last words."""
        document: dict[str, Any] = json.loads((self.root / "state" / "status.json").read_bytes())
        return document


def _write_model(path: Path) -> None:
    """A model with the inputs, outputs and metadata that a consumer and the evaluation read, which sees nothing."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [4, 3, _SIDE, _SIDE])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [4, 300, 6])
    nothing = helper.make_tensor("nothing", TensorProto.FLOAT, [4, 300, 6], [0.0] * (4 * 300 * 6))
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["nothing", "mean"], ["output0"]),
    ]
    graph = helper.make_graph(nodes, "stand-in", [images], [output], [nothing])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    names = dict(enumerate(CLASS_NAMES))
    metadata = {"stride": "32", "task": "detect", "batch": "4", "imgsz": f"[{_SIDE}, {_SIDE}]", "names": str(names), "end2end": "True"}
    helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())
