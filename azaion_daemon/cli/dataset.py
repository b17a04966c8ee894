"""Datasets."""

import json
import sys
from pathlib import Path

import click

from azaion_daemon.cli.common import Commands, config_option, say


@click.group(cls=Commands)
def dataset() -> None:
    """What is trained on: snapshots of the validated annotations."""


@dataset.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_datasets(config: Path, *, as_json: bool) -> None:
    """Every dataset, the newest first: what it holds, what refers to it, and when it goes. Works beside a running daemon."""
    import time

    from azaion_daemon.ops.dataset_tables import render_list
    from azaion_daemon.ops.datasets import listed
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    documents, unreadable = listed(settings, Layout.of(settings.directories), now=time.time())
    for why in unreadable:
        click.echo(f"azaion-daemon: left alone: {why}", err=True)
    click.echo(json.dumps(documents, indent=1, ensure_ascii=False) if as_json else render_list(documents))


@dataset.command("build")
@config_option
@click.option("--dry-run", is_flag=True, help="Only say what it would hold; works beside a running daemon.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
def build_dataset(config: Path, *, dry_run: bool, as_json: bool) -> None:
    """Form a dataset without a training, while no daemon runs. With --dry-run: exit 1 when it could not be trained on."""
    from azaion_daemon.ops.dataset_tables import render_planned, render_shown
    from azaion_daemon.ops.datasets import planned, shown
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    layout = Layout.of(settings.directories)
    if dry_run:
        document = planned(settings, layout)
        text = render_planned(document)
    else:
        from azaion_daemon.building import build

        document = shown(layout, build(settings, layout, say=say).name)
        text = render_shown(document)
    click.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else text)
    sys.exit(1 if document.get("problems") else 0)


@dataset.command("show")
@config_option
@click.argument("dataset", required=False)
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Draw it into this PNG file.")
def show_dataset(config: Path, dataset: str | None, *, as_json: bool, plot: Path | None) -> None:
    """What a dataset holds, by side, class and mode. DATASET is its name or the beginning of its id; by default the newest."""
    import time

    from azaion_daemon.ops.dataset_tables import render_shown
    from azaion_daemon.ops.datasets import plotted, shown
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    layout = Layout.of(load_settings(config).directories)
    document = shown(layout, dataset)
    if plot is not None:
        plotted(document, layout, plot, now=time.time())
        click.echo(f"{plot} shows {document['name']}.", err=True)
    if as_json or plot is None:
        click.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else render_shown(document))
