"""The daemon for an hour with everything happening at random moments: does it grow, does it leak, is anything lost?

Messages of all kinds, a broker and a network that fail, reloads with good and broken files and rotated passwords, trainings (real ones now
and then, stand-ins otherwise), outages of the platform's API and of the CDN, operators and their commands. Every few minutes there is an
intermission: what is under way comes to its end, and then the process is what it is when nothing happens. The first one after the warm-up
and the last one must agree in descriptors, tasks and threads. At the end everything must be where it should be, once.

python -m tests.benchmarks.soak [--quick] [--minutes N] [--seed S] [--keep DIR] [--plot FILE.png] [--trace]

Ctrl-C or SIGTERM ends it in order, and what was measured until then is reported; a second one ends it at once.
"""

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from tests.benchmarks._common import finish, progress
from tests.benchmarks._soak_end import after_its_end, events, while_running
from tests.benchmarks._soak_figures import Findings, growth, more_descriptors, quiet_windows, targets, trend
from tests.benchmarks._soak_plot import draw
from tests.benchmarks._soak_roles import Roles
from tests.benchmarks._soak_samples import Sample, Sampler
from tests.benchmarks._soak_site import CALM, SoakSite
from tests.benchmarks._soak_stage import Stage

_PROGRESS_S = 30.0
_SETTLE_S = 300.0
_STILL_S = 3.0
_KEEPALIVE_S = 7.0
"""After this long no HTTP connection that was kept for later is open any more."""
_TICK_S = 0.2
_SHOWN = 30


@dataclass(frozen=True)
class Plan:
    """How long what takes, in seconds."""

    total_s: float
    warm_up_s: float
    between_intermissions_s: float
    quiet_s: float
    sample_s: float
    pace: float
    real_every_s: float

    @classmethod
    def of(cls, minutes: float) -> "Plan":
        """The first ten minutes are the warm-up of half an hour and more, two fifths of what is shorter."""
        total_s = minutes * 60
        short = total_s < 1800
        return cls(
            total_s=total_s,
            warm_up_s=0.4 * total_s if short else 600.0,
            between_intermissions_s=max(45.0, total_s / 5) if short else 300.0,
            quiet_s=8.0 if short else 20.0,
            sample_s=1.5 if short else 5.0,
            pace=max(0.25, min(1.0, minutes / 30)),
            real_every_s=max(60.0, min(420.0, total_s / 3)),
        )


@dataclass
class Report:
    """What was measured."""

    plan: Plan
    seed: int
    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    figures: dict[str, Any] = field(default_factory=dict)


class Soak:
    """One soak on one site."""

    def __init__(self, site: SoakSite, daemon: RunningDaemon, stage: Stage, report: Report) -> None:
        self._site = site
        self._daemon = daemon
        self._stage = stage
        self._report = report
        self._plan = report.plan
        self._roles = Roles(site, daemon, stage, report.seed, real_every_s=report.plan.real_every_s)
        self._began = time.monotonic()
        self._reported = 0.0

    def run(self) -> list[str]:
        """Soak until the time is over; what is not as it should be with everything at rest and the daemon still running."""
        daemon, stage, report = self._daemon, self._stage, self._report
        watching = Sampler(daemon.process.pid, self._site.root, every_s=self._plan.sample_s, began=self._began, is_quiet=stage.quiet.is_set)
        with watching:
            try:
                with stage.playing(self._roles.all()):
                    self._play()
                self._settle(hold=True)
            finally:
                report.samples = watching.samples
                report.seconds = time.monotonic() - self._began
                stage.quiet.clear()
        last = self._roles.story.ending()
        self._roles.publish([last])
        self._settle(hold=False)
        return [*while_running(self._site, daemon), *stage.errors]

    def compare(self, unsettled: list[str]) -> Findings:
        """What is found once the daemon has ended."""
        site, roles = self._site, self._roles
        self._report.figures |= {
            "messages": len(roles.acts),
            "sent_again": roles.unconfirmed,
            "done": dict(sorted(self._stage.done.items())),
            "commands": dict(sorted(roles.exits.items())),
            "jobs": site.ended_jobs(),
            "events": dict(sorted(events(site.ground.site.operator.log).items())),
        }
        return after_its_end(site, roles.story, roles.acts, unsettled)

    def _play(self) -> None:
        plan = self._plan
        next_intermission = plan.warm_up_s
        while (at := self._at()) < plan.total_s and not self._stage.ending.is_set():
            if self._daemon.process.poll() is not None:
                raise SandboxError(f"the daemon ended by itself with {self._daemon.process.returncode}: {self._daemon.events()[-3:]}")
            if at >= next_intermission:
                self._stage.pause()
                while self._stage.acting():
                    self._sleep(_TICK_S)
                self._settle(hold=True)
                next_intermission = self._at() + plan.between_intermissions_s
                self._stage.resume()
            self._say()
            time.sleep(_TICK_S)

    def _settle(self, *, hold: bool) -> None:
        """Let everything come to its end, with nothing broken and nothing new; with `hold`, stay so and call it quiet."""
        site, stage = self._site, self._stage
        site.render(CALM)
        site.reload(self._daemon)  # what waits for its next try is tried at once
        deadline, still_since, position = time.monotonic() + _SETTLE_S, time.monotonic(), -1
        while time.monotonic() < deadline:
            if site.ground.position() != position or not site.status()["stream"]["connected"] or site.busy():
                position, still_since = site.ground.position() or 0, time.monotonic()
            elif time.monotonic() - still_since > _STILL_S:
                break
            self._say()
            time.sleep(_TICK_S)
        else:
            stage.fail(f"not settled after {_SETTLE_S:.0f} s: {site.busy()}, {site.status()['stream']}")
            return
        if hold:
            self._sleep(_KEEPALIVE_S)
            stage.quiet.set()
            self._sleep(self._plan.quiet_s)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._say()
            time.sleep(_TICK_S)

    def _at(self) -> float:
        return time.monotonic() - self._began

    def _say(self) -> None:
        """A line each half minute."""
        if self._at() - self._reported < _PROGRESS_S:
            return
        self._reported = self._at()
        memory = Path(f"/proc/{self._daemon.process.pid}/statm").read_text().split()
        told = self._site.status().get("process") or {}
        done: Counter[str] = Counter()
        for what, count in self._stage.done.items():
            done[what.partition(":")[0]] += count
        stream = self._site.status()["stream"]
        progress(
            f"{self._at() / 60:5.1f}/{self._plan.total_s / 60:g} min  {len(self._roles.acts)} messages, "
            f"{', '.join(f'{role} {count}' for role, count in sorted(done.items()))}; jobs {self._site.ended_jobs()}; "
            f"{int(memory[1]) * 4096 / 1e6:.1f} MB, {told.get('descriptors')} descriptors, {told.get('tasks')} tasks, "
            f"{told.get('threads')} threads; {'connected' if stream['connected'] else 'not connected'}"
            f"{'; ' + ', '.join(self._stage.acting()) if self._stage.acting() else ''}"
            f"{'; WRONG: ' + str(len(self._stage.errors)) if self._stage.errors else ''}"
        )


def figures_of(report: Report) -> dict[str, Any]:
    """Everything that was measured, for the last line."""
    samples, since = report.samples, report.plan.warm_up_s
    windows = quiet_windows(samples, since)
    memory = {}
    for name in ("rss", "pss", "anonymous"):
        grown = growth([(sample.at, getattr(sample, name)) for sample in samples], since)
        if grown is not None:
            memory[name] = {
                "first_mb": round(grown.first / 1e6, 2),
                "last_mb": round(grown.last / 1e6, 2),
                "growth_percent": round(grown.percent, 2),
                "highest_mb": round(max(getattr(sample, name) for sample in samples) / 1e6, 2),
                "quiet_mb": [round(value / 1e6, 2) for value in trend(windows, lambda sample, name=name: getattr(sample, name))],  # type: ignore[misc]
            }
    lags = [sample.loop_lag_s for sample in samples if sample.loop_lag_s is not None]
    return {
        "seed": report.seed,
        "minutes": round(report.seconds / 60, 1),
        "growth_measured_after_s": since,
        "memory": memory,
        "quiet_descriptors": trend(windows, lambda sample: sum(sample.descriptors.values())),
        "quiet_tasks": trend(windows, lambda sample: sample.tasks),
        "quiet_threads": trend(windows, lambda sample: sample.threads),
        "more_descriptors": more_descriptors(windows),
        "most_descriptors": max((sum(sample.descriptors.values()) for sample in samples), default=0),
        "most_tasks": max((sample.tasks or 0 for sample in samples), default=0),
        "zombies_seen": sum(sample.zombies > 0 for sample in samples),
        "ledger_mb": [round(sample.ledger / 1e6, 2) for sample in (samples[:1] + samples[-1:])],
        "wal_most_mb": round(max((sample.wal for sample in samples), default=0) / 1e6, 2),
        "state_mb": [
            {part: round(size / 1e6, 2) for part, size in window[-1].state.items()} for window in (windows[:1] + windows[1:][-1:])
        ],
        "loop_lag_most_s": max(lags, default=None),
        **report.figures,
    }


def show(report: Report) -> None:
    """Tables for people, and the last line."""
    figures = figures_of(report)
    warm = "ten minutes" if report.plan.warm_up_s == 600 else f"{report.plan.warm_up_s:.0f} s, 40 % of the time"
    print(f"{figures['minutes']} minutes, seed {report.seed}; growth is measured after the first {warm}\n")
    print(f"{'memory, MB':<20}{'after warm-up':>15}{'at the end':>12}{'growth %':>10}{'highest':>10}")
    for name, grown in figures["memory"].items():
        print(f"{name:<20}{grown['first_mb']:>15.1f}{grown['last_mb']:>12.1f}{grown['growth_percent']:>10.1f}{grown['highest_mb']:>10.1f}")
    print(f"\n{'in quiet moments':<20}")
    for name in ("descriptors", "tasks", "threads"):
        print(f"{name:<20}{'  '.join(f'{value:g}' for value in figures[f'quiet_{name}'])}")
    for name in ("done", "commands", "jobs"):
        print(f"\n{name}")
        for what, count in figures.get(name, {}).items():
            print(f"    {what:<50}{count:>7}")
    for kind in ("lost", "doubled", "torn", "unsettled"):
        found = getattr(report.findings, kind)
        print(f"\n{kind:<50}{len(found):>11}")
        for one in found[:_SHOWN]:
            print(f"    {one[:600]}")
    finish("soak", targets(report.samples, report.plan.warm_up_s, report.findings), figures)


def soak(directory: Path, report: Report, stage: Stage, *, trace: bool) -> None:
    """Make the world, soak, and take it down; `report` gets what was measured, however it ends."""
    progress("starting a broker, an object store and the platform")
    with SoakSite(directory) as site:
        unsettled: list[str] = []
        try:
            with site.daemon(trace=directory / "trace.txt" if trace else None) as daemon:
                daemon.wait_for_event("daemon.ready")
                daemon.wait_for_event("stream.connected")
                progress(f"seed {report.seed}; the daemon is process {daemon.process.pid}, its log {site.ground.site.operator.log}")
                run = Soak(site, daemon, stage, report)
                unsettled = run.run()
        except SandboxError as error:
            report.findings = Findings(unsettled=(str(error), *stage.errors))
            return
        progress("comparing what is there with what was meant")
        report.findings = run.compare(unsettled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 minutes")
    parser.add_argument("--minutes", type=float, help="60 unless told otherwise")
    parser.add_argument("--seed", type=int, help="of a run to repeat; what meets what depends on the machine all the same")
    parser.add_argument("--keep", type=Path, help="work in this directory and leave it, instead of a temporary one")
    parser.add_argument("--plot", type=Path, help="draw memory, descriptors and tasks into this PNG file")
    parser.add_argument("--trace", action="store_true", help="trace.txt gets what holds the daemon's memory; it makes it slow and large")
    arguments = parser.parse_args()
    plan = Plan.of(arguments.minutes or (3 if arguments.quick else 60))
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    logging.disable(logging.CRITICAL)  # what rstream says of a broker that was killed
    warnings.simplefilter("ignore", ResourceWarning)
    report, stage = Report(plan, seed), Stage(seed, pace=plan.pace)

    def end(number: int, _: FrameType | None) -> None:
        if stage.ending.is_set():
            raise KeyboardInterrupt
        progress(f"{signal.Signals(number).name}: it comes to its end; once more to end it at once")
        stage.ending.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    directory = arguments.keep or Path(tempfile.mkdtemp(prefix="benchmark-soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    soak(directory.absolute(), report, stage, trace=arguments.trace)
    if arguments.plot:
        draw(report.samples, plan.warm_up_s, arguments.plot)
    (directory / "samples.json").write_text(json.dumps([vars(sample) for sample in report.samples]))
    show(report)
    if report.findings or arguments.keep:
        progress(f"everything is left in {directory}")
    else:
        shutil.rmtree(directory)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
