"""What a worker is asked to do: from a job, its dataset and the settings."""

import sys

from azaion_daemon.dataset.snapshot import Snapshot
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Job
from azaion_daemon.training.jobs import JobSpec
from azaion_daemon.training.weights import Start


def settings_for(job: Job, settings: Settings) -> Settings:
    """The settings that a job is formed with: the configuration's, but for what was asked for. A trial is one epoch."""
    epochs = 1 if job.trial else job.epochs
    if epochs is None:
        return settings
    return settings.model_copy(update={"training": settings.training.model_copy(update={"epochs": epochs})})


def spec_for(job: Job, snapshot: Snapshot, start: Start, settings: Settings, layout: Layout) -> JobSpec:
    """What the run needs; the GPUs are chosen when it begins. `settings` are those that the dataset was formed with."""
    training, export = settings.training, settings.export
    return JobSpec(
        id=job.id,
        dataset_id=snapshot.id,
        dataset_name=f"trial-{job.id}" if job.trial else snapshot.name,
        data_yaml=snapshot.data_yaml,
        class_names=snapshot.class_names,
        model=start.model,
        started_from=start.kind,
        model_sha256=start.sha256,
        epochs=training.epochs,
        batch_size=training.batch_size,
        imgsz=training.imgsz,
        save_period=training.save_period,
        workers=training.workers,
        seed=training.seed,
        deterministic=training.deterministic,
        overrides=training.overrides,
        export_imgsz=export.imgsz,
        export_batch=export.batch,
        gpus_per_job=training.gpus_per_job,
        max_attempts=training.max_attempts,
        trial=job.trial,
        python=sys.executable,
        gpu_locks=layout.gpu_locks,
        nice=training.nice,
    )
