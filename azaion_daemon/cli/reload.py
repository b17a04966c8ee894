"""Having a running daemon read its configuration again."""

import json
from pathlib import Path

import click

from azaion_daemon.cli.common import config_option


@click.command()
@config_option
@click.option("--root", type=click.Path(path_type=Path), default=None, help="The daemon's root directory. Default: what the file names.")
@click.option("--wait", is_flag=True, help="Wait for what becomes of it, and say so.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="What became of it, as one JSON document; with --wait.")
def reload(config: Path, root: Path | None, timeout: float, *, wait: bool, as_json: bool) -> None:
    """Have the running daemon read its configuration again. Render it first: azaion-daemon config render.

    With --wait: exit 0 when it is applied, and which settings need a restart is said; 78 when the daemon refuses the file and keeps what
    it had, with its reason; 1 when no daemon runs or none answers in time.
    """
    from azaion_daemon.errors import ConfigError
    from azaion_daemon.ops.reload_order import find_root, reload_and_wait, said_of_reload, tell_to_reload
    from azaion_daemon.store.layout import Layout

    if as_json and not wait:
        raise click.UsageError("--json says what became of it: with --wait only")
    layout = Layout(find_root(config) if root is None else root)
    if not wait:
        pid = tell_to_reload(layout)
        click.echo(f"The daemon (pid {pid}) is told. What becomes of it: azaion-daemon status, or --wait.", err=True)
        return
    document = reload_and_wait(layout, wait_s=timeout)
    if as_json:
        click.echo(json.dumps(document, indent=1))
    if not document["ok"]:
        raise ConfigError(f"the daemon keeps the configuration that it had: {document['error']}")
    click.echo(said_of_reload(document), err=True)
