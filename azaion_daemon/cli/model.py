"""Models."""

import json
from pathlib import Path

import click

from azaion_daemon.cli.common import Commands, config_option
from azaion_daemon.cli.published import fetch, key, rollback, verify


@click.group(cls=Commands)
def model() -> None:
    """What came out of trainings: the current model, older ones, and those that were held or rejected."""


@model.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_models(config: Path, *, as_json: bool) -> None:
    """Every model, the current one first; then those that were held or rejected, with the reason. Works beside a running daemon."""
    from azaion_daemon.ops.model_tables import render_list
    from azaion_daemon.ops.models import Catalogue
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    documents = Catalogue(Layout.of(load_settings(config).directories)).listed()
    click.echo(json.dumps(documents, indent=1, ensure_ascii=False) if as_json else render_list(documents))


@model.command("show")
@config_option
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
def show_model(config: Path, model: str | None, *, as_json: bool) -> None:
    """What one reaches, by class and beside the model that it was compared with, and what was decided about it, by whom and why.

    MODEL is the beginning of a model's SHA-256 or of a job's id; by default the current model.
    """
    from azaion_daemon.ops.model_tables import render_shown
    from azaion_daemon.ops.models import Catalogue
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    catalogue = Catalogue(Layout.of(load_settings(config).directories))
    document = catalogue.shown(catalogue.find(model))
    click.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else render_shown(document))


@model.command("promote")
@config_option
@click.argument("model")
@click.option("--reason", required=True, help="Why, for the log and the history.")
def promote_model(config: Path, model: str, reason: str) -> None:
    """Make a model the current one and release it: an older one, or one that was held or rejected.

    While no daemon runs, its next start does it. MODEL is the beginning of a model's SHA-256 or of a job's id.
    """
    from azaion_daemon.ops.models import promote
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    click.echo(promote(Layout.of(load_settings(config).directories), model, reason), err=True)


@model.command("reject")
@config_option
@click.argument("job")
@click.option("--reason", required=True, help="Why, for the log and the history.")
def reject_model(config: Path, job: str, reason: str) -> None:
    """Reject a model that is held. While no daemon runs, its next start does it. JOB is the beginning of a job's id."""
    from azaion_daemon.ops.models import reject
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    click.echo(reject(Layout.of(load_settings(config).directories), job, reason), err=True)


for _command in (key, verify, fetch, rollback):
    model.add_command(_command)
