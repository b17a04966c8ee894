"""The starts of a job's workers: how each ended is recorded, and whether there is another one follows from those records alone."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from azaion_daemon.errors import TrainingError
from azaion_daemon.training.attempts import attempt_of, is_alive, unseen_attempt
from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.retry import Again, GiveUp

T = TypeVar("T")

Retry = Callable[[JobSpec, Sequence[Attempt]], Again | GiveUp]


class BadEndError(TrainingError):
    """The workers of a job ended without a model."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(f"{outcome}: {reason}")
        self.outcome = outcome


class Storing(Protocol):
    """Does something that may be done again, as soon as there is space for it."""

    async def __call__(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do it."""
        ...


class Starts:
    """Those of one job."""

    def __init__(self, directory: JobDirectory, retry: Retry, store: Storing) -> None:
        self._directory = directory
        self._retry = retry
        self._store = store

    async def again(self, spec: JobSpec) -> tuple[Again | None, list[Attempt]]:
        """How to try again after the last start, and all starts; None when that did not end badly, or there was none.

        Raises:
            BadEndError: No more.
        """
        attempts = await asyncio.to_thread(self._directory.read_attempts)
        if not attempts or attempts[-1].outcome is Outcome.DONE:
            return None, attempts
        # With what the last start had: what is decided here may stand in the spec already, when a kill came after that was written.
        last = attempts[-1]
        workers = spec.workers if last.workers is None else last.workers
        match self._retry(spec.model_copy(update={"batch_size": last.batch_size, "workers": workers}), attempts):
            case GiveUp(outcome=outcome, reason=reason):
                raise BadEndError(outcome, reason)
            case again:
                return again, attempts

    async def record(self, spec: JobSpec, result: JobResult) -> None:
        """Record how a worker ended; the same end once more changes nothing."""
        attempts = await asyncio.to_thread(self._directory.read_attempts)
        if not attempts or attempts[-1].ended != result.finished:
            await self._append(await asyncio.to_thread(attempt_of, self._directory, spec, result))

    async def goes_on(self, spec: JobSpec) -> bool:
        """Whether a worker that an earlier daemon has started lives, or has left a result. One that died without is recorded."""
        directory = self._directory
        if (unseen := await asyncio.to_thread(unseen_attempt, directory, spec)) is not None:
            await self._append(unseen)
        if await asyncio.to_thread(directory.read_result) is not None:
            return True
        identity = await asyncio.to_thread(directory.read_identity)
        return identity is not None and await asyncio.to_thread(is_alive, identity)

    async def _append(self, attempt: Attempt) -> None:
        await self._store(lambda: asyncio.to_thread(self._directory.append_attempt, attempt))
