"""Training jobs."""

from pathlib import Path

import click

from azaion_daemon.cli.common import Commands, config_option


@click.group(cls=Commands)
def train() -> None:
    """Training jobs."""


@train.command("now")
@config_option
@click.option("--reason", default="no reason given", help="Why, for the log and the job's history.")
def train_now(config: Path, reason: str) -> None:
    """Ask for a training, whatever the trigger says. While a job is under way it follows; while no daemon runs, its next start does it."""
    from azaion_daemon.ops.asked import train_now as ask_for_it
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    click.echo(ask_for_it(Layout.of(load_settings(config).directories), reason), err=True)
