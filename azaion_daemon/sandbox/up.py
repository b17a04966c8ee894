"""`azaion-daemon sandbox up`: the world until somebody interrupts."""

import asyncio
import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

from azaion_daemon.sandbox.annotator import Annotator
from azaion_daemon.sandbox.operator import write_template
from azaion_daemon.sandbox.scenario import Fate, scenario
from azaion_daemon.sandbox.world import World, small_world


def run_until_interrupted(directory: Path, out: TextIO, *, annotations: int) -> None:
    """Bring the world up, have so many images annotated, wait for SIGINT or SIGTERM, and stop everything.

    The `.env` to use with it goes to `out`, what runs to stderr.

    Called from the main thread, since signals are taken. The handlers of before are put back.

    Raises:
        SandboxError: A part cannot be brought up.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        print("starting a broker, an object store and the platform's API ...", file=sys.stderr)
        with World(directory) as world:
            shift = scenario(annotations, seed=1)
            published = asyncio.run(Annotator(world.broker, world.stream).publish(shift.messages)) if annotations else 0
            print(f"annotators have published {published} messages about {annotations} images", file=sys.stderr)
            template = world.directory / "config.template.yaml"
            write_template(template, small_world(max(1, len(shift.names(Fate.VALIDATED)))))
            print(_describe(world, template), file=sys.stderr)
            out.write(world.dotenv())  # last: whoever has it can begin
            out.flush()
            threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _describe(world: World, template: Path) -> str:
    return "\n".join(
        [
            f"RabbitMQ stream   {world.broker.host}:{world.broker.port}  stream {world.stream}",
            f"S3 (Swift)        {world.store.endpoint}  bucket {world.store.bucket}",
            f"platform API      {world.platform.url}",
            f"files             {world.directory}",
            "",
            "With the .env (what this command wrote to standard output) in sandbox.env, in another terminal:",
            f"    azaion-daemon config render --env-file sandbox.env --template {template}",
            "    azaion-daemon init",
            "    azaion-daemon run             # trains as soon as the annotations are in: the template is made for so few of them",
            "and in a third one:",
            "    azaion-daemon status --watch",
            "    azaion-daemon train now",
            "",
            "Stop everything with Ctrl-C.",
        ]
    )
