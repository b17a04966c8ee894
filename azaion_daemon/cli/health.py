"""How it is: what the daemon does, and whether everything that it needs is as it should be."""

import json
from pathlib import Path

import click

from azaion_daemon.cli.common import config_option


@click.command()
@config_option
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), default=None, help="Look at this root, not the configuration's.")
@click.option("--json", "as_json", is_flag=True, help="The whole status as one JSON document.")
@click.option("--watch", is_flag=True, help="Draw it over the whole terminal, anew each second, until q or Ctrl-C.")
@click.pass_context
def status(ctx: click.Context, config: Path, root: Path | None, *, as_json: bool, watch: bool) -> None:
    """Say what the daemon does, and first of all what needs somebody; exit 0 while it runs and 3 when it does not.

    When it is not running: its last words, whether it was stopped or killed, and how far its trainings are.
    """
    from datetime import datetime

    from azaion_daemon.ops.status_reader import EXIT_NOT_RUNNING, StatusReader

    if as_json and watch:
        raise click.UsageError("--json is for programs, --watch for people: not both")
    reader = StatusReader(config, root)
    if watch:
        from azaion_daemon.ops.status_screen import watch_status

        watch_status(reader.read)
        return
    now = datetime.now().astimezone()
    document = reader.read(now)
    if as_json:
        click.echo(json.dumps(document, indent=1))
    else:
        from azaion_daemon.ops.status_view import render_status

        click.echo(render_status(document, now))
    ctx.exit(0 if document["state"] in {"running", "stopping"} else EXIT_NOT_RUNNING)


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Every finding as one JSON document.")
@click.pass_context
def doctor(ctx: click.Context, config: Path, *, as_json: bool) -> None:
    """Find out what would make a release fail; exit 1 when something is broken. Beside a daemon, or before its first start."""
    from azaion_daemon.ops.doctor import examine, render_doctor
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    document = examine(settings, Layout.of(settings.directories))
    click.echo(json.dumps(document, indent=1) if as_json else render_doctor(document))
    ctx.exit(0 if document["ok"] else 1)
