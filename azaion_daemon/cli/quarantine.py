"""Messages that could not be applied."""

import json
import sys
from pathlib import Path

import click

from azaion_daemon.cli.common import Commands, config_option, moment


@click.group(cls=Commands)
def quarantine() -> None:
    """Messages that could not be applied."""


@quarantine.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_quarantine(config: Path, *, as_json: bool) -> None:
    """The messages, in the order of the stream, each with its reason."""
    from dataclasses import asdict

    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout
    from azaion_daemon.store.quarantine import Quarantine

    entries = Quarantine(Layout.of(load_settings(config).directories).quarantine).entries()
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=1))
    for entry in () if as_json else entries:
        click.echo(f"{entry.position:>12}  {moment(entry.time)}  {entry.bytes:>9} bytes  {entry.reason}")


@quarantine.command("show")
@config_option
@click.argument("position", type=click.IntRange(0))
def show_quarantined(config: Path, position: int) -> None:
    """One message: why it is there, and what can be read of it, as JSON."""
    from azaion_daemon.ops.quarantined import describe
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    click.echo(json.dumps(describe(Layout.of(load_settings(config).directories), position), indent=1, ensure_ascii=False))


@quarantine.command("replay")
@config_option
@click.argument("positions", type=click.IntRange(0), nargs=-1)
@click.option("--all", "every", is_flag=True, help="All messages, in the order of the stream.")
@click.option("--as-new", is_flag=True, help="Apply it as if it came now, whatever its annotations have seen since.")
def replay_quarantined(config: Path, positions: tuple[int, ...], *, every: bool, as_new: bool) -> None:
    """Apply messages after all, once the cause is mended. What cannot be applied stays."""
    from azaion_daemon.ops.quarantined import replay
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    if bool(positions) == every:
        raise click.UsageError("name the positions, or --all")
    done = True
    for position, outcome, ok in replay(Layout.of(load_settings(config).directories), positions, as_new=as_new):
        click.echo(f"{position:>12}  {outcome}")
        done = done and ok
    sys.exit(0 if done else 1)
