"""What is published: plain commands for the group `model`."""

import json
import sys
from pathlib import Path

import click

from azaion_daemon.cli.common import config_option

_public_key_option = click.option(
    "--public-key",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="What manifests are verified with, as `model key` prints it; by default this daemon's own.",
)


@click.command("key")
@config_option
@click.option("--json", "as_json", is_flag=True, help="As one JSON document, with the key id and the raw key in base64.")
def key(config: Path, *, as_json: bool) -> None:
    """Print the public key that consumers verify manifests with. The signing key is made if there is none yet."""
    from azaion_daemon.ops.published import key_document
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    document = key_document(settings, Layout.of(settings.directories))
    if as_json:
        click.echo(json.dumps(document, indent=1))
        return
    click.echo(document["pem"], nl=False)
    click.echo(f"key id   {document['key_id']}\nbase64   {document['base64']}\nprivate  {document['private_key']}", err=True)


@click.command("verify")
@config_option
@_public_key_option
@click.option("--json", "as_json", is_flag=True, help="Every check and the manifest as one JSON document.")
@click.pass_context
def verify(ctx: click.Context, config: Path, public_key: Path | None, *, as_json: bool) -> None:
    """Check what is published as a consumer would, end to end; exit 1 when something does not match. No daemon is needed."""
    from azaion_daemon.ops.published import render_verify, verify_published
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    document = verify_published(settings, Layout.of(settings.directories), public_key)
    click.echo(json.dumps(document, indent=1) if as_json else render_verify(document))
    ctx.exit(0 if document["ok"] else 1)


@click.command("fetch")
@config_option
@click.argument("serial", type=click.IntRange(min=1), required=False)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Where to; by default azaion-SERIAL.onnx here. It may be read by its owner alone.",
)
@click.option("--encrypted", is_flag=True, help="As consumers download it, both parts joined; needs no model key.")
@_public_key_option
@click.option("--json", "as_json", is_flag=True, help="What was fetched, as one JSON document.")
def fetch(config: Path, serial: int | None, output: Path | None, public_key: Path | None, *, encrypted: bool, as_json: bool) -> None:
    """Download a release, by default the published one, verify and decrypt it. The file is there whole or not at all."""
    from dataclasses import asdict

    from azaion_daemon.ops.published import fetch_published
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    layout = Layout.of(settings.directories)
    fetched = fetch_published(settings, layout, serial, output=output, encrypted=encrypted, public_key=public_key, progress=_Progress())
    click.echo(json.dumps(asdict(fetched), indent=1) if as_json else fetched.file)


@click.command("rollback")
@config_option
@click.argument("serial", type=click.IntRange(min=1), required=False)
@click.option("--reason", required=True, help="Why, for the log and the audit.")
def rollback(config: Path, serial: int | None, reason: str) -> None:
    """Publish an older release's model again, under a new serial; by default that of the release before the present one.

    It becomes the current model. While no daemon runs, its next start does it.
    """
    from azaion_daemon.ops.published import roll_back
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    click.echo(roll_back(Layout.of(load_settings(config).directories), serial, reason), err=True)


class _Progress:
    """How far a download is, on standard error: in place on a terminal, else a line for each tenth."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, 1)
        step = percent if self._live else percent // 10 * 10
        if step == self._shown:
            return
        self._shown = step
        text = f"{step:3} % of {total / 1e6:,.1f} MB"
        click.echo(f"\r{text}" if self._live else text, err=True, nl=not self._live or percent == 100)  # noqa: PLR2004 - per cent
