"""The worker: `python -m azaion_daemon.training.worker JOBDIR` trains one job, from top to bottom.

SIGTERM ends it at once, as SIGKILL and a power cut do: the last checkpoint is the state, and the next start goes on from there. Its exit
status says nothing but that another worker has the job (75), or that the disk is too full for a result (73); everything else is in
result.json.
"""

import os
import sys
import time
import traceback
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from azaion_daemon.errors import RootError
from azaion_daemon.store.digests import file_digest
from azaion_daemon.store.durable import exclusive_lock, remove_temporaries
from azaion_daemon.store.modes import UMASK
from azaion_daemon.training.evaluation import Evaluated
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec, ModelFile
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.processes import EXIT_NO_SPACE, EXIT_TAKEN, JOB_VARIABLE, TOKEN_VARIABLE, own_identity
from azaion_daemon.training.worker import environment
from azaion_daemon.training.worker.failures import PhaseError, classify, is_disk_full
from azaion_daemon.training.worker.progress import ProgressReport, say
from azaion_daemon.training.worker.versions import versions


def main(directory: Path) -> int:
    """Run a job to its result; returns the exit status."""
    os.umask(UMASK)
    job = JobDirectory(directory)
    with ExitStack() as leases:
        try:
            leases.enter_context(exclusive_lock(job.lock, busy=f"Another worker has {job.path}"))
        except RootError as error:
            say(str(error))
            return EXIT_TAKEN
        if job.read_result() is not None:
            return 0
        try:
            _work(job, _introduce(job), leases)
        except OSError as error:
            if not is_disk_full(error):
                raise
            say(f"The disk is full, there is no space even for a result: {error}")
            return EXIT_NO_SPACE
    return 0


def _work(job: JobDirectory, attempt: int, leases: ExitStack) -> None:
    spec: JobSpec | None = None
    try:
        spec = job.read_spec()
        remove_temporaries(job.path, *job.run.glob("*"), *job.run.glob("*/weights"))  # of a start that was killed
        for name in spec.held:
            _lease(leases, spec, name)
        environment.prepare(job, spec)
        _run_phases(job, spec, ProgressReport(job, attempt))
        job.drop_weights()
        result = _success(job, spec, attempt)
    except Exception as error:  # noqa: BLE001 - the one place where every failure becomes a result
        say(traceback.format_exc())
        result = _failure(job, spec, attempt, error)
    job.write_result(result)
    say(f"{result.outcome}: {result.reason}" if result.reason else result.outcome)


def _introduce(job: JobDirectory) -> int:
    """Say who has the job; returns which start of it this is."""
    earlier = job.read_identity()
    attempt = 1 if earlier is None else earlier.attempt + 1
    # Found in the environment of everything that this process starts, also where it was started by hand.
    os.environ[JOB_VARIABLE] = str(job.path)
    token = os.environ.setdefault(TOKEN_VARIABLE, uuid.uuid4().hex)
    job.write_identity(own_identity(token, attempt))
    say(f"--- start {attempt} of {job.path.name}, {datetime.now(UTC).isoformat(timespec='seconds')}, pid {os.getpid()}")
    return attempt


def _lease(leases: ExitStack, spec: JobSpec, name: str) -> None:
    try:
        spec.gpu_locks.mkdir(parents=True, exist_ok=True)
        leases.enter_context(exclusive_lock(spec.gpu_locks / f"{name}.lock", busy=f"The lease of {name} is held by another job"))
    except RootError as error:
        raise PhaseError(Outcome.INFRASTRUCTURE, str(error), counts=False) from error


def _run_phases(job: JobDirectory, spec: JobSpec, report: ProgressReport) -> None:
    for phase in Phase:
        if job.marker(phase) is not None:
            continue
        report.enter(phase)
        say(f"--- {phase}")
        started = time.monotonic()
        # Only now: torch and the library read the environment when they are imported.
        module = import_module(f"azaion_daemon.training.worker.{phase}")
        details = module.run(job, spec, report)
        job.mark(phase, time.monotonic() - started, details)


def _success(job: JobDirectory, spec: JobSpec, attempt: int) -> JobResult:
    marker = job.marker(Phase.EVALUATE)
    assert marker is not None
    evaluated = Evaluated.model_validate(marker.details, strict=False)
    return _result(job, spec, attempt).model_copy(
        update={
            "pt": _model_file(job, job.pt),
            "onnx": _model_file(job, job.onnx),
            "metrics": evaluated.metrics,
            "evaluation": evaluated.evaluation,
            "finished": datetime.now(UTC),
        },
    )


def _failure(job: JobDirectory, spec: JobSpec | None, attempt: int, error: Exception) -> JobResult:
    outcome, reason, counts = classify(error)
    return _result(job, spec, attempt).model_copy(update={"outcome": outcome, "reason": reason, "counts": counts})


def _result(job: JobDirectory, spec: JobSpec | None, attempt: int) -> JobResult:
    records = {phase: record for phase in Phase if (record := job.marker(phase)) is not None}
    return JobResult(
        outcome=Outcome.DONE,
        dataset_id=None if spec is None else spec.dataset_id,
        settings={} if spec is None else spec.model_dump(mode="json"),
        versions=versions(spec),
        seconds={phase: record.seconds for phase, record in records.items()},
        attempts=attempt,
        finished=datetime.now(UTC),
    )


def _model_file(job: JobDirectory, file: Path) -> ModelFile:
    return ModelFile(path=str(file.relative_to(job.path)), sha256=file_digest(file), size_bytes=file.stat().st_size)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
