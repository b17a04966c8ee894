"""The commands: parse, call, print, exit code. No logic.

Standard output is data, standard error is for people. Modules are imported where they are needed, so that every command starts fast.
"""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from azaion_daemon import __version__
from azaion_daemon.errors import AzaionError

F = TypeVar("F", bound=Callable[..., Any])


class _Commands(click.Group):
    """Turns our errors into a sentence and their exit code; what else escapes keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AzaionError as error:
            click.echo(f"azaion-daemon: {error}", err=True)
            ctx.exit(error.exit_code)


def config_option(command: F) -> F:
    """The option that names the configuration file."""
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("config.yaml"),
        show_default=True,
        help="The configuration file.",
    )(command)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="azaion-daemon")
def main() -> None:
    """Turns a stream of human annotations into better detection models, unattended."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # it wakes whoever holds a root's lock, and would end all but a running daemon


@main.command()
@config_option
@click.option("--offset-file", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Default: {root}/offset.yaml, if any.")
@click.option("--json", "as_json", is_flag=True, help="What was made and found, as one JSON document.")
def init(config: Path, offset_file: Path | None, *, as_json: bool) -> None:
    """Make the root directory: annotation directories, identity, ledger.

    Annotations that are there already are indexed; the position of the service before and its model are taken over.
    """
    from azaion_daemon.index.takeover import initialise
    from azaion_daemon.ops.indexing import init_document, render_init
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    settings = load_settings(config)
    layout = Layout.of(settings.directories)
    report = initialise(settings, layout, offset_file=offset_file, say=_say)
    click.echo(render_init(report, settings, layout), err=True)
    if as_json:
        click.echo(json.dumps(init_document(report), indent=1))


def _say(sentence: str) -> None:
    click.echo(f"{sentence} …", err=True)


@main.command()
@config_option
def run(config: Path) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C."""
    from azaion_daemon.daemon import run as run_daemon

    sys.exit(run_daemon(config))


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="The whole status as one JSON document.")
def status(config: Path, *, as_json: bool) -> None:
    """Say what the daemon does."""
    from azaion_daemon.ops.status import read_status, render_status
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    document = read_status(Layout.of(load_settings(config).directories))
    click.echo(json.dumps(document, indent=1) if as_json else render_status(document))


@main.group(cls=_Commands)
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
    from azaion_daemon.settings import load_settings
    from azaion_daemon.stream.tls import tls_context

    settings = load_settings(config)
    tls_context(settings.stream)
    click.echo(f"{config} is valid.", err=True)
    if settings.publish.model_key is None:
        click.echo("publish.model_key is not set (AZAION_MODEL_KEY): models will be trained, but releases wait.", err=True)


@config.command()
@config_option
def show(config: Path) -> None:
    """Print the configuration with all defaults, as JSON; secrets are masked."""
    from azaion_daemon.settings import load_settings, settings_document

    click.echo(json.dumps(settings_document(load_settings(config)), indent=1))


@main.group(cls=_Commands)
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

        document = shown(layout, build(settings, layout, say=_say).name)
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


@main.group(cls=_Commands)
def train() -> None:
    """Training jobs."""


@train.command("now")
@config_option
@click.option("--reason", default="no reason given", help="Why, for the log and the job's history.")
def train_now(config: Path, reason: str) -> None:
    """Ask for a training, whatever the trigger says. While a job is under way it follows; while no daemon runs, its next start does it."""
    from azaion_daemon.ops.asked import train_now as ask_for_it
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    click.echo(ask_for_it(Layout.of(load_settings(config).directories), reason), err=True)


@main.group(cls=_Commands)
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
        click.echo(f"{entry.position:>12}  {_moment(entry.time)}  {entry.bytes:>9} bytes  {entry.reason}")


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


@main.group(cls=_Commands)
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
    report = rebuild(settings, Layout.of(settings.directories), offset=offset, say=_say)
    click.echo(render_rebuild(report, settings), err=True)
    if as_json:
        click.echo(json.dumps(rebuild_document(report), indent=1))


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"


@main.group(cls=_Commands)
def sandbox() -> None:
    """The whole outside world on this machine, to try the daemon against."""


@sandbox.command()
@click.option("--directory", type=click.Path(path_type=Path), default=None, help="Keep its data there. Default: a temporary directory.")
@click.option("--annotations", type=click.IntRange(0), default=360, show_default=True, help="Images that annotators draw boxes on.")
def up(directory: Path | None, annotations: int) -> None:
    """Bring it up until Ctrl-C, and print the .env to use with it."""
    import tempfile

    from azaion_daemon.sandbox.up import run_until_interrupted

    with tempfile.TemporaryDirectory(prefix="azaion-sandbox-") as temporary:
        run_until_interrupted(directory or Path(temporary), sys.stdout, annotations=annotations)


@main.command()
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="Keep everything that the demo makes in this directory.")
def demo(keep: Path | None) -> None:
    """Run the whole loop on this machine: annotate, ingest, train, publish, consume."""
    from azaion_daemon.sandbox.demo import run_demo

    sys.exit(run_demo(keep))


if __name__ == "__main__":
    main()
