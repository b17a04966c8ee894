"""The outside world on this machine."""

import sys
from pathlib import Path

import click

from azaion_daemon.cli.common import Commands


@click.group(cls=Commands)
def sandbox() -> None:
    """The whole outside world on this machine, to try the daemon against."""


@sandbox.command()
@click.option("--directory", type=click.Path(path_type=Path), default=None, help="Keep its data there. Default: a temporary directory.")
@click.option("--annotations", type=click.IntRange(0), default=360, show_default=True, help="Images that annotators draw boxes on.")
def up(directory: Path | None, annotations: int) -> None:
    """Bring it up until Ctrl-C, and print the .env to use with it."""
    import tempfile

    from azaion_daemon.sandbox.up import run_until_interrupted

    with tempfile.TemporaryDirectory(prefix="azaion-sandbox-") as temporary:
        run_until_interrupted(directory or Path(temporary), sys.stdout, annotations=annotations)
