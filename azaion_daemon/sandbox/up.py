"""`azaion-daemon sandbox up`: the world until somebody interrupts."""

import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

from azaion_daemon.sandbox.world import World


def run_until_interrupted(directory: Path, out: TextIO) -> None:
    """Bring the world up, write its `.env` to `out` and what runs to stderr, wait for SIGINT or SIGTERM, and stop everything.

    Called from the main thread, since signals are taken. The handlers of before are put back.

    Raises:
        SandboxError: A part cannot be brought up.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        print("starting a broker, an object store and the platform's API ...", file=sys.stderr)
        with World(directory) as world:
            out.write(world.dotenv())
            out.flush()
            print(_describe(world), file=sys.stderr)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _describe(world: World) -> str:
    return "\n".join(
        [
            f"RabbitMQ stream   {world.broker.host}:{world.broker.port}  stream {world.stream}",
            f"S3 (Swift)        {world.store.endpoint}  bucket {world.store.bucket}",
            f"platform API      {world.platform.url}",
            f"files             {world.directory}",
            "Stop everything with Ctrl-C.",
        ]
    )
