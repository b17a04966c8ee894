"""What a finished training is compared with, and what becomes of it."""

from collections.abc import Callable

from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.training.gate import Verdict, judge
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec


class Judge:
    """Says what a job's model is to be compared with, and decides about it."""

    def __init__(self, settings: Settings, layout: Layout, ledger: LedgerThread, *, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._clock = clock

    def reconfigure(self, settings: Settings) -> None:
        """Judge by other settings from now on."""
        self._settings = settings

    async def prepare(self, directory: JobDirectory, spec: JobSpec) -> None:
        """Say what to evaluate on, before a worker is started. What was evaluated against another current model is evaluated again."""

    async def verdict(self, directory: JobDirectory, result: JobResult) -> Verdict | None:
        """Decide about a model; None when it was compared with what is not the current model any more: prepare and run again."""
        assert result.metrics is not None
        return judge(result.metrics, result.evaluation, self._settings.gate)
