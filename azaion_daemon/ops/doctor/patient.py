"""What is looked at, and what one subject leaves for another."""

import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from azaion_daemon.publish.cdn import CdnClient
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.publish.probe import OnnxProbe
from azaion_daemon.publish.release import ONNX_PROBE
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.capabilities import Capabilities, ask_worker
from azaion_daemon.training.gpus import Discovery, Gpus, PatientGpus
from azaion_daemon.training.nvml import NvmlGpus

_DRIVER_S = 10.0


async def _worker(model: str) -> Capabilities:
    return await ask_worker(sys.executable, model, os.environ)


@dataclass
class Patient:
    """What is looked at, and what one subject leaves for another."""

    settings: Settings
    layout: Layout
    platform: PlatformClient
    open: AsyncExitStack
    config: Path | None = None
    probe: OnnxProbe = ONNX_PROBE
    gpus: Gpus = field(default_factory=lambda: PatientGpus(NvmlGpus(), _DRIVER_S))
    worker: Callable[[str], Awaitable[Capabilities]] = _worker
    cdn: CdnClient | None = None
    discovery: Discovery = Discovery()  # noqa: RUF009 - frozen
    """The GPUs, once they were looked at."""
    capabilities: Capabilities | None = None
    """What a worker has said, if it was asked."""
    clock_ahead_s: float | None = None
    """How far this machine's clock is ahead of the platform's; None where that is not known."""
    content: bytes = field(default_factory=lambda: secrets.token_hex(16).encode())

    @property
    def object(self) -> str:
        """What is put into the bucket."""
        return f"{self.settings.publish.name}.doctor"

    @property
    def store(self) -> CdnClient:
        """The CDN, for subjects that need its credentials."""
        assert self.cdn is not None
        return self.cdn
