"""What all commands share: how errors end them, and how they are told which configuration to read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from azaion_daemon.errors import AzaionError

F = TypeVar("F", bound=Callable[..., Any])


class Commands(click.Group):
    """Turns our errors into a sentence and their exit code; what else escapes keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except AzaionError as error:
            click.echo(f"azaion-daemon: {error}", err=True)
            ctx.exit(error.exit_code)


def config_option(command: F) -> F:
    """The option that names the configuration file."""
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("config.yaml"),
        show_default=True,
        help="The configuration file.",
    )(command)


def say(sentence: str) -> None:
    """Something that takes a while begins."""
    click.echo(f"{sentence} …", err=True)


def moment(seconds: float) -> str:
    """A time in seconds since the epoch, for people."""
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"
