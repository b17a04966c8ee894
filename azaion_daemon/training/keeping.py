"""Where the model of a job is kept."""

from pathlib import Path

from azaion_daemon.errors import TrainingError
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Job
from azaion_daemon.training.jobs import JobDirectory


def kept_directory(job: Job, layout: Layout) -> Path:
    """The directory that a job's model is kept in, or will be. Blocking.

    A dataset that somebody has removed may have given its name to another, so that the directory of that name may be another job's.
    """
    directory = layout.models / str(job.dataset)
    try:
        kept = JobDirectory(directory).read_result()
    except TrainingError:  # of another release
        return layout.models / f"{job.dataset}-{job.id}"
    return directory if kept is None or kept.settings.get("id") in {None, job.id} else layout.models / f"{job.dataset}-{job.id}"
