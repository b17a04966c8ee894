"""The annotation tree and the ledger."""

import json
import sys
from pathlib import Path

import click

from azaion_daemon.cli.common import Commands, config_option, say


@click.group(cls=Commands)
def index() -> None:
    """The annotation tree and the ledger that knows it."""


@index.command("check")
@config_option
@click.option("--deep", is_flag=True, help="Read every image and compare its digest.")
@click.option("--repair", is_flag=True, help="Make the tree follow the ledger. Nothing is deleted.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
def check_index(config: Path, *, deep: bool, repair: bool, as_json: bool) -> None:
    """Name every difference between the two; exit 1 when one is left. Works beside a running daemon."""
    from azaion_daemon.ops.indexing import check, render_check
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    document = check(settings, Layout.of(settings.directories), deep=deep, repair=repair)
    click.echo(json.dumps(document, indent=1) if as_json else render_check(document))
    sys.exit(1 if document["left"] else 0)


@index.command("rebuild")
@config_option
@click.option("--offset", type=click.IntRange(0), default=None, help="The message to go on with. Default: as the last status says.")
@click.option("--json", "as_json", is_flag=True, help="What the new ledger holds, as one JSON document.")
def rebuild_index(config: Path, offset: int | None, *, as_json: bool) -> None:
    """Make a ledger that was lost or is damaged anew, from tree, datasets and models; with the daemon stopped.

    The ledger from before is renamed, not deleted.
    """
    from azaion_daemon.index.rebuild import rebuild
    from azaion_daemon.ops.indexing import rebuild_document, render_rebuild
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    report = rebuild(settings, Layout.of(settings.directories), offset=offset, say=say)
    click.echo(render_rebuild(report, settings), err=True)
    if as_json:
        click.echo(json.dumps(rebuild_document(report), indent=1))
