"""What a soak is to take, what was measured, and how that is told."""

from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks._common import finish
from tests.benchmarks._soak_figures import Findings, growth, more_descriptors, quiet_windows, targets, trend
from tests.benchmarks._soak_samples import Sample

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
