"""When a worker that still lives has come to a standstill.

Progress is what only the main thread of a worker advances: phase, step, epoch, batch. That a file is still written proves nothing.
"""

from dataclasses import dataclass

from azaion_daemon.training.jobs import Progress
from azaion_daemon.training.outcomes import Phase

SETTING_UP = "setting up"  # the step before the first epoch; the library reads its index of all images, `batches` of them
_LONGEST_LOOK_S = 30.0


@dataclass(frozen=True, slots=True)
class Ceilings:
    """How long a worker may do without progress, in seconds. `*_image_s` is added for each image that the step has to read."""

    start_s: float = 600.0  # until its first word: Python and torch from a cold disk
    prepare_s: float = 600.0
    setting_up_s: float = 600.0
    image_s: float = 0.05
    first_batch_s: float = 600.0  # data loaders start, kernels are chosen or compiled
    train_s: float = 300.0
    median_batches: float = 10.0
    export_s: float = 1800.0  # one call into the exporter, and a run of what came out
    evaluate_s: float = 1200.0


def ceiling_s(progress: Progress | None, ceilings: Ceilings) -> float:
    """How long what the worker does now may take without a sign of getting on."""
    if progress is None:
        return ceilings.start_s
    match progress.phase:
        case Phase.PREPARE:
            return ceilings.prepare_s + ceilings.image_s * progress.batches
        case Phase.TRAIN if progress.step == SETTING_UP:
            return ceilings.setting_up_s + ceilings.image_s * progress.batches
        case Phase.TRAIN:
            usual = ceilings.first_batch_s if progress.batch == 0 else ceilings.train_s
            return max(usual, ceilings.median_batches * (progress.batch_s or 0.0))
        case Phase.EXPORT:
            return ceilings.export_s
        case Phase.EVALUATE | Phase.REPORT:
            return max(ceilings.evaluate_s, ceilings.median_batches * (progress.batch_s or 0.0))


def where(progress: Progress | None) -> str:
    """What a worker was doing, as a part of a sentence."""
    if progress is None:
        return "before it said anything"
    words = [f"in phase {progress.phase}"]
    if progress.epoch:
        words.append(f"epoch {progress.epoch}")
    if progress.step:
        words.append(progress.step)
    if progress.batches and progress.step != SETTING_UP:
        words.append(f"batch {progress.batch} of {progress.batches}")
    return ", ".join(words)


class Standstill:
    """Looks at a worker's progress again and again, on the monotonic clock."""

    def __init__(self, ceilings: Ceilings) -> None:
        self._ceilings = ceilings
        self._mark: tuple[object, ...] | None = None
        self._looked: float | None = None
        self._idle_s = 0.0

    def look(self, progress: Progress | None, now: float) -> float | None:
        """How long nothing has happened, in seconds, when that is longer than it may be; else None.

        Time in which nobody looked counts for little: after a pause of the whole machine, the worker was paused too.
        """
        mark = (
            () if progress is None else (progress.attempt, progress.phase, progress.step, progress.epoch, progress.batch, progress.batches)
        )
        elapsed = 0.0 if self._looked is None else min(now - self._looked, _LONGEST_LOOK_S)
        self._looked = now
        if mark != self._mark:
            self._mark, self._idle_s = mark, 0.0
            return None
        self._idle_s += elapsed
        return self._idle_s if self._idle_s > ceiling_s(progress, self._ceilings) else None
