"""The configuration."""

import json
from pathlib import Path

import click

from azaion_daemon.cli.common import Commands, config_option


@click.group(cls=Commands)
def config() -> None:
    """Make, check and show the configuration."""


@config.command()
@click.option("--env-file", type=click.Path(path_type=Path), default=None, help="Default: .env, if there is one.")
@click.option("--template", type=click.Path(path_type=Path), default=Path("config.template.yaml"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("config.yaml"), show_default=True)
def render(env_file: Path | None, template: Path, output: Path) -> None:
    """Put the environment's values into the template. The environment of the process goes before the .env file."""
    from azaion_daemon.rendering import render_file

    if env_file is None and Path(".env").exists():
        env_file = Path(".env")
    render_file(env_file=env_file, template=template, output=output)
    click.echo(f"{output} is written.", err=True)


@config.command()
@config_option
def check(config: Path) -> None:
    """Say whether the configuration can be used, and if not, why."""
    from azaion_daemon.ops.reload import check_files
    from azaion_daemon.settings import load_settings

    settings = load_settings(config)
    check_files(settings)
    click.echo(f"{config} is valid.", err=True)
    if settings.publish.model_key is None:
        click.echo("publish.model_key is not set (AZAION_MODEL_KEY): models will be trained, but releases wait.", err=True)


@config.command()
@config_option
def show(config: Path) -> None:
    """Print the configuration with all defaults, as JSON; secrets are masked."""
    from azaion_daemon.settings import load_settings, settings_document

    click.echo(json.dumps(settings_document(load_settings(config)), indent=1))
