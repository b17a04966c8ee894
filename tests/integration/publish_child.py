"""A process that publishes one model, to be killed: at a request by whoever answers that, or by itself at a step that asks nobody."""

import asyncio
import multiprocessing
import os
import signal
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from azaion_daemon.errors import AzaionError
from azaion_daemon.publish.credentials import CdnCredentials
from azaion_daemon.publish.platform import PlatformClient, RetryRule
from azaion_daemon.publish.probe import OnnxProbe
from azaion_daemon.publish.record import ReleaseRecord, ReleaseRecords
from azaion_daemon.publish.release import Publisher
from azaion_daemon.sections import ApiSettings, PublishSettings
from azaion_daemon.store.layout import Layout

FAILED = 3
_KIND = multiprocessing.get_context("forkserver")
_KIND.set_forkserver_preload(["aiobotocore.session", "aiobotocore.config", "tests.integration.publish_child"])


@dataclass(frozen=True)
class Orders:
    """What to publish, and where to die: `record 2 before`, `record 2 after`, `probe`; empty for nowhere."""

    root: Path
    model: Path
    serial: int
    api: ApiSettings
    publish: PublishSettings
    credentials: CdnCredentials
    die_at: str = ""


def start(orders: Orders) -> BaseProcess:
    """Start a process that carries them out. Its status is 0 when the model is published, FAILED when that was refused."""
    process = _KIND.Process(target=_work, args=(orders,))
    process.start()
    return process


class _DyingProbe(OnnxProbe):
    async def compare(self, model: Path, plaintext: Path) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError(model, plaintext)


def _work(orders: Orders) -> None:
    layout = Layout(orders.root)
    saves = 0
    save = ReleaseRecords.save

    def dying(self: ReleaseRecords, record: ReleaseRecord) -> None:
        nonlocal saves
        saves += 1
        if orders.die_at == f"record {saves} before":
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, record)
        if orders.die_at == f"record {saves} after":
            os.kill(os.getpid(), signal.SIGKILL)

    ReleaseRecords.save = dying  # type: ignore[method-assign]

    async def current() -> CdnCredentials:
        return orders.credentials

    async def work() -> None:
        async with PlatformClient(orders.api, layout.hardware, retry=RetryRule(attempts=3, first_s=0.01, most_s=0.05)) as platform:
            probe = _DyingProbe() if orders.die_at == "probe" else OnnxProbe(module="no_such_runtime")
            await Publisher(orders.publish, platform, current, layout, probe=probe).publish(orders.model, orders.serial)

    try:
        asyncio.run(work())
    except AzaionError:
        os._exit(FAILED)
