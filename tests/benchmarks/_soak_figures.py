"""What the samples of a soak mean: growth by a robust fit, leaks by comparing quiet moments. Pure."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from tests.benchmarks._common import Target, at_most, below
from tests.benchmarks._soak_samples import Sample

MOST_GROWTH = 5.0
"""Per cent, from the end of the warm-up to the end."""
_WINDOWS = 10
_LEAST_WINDOWS = 3


@dataclass(frozen=True)
class Growth:
    """A line through the medians of windows: what it says of the first and the last moment."""

    first: float
    last: float

    @property
    def percent(self) -> float:
        """How much more the last is than the first."""
        return 100 * (self.last / self.first - 1)


def growth(samples: Sequence[tuple[float, float]], since: float) -> Growth | None:
    """How a figure, given as (moment, value), has grown since a moment; None with too few samples to say.

    The median of each of ten windows, so that what is there for a moment does not count; then the median of the slopes between all pairs
    of windows (Theil and Sen), which a third of odd windows does not move.
    """
    after = sorted((at, value) for at, value in samples if at >= since)
    if len(after) < _LEAST_WINDOWS:
        return None
    begin, end = after[0][0], after[-1][0]
    span = (end - begin) / _WINDOWS or 1.0
    windows: dict[int, list[tuple[float, float]]] = {}
    for at, value in after:
        windows.setdefault(min(int((at - begin) / span), _WINDOWS - 1), []).append((at, value))
    points = [(statistics.median(at for at, _ in window), statistics.median(value for _, value in window)) for window in windows.values()]
    if len(points) < _LEAST_WINDOWS:
        return None
    slope = statistics.median((b - a) / (y - x) for (x, a), (y, b) in combinations(points, 2))
    start = statistics.median(value - slope * (at - begin) for at, value in points)
    return Growth(start, start + slope * (end - begin))


def quiet_windows(samples: Sequence[Sample], since: float) -> list[list[Sample]]:
    """The runs of quiet samples from a moment on, in order."""
    windows: list[list[Sample]] = []
    quiet_before = False
    for sample in samples:
        if sample.quiet and sample.at >= since:
            if not quiet_before:
                windows.append([])
            windows[-1].append(sample)
        quiet_before = sample.quiet
    return windows


def leaked(windows: Sequence[Sequence[Sample]], figure: Callable[[Sample], float | None]) -> int | None:
    """How much more of something there is in the last quiet window than in the first, by their medians; None when there are not two.

    What went up and came down again is no leak; what is less at the end than it was is none either.
    """
    medians = [
        statistics.median(values) for window in windows if (values := [value for sample in window if (value := figure(sample)) is not None])
    ]
    return None if len(medians) < 2 else max(0, round(medians[-1] - medians[0]))


def beyond_first_half(medians: Sequence[float]) -> int | None:
    """How much more the last is than any of the first half: for what fills up to its bound first, as pools of threads do when needed."""
    half = medians[: (len(medians) + 1) // 2]
    return None if len(medians) < 2 else max(0, round(medians[-1] - max(half)))


def trend(windows: Sequence[Sequence[Sample]], figure: Callable[[Sample], float | None]) -> list[float]:
    """The median of each quiet window."""
    found = ([value for sample in window if (value := figure(sample)) is not None] for window in windows)
    return [statistics.median(values) for values in found if values]


def more_descriptors(windows: Sequence[Sequence[Sample]]) -> dict[str, int]:
    """By kind: how many more there are at the end of the last quiet window than at that of the first, where there are more."""
    if len(windows) < 2:
        return {}
    before, after = windows[0][-1].descriptors, windows[-1][-1].descriptors
    return {kind: count - before.get(kind, 0) for kind, count in after.items() if count > before.get(kind, 0)}


@dataclass(frozen=True)
class Findings:
    """What was wrong with what the daemon left, a line each."""

    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()
    """Files and rows that are there, but otherwise than they should be."""
    unsettled: tuple[str, ...] = ()
    """What had not come to its end, did not verify, or was left over."""

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.torn or self.unsettled)


def targets(samples: Sequence[Sample], warm_up_s: float, findings: Findings) -> list[Target]:
    """The judged figures. What could not be measured is missed."""
    judged = []
    worst = [growth([(sample.at, pick(sample)) for sample in samples], warm_up_s) for pick in (_rss, _anonymous)]
    percents = [one.percent for one in worst if one is not None]
    judged.append(
        below("memory_growth_percent", max(percents), MOST_GROWTH) if percents else _unknown("memory_growth_percent", MOST_GROWTH)
    )
    windows = quiet_windows(samples, warm_up_s)
    for name, more in (
        ("descriptors", leaked(windows, _descriptors)),
        ("tasks", leaked(windows, _tasks)),
        ("threads", beyond_first_half(trend(windows, _threads))),
    ):
        judged.append(_unknown(f"{name}_leaked", 0) if more is None else at_most(f"{name}_leaked", more, 0))
    judged += [
        at_most(name, len(found), 0)
        for name, found in (
            ("lost", findings.lost),
            ("doubled", findings.doubled),
            ("torn", findings.torn),
            ("unsettled", findings.unsettled),
        )
    ]
    return judged


def _unknown(name: str, target: float) -> Target:
    return Target(name, -1, target, ok=False)


def _rss(sample: Sample) -> float:
    return sample.rss


def _anonymous(sample: Sample) -> float:
    return sample.anonymous


def _descriptors(sample: Sample) -> float:
    return sum(sample.descriptors.values())


def _tasks(sample: Sample) -> float | None:
    return sample.tasks


def _threads(sample: Sample) -> float:
    return sample.threads
