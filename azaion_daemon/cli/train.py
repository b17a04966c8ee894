"""Training jobs."""

import json
from contextlib import suppress
from pathlib import Path

import click

from azaion_daemon.cli.common import Commands, config_option

_NO_REASON = "no reason given"


@click.group(cls=Commands)
def train() -> None:
    """Training jobs."""


@train.command("now")
@config_option
@click.option("--reason", default=_NO_REASON, help="Why, for the log and the job's history.")
@click.option("--epochs", type=click.IntRange(1, 100_000), default=None, help="Instead of training.epochs.")
@click.option("--trial", is_flag=True, help="Everything on a sample and for one epoch, encryption included; nothing comes of it.")
@click.option("--json", "as_json", is_flag=True, help="What becomes of it, as one JSON document.")
def train_now(config: Path, reason: str, epochs: int | None, *, trial: bool, as_json: bool) -> None:
    """Ask for a training, whatever the trigger says.

    It may run beside one that the trigger found due (training.max_parallel_jobs), else it follows; while no daemon runs, its next start
    does it.
    """
    from azaion_daemon.ops.trainings import said_of_asking
    from azaion_daemon.ops.trainings import train_now as ask_for_it
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    document = ask_for_it(Layout.of(load_settings(config).directories), reason, epochs=epochs, trial=trial)
    click.echo(said_of_asking(document), err=True)
    if as_json:
        click.echo(json.dumps(document, indent=1))


@train.command("list")
@config_option
@click.option("--all", "every", is_flag=True, help="Every job that there ever was.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
def list_trainings(config: Path, *, every: bool, as_json: bool) -> None:
    """The jobs, the newest first, with what became of each and why; and what is asked for. Works while no daemon runs."""
    from azaion_daemon.ops.training_tables import render_list
    from azaion_daemon.ops.trainings import listed
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    document = listed(Layout.of(load_settings(config).directories), every=every)
    click.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else render_list(document))


@train.command("logs")
@config_option
@click.argument("job", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the training has ended, or Ctrl-C.")
@click.option("--lines", type=click.IntRange(0), default=50, show_default=True, help="How many of the last lines to begin with.")
def train_logs(config: Path, job: str | None, *, follow: bool, lines: int) -> None:
    """What the worker of a job said. JOB is its id or the beginning of it; by default the one under way, else the newest."""
    from azaion_daemon.ops.job_log import in_training, job_to_read, log_lines
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout
    from azaion_daemon.training.jobs import JobDirectory

    layout = Layout.of(load_settings(config).directories)
    found = job_to_read(layout, job)
    log = JobDirectory(layout.jobs / found.id).log
    if job is None or not log.exists():
        click.echo(f"Job {found.id} is {found.state}{'.' if log.exists() else '; it has no log.'}", err=True)
    with suppress(KeyboardInterrupt):
        for line in log_lines(log, last=lines, goes_on=(lambda: in_training(layout, found.id)) if follow else (lambda: False)):
            click.echo(line)


@train.command("cancel")
@config_option
@click.argument("job", required=False)
@click.option("--reason", default=_NO_REASON, help="Why, for the log and the job's history.")
def cancel_training(config: Path, job: str | None, reason: str) -> None:
    """End a training at once; the trigger does not begin it anew by itself. JOB is its id or the beginning of it.

    By default the only one that is under way. While no daemon runs, its next start does it.
    """
    from azaion_daemon.ops.trainings import cancel
    from azaion_daemon.settings import load_settings
    from azaion_daemon.store.layout import Layout

    click.echo(cancel(Layout.of(load_settings(config).directories), job, reason), err=True)
