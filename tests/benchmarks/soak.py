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
from pathlib import Path
from types import FrameType

from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.sandbox.processes import SandboxError
from tests.benchmarks._common import progress
from tests.benchmarks._soak_end import after_its_end, events, while_running
from tests.benchmarks._soak_figures import Findings
from tests.benchmarks._soak_plot import draw
from tests.benchmarks._soak_report import Plan, Report, show
from tests.benchmarks._soak_roles import Roles
from tests.benchmarks._soak_samples import Sampler
from tests.benchmarks._soak_site import CALM, SoakSite
from tests.benchmarks._soak_stage import Stage

_PROGRESS_S = 30.0
_SETTLE_S = 300.0
_STILL_S = 3.0
_KEEPALIVE_S = 7.0
"""After this long no HTTP connection that was kept for later is open any more."""
_TICK_S = 0.2


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
