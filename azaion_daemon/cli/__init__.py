"""The commands: parse, call, print, exit code. No logic.

Standard output is data, standard error is for people. Modules are imported where they are needed, so that every command starts fast.
"""

import json
import os
import signal
import sys
from pathlib import Path

import click

from azaion_daemon import __version__
from azaion_daemon.cli.backup import backup
from azaion_daemon.cli.common import Commands, config_option, say
from azaion_daemon.cli.config import config
from azaion_daemon.cli.dataset import dataset
from azaion_daemon.cli.health import doctor, status
from azaion_daemon.cli.index import index
from azaion_daemon.cli.model import model
from azaion_daemon.cli.quarantine import quarantine
from azaion_daemon.cli.reload import reload
from azaion_daemon.cli.sandbox import sandbox
from azaion_daemon.cli.train import train


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="azaion-daemon")
def main() -> None:
    """Turns a stream of human annotations into better detection models, unattended."""
    from azaion_daemon.store.modes import UMASK

    os.umask(UMASK)  # what is made below a root does not depend on who starts a command
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
    report = initialise(settings, layout, offset_file=offset_file, say=say)
    click.echo(render_init(report, settings, layout), err=True)
    if as_json:
        click.echo(json.dumps(init_document(report), indent=1))


@main.command()
@config_option
def run(config: Path) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C."""
    from azaion_daemon.signals import Signals

    signals = Signals()
    signals.keep()  # before the imports of the daemon, which take their time
    from azaion_daemon.daemon import run as run_daemon

    sys.exit(run_daemon(config, signals))


@main.command()
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="Keep everything that the demo makes in this directory.")
def demo(keep: Path | None) -> None:
    """Run the whole loop on this machine: annotate, ingest, train, publish, consume."""
    from azaion_daemon.sandbox.demo import run_demo

    sys.exit(run_demo(keep))


for _group in (backup, config, dataset, doctor, index, model, quarantine, reload, sandbox, status, train):
    main.add_command(_group)
