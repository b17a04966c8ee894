"""When a training will have ended, as far as its own pace tells."""

from azaion_daemon.training.jobs import Progress
from azaion_daemon.training.outcomes import Phase


def remaining_s(progress: Progress) -> float | None:
    """Seconds until the last epoch ends: what is left of this one, and the median time of an epoch for each that follows.

    None as long as nothing is known of an epoch's time, and outside the training itself: what comes before and after takes minutes. An
    early stop (`patience`) is not foreseen. Before the first epoch has ended, its time is taken from its batches, without its validation.
    """
    if progress.phase is not Phase.TRAIN or not progress.epochs:
        return None
    epoch_s = progress.epoch_s
    if epoch_s is None and progress.batch_s is not None and progress.batches and not progress.step:
        epoch_s = progress.batch_s * progress.batches
    if epoch_s is None:
        return None
    return epoch_s * max(progress.epochs - _epochs_done(progress), 0.0)


def share_done(progress: Progress) -> float:
    """How much of the epochs is done, 0..1; a batch counts."""
    if progress.phase in {Phase.EXPORT, Phase.EVALUATE, Phase.REPORT}:
        return 1.0
    if not progress.epochs or not progress.epoch:
        return 0.0
    return min(_epochs_done(progress) / progress.epochs, 1.0)


def _epochs_done(progress: Progress) -> float:
    """Those that are finished, and what there is of the one under way; its validation and what follows count as its end.

    The batches of such a step are not those of the training.
    """
    if progress.step:
        return float(progress.epoch)  # while the library sets up, `epoch` is the last one that was finished
    batches = min(progress.batch / progress.batches, 1.0) if progress.batches else 0.0
    return max(progress.epoch - 1, 0) + batches
