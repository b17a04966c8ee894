"""A copy of the ledger and of what lies beside it."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from azaion_daemon.cli.common import config_option, moment


@click.command()
@config_option
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="What was copied, as one JSON document.")
def backup(config: Path, directory: Path, *, as_json: bool) -> None:
    """Copy the ledger, as of this moment, with identity, keys and records of releases into DIRECTORY; also beside a running daemon.

    Annotations and models are files that any tool may copy, afterwards: deploy/README.md, Back up and restore.
    """
    from azaion_daemon.ops.backup import back_up
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    layout = Layout.of(load_settings(config).directories)
    made = back_up(layout, directory)
    if as_json:
        click.echo(json.dumps(asdict(made), indent=1))
        return
    position = "before its first message" if made.position is None else f"at position {made.position}"
    click.echo(
        f"{directory} has the ledger of {layout.root} as of {moment(made.created)}: {made.annotations} annotations, {position}.", err=True
    )
    click.echo(f"Now copy the files of {layout.root}, all but {layout.state.name}/: annotations, models, datasets.", err=True)
