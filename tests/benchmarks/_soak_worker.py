"""Stands in for most trainings of the soak, since two cores cannot train all the time: the worker's protocol with real locks and processes.

`python -m tests.benchmarks._soak_worker JOBDIR`. A job of `REAL_EPOCHS` epochs, and a trial, is given to the real worker, which this
process becomes. What it does otherwise follows from the job's id: it works for some seconds and is done, is killed, ends without a word, or
says that the memory did not suffice. A child that does not end by itself stays behind, as a data loader does whose parent was killed.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from azaion_daemon.errors import RootError
from azaion_daemon.store.durable import exclusive_lock
from azaion_daemon.training.evaluation import Evaluation, Metrics
from azaion_daemon.training.interpreter import worker_command
from azaion_daemon.training.jobs import JobDirectory, JobResult, JobSpec, ModelFile, Progress
from azaion_daemon.training.outcomes import Outcome, Phase
from azaion_daemon.training.processes import EXIT_TAKEN, TOKEN_VARIABLE, own_identity

REAL_EPOCHS = 2
ONNX = "stand-in.onnx"
"""Beside the root: what its models are made from."""
_DOC_STRING = 0x32
"""The tag of this field in ONNX's ModelProto: six, with a length."""
_STEP_S = 0.2
_FIRST_ATTEMPTS = 2
"""From the next one on every attempt succeeds, so that a job ends soon."""


def become_real(job: JobDirectory) -> None:
    """Go on as the real worker."""
    command = (*worker_command(), str(job.path))
    os.execv(command[0], command)


def work(job: JobDirectory) -> int:
    """Work on a job, whose lock is held; the exit status."""
    spec, earlier = job.read_spec(), job.read_identity()
    attempt = earlier.attempt + 1 if earlier else 1
    job.write_identity(own_identity(os.environ[TOKEN_VARIABLE], attempt))
    chance = random.Random(f"{spec.id} {attempt}")
    child = subprocess.Popen(["sleep", "3600"])
    fate = chance.choices(["done", "killed", "silent", "memory"], [7, 1, 1, 1])[0] if attempt <= _FIRST_ATTEMPTS else "done"
    _progress(job, spec, attempt, chance.randint(5, 50))
    if fate == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "silent":
        return 1
    child.kill()
    child.wait()
    if fate == "memory":
        job.write_result(JobResult(outcome=Outcome.OUT_OF_MEMORY, reason="It was to be so.", attempts=attempt, finished=datetime.now(UTC)))
        return 0
    job.write_result(_done(job, spec, attempt))
    return 0


def _progress(job: JobDirectory, spec: JobSpec, attempt: int, steps: int) -> None:
    started = datetime.now(UTC)
    for batch in range(1, steps + 1):
        now = datetime.now(UTC)
        job.write_progress(
            Progress(
                phase=Phase.TRAIN,
                epoch=1,
                epochs=spec.epochs,
                batch=batch,
                batches=steps,
                attempt=attempt,
                started=started,
                phase_started=started,
                updated=now,
            )
        )
        print(f"batch {batch}", flush=True)
        time.sleep(_STEP_S)


def _done(job: JobDirectory, spec: JobSpec, attempt: int) -> JobResult:
    doc = spec.id.encode()[:100]
    job.onnx.write_bytes((job.path.parents[3] / ONNX).read_bytes() + bytes([_DOC_STRING, len(doc)]) + doc)
    job.pt.write_bytes(doc * 1000)
    job.report.write_text("<html><body>A stand-in reports nothing.</body></html>")
    metrics = Metrics(images=100, instances=100, map50=0.5, map50_95=0.5, classes=())
    asked = job.read_comparison()
    evaluation = None
    if asked is not None and asked.rival is not None:
        evaluation = Evaluation(rival=asked.rival.sha256, images=100, digest=asked.digest, candidate=metrics, current=metrics)
    return JobResult(
        outcome=Outcome.DONE,
        metrics=metrics,
        evaluation=evaluation,
        attempts=attempt,
        dataset_id=spec.dataset_id,
        finished=datetime.now(UTC),
        onnx=_file(job.onnx),
        pt=_file(job.pt),
    )


def _file(path: Path) -> ModelFile:
    content = path.read_bytes()
    return ModelFile(path=path.name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def main(arguments: Sequence[str]) -> int:
    job = JobDirectory(Path(arguments[0]))
    spec = job.read_spec()
    if spec.trial or spec.epochs == REAL_EPOCHS:
        become_real(job)
    try:
        with exclusive_lock(job.lock, busy="taken"):
            return 0 if job.read_result() is not None else work(job)
    except RootError:
        return EXIT_TAKEN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
