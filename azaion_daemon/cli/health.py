"""How it is: what the daemon does, and whether everything that it needs is as it should be."""

import json
import os
import sys
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
@click.option("--only", multiple=True, metavar="WHAT", help="Look at this area or subject alone, and at what it needs. May be repeated.")
@click.pass_context
def doctor(ctx: click.Context, config: Path, only: tuple[str, ...], *, as_json: bool) -> None:
    """Find out what would keep the daemon from its work; exit 1 when something is broken. Beside a daemon, or before its first start.

    Everything is looked at as the daemon uses it. Areas are: configuration (files, user), root (directories, owners, disk, classes,
    ledger), broker (connection, login, the stream's ends), training (GPUs, what a worker's libraries see, base model), publishing
    (keys, platform, login, hardware string, CDN), machine (clock, shared memory, limits, unit).

    It leaves nothing behind: hidden files under the root and an object of 32 bytes in the bucket, NAME.doctor, are removed at once. An
    account that is bound to no machine yet is bound to this one, as by a release.
    """
    from azaion_daemon.ops.doctor.rendering import render_doctor, telling
    from azaion_daemon.ops.doctor.running import examine
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    with telling(sys.stderr) as progress:
        document = examine(settings, Layout.of(settings.directories), config, only=only, progress=progress)
    click.echo(
        json.dumps(document, indent=1) if as_json else render_doctor(document, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    )
    ctx.exit(0 if document["ok"] else 1)
