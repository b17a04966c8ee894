"""What a worker does, and what its end means."""

from enum import StrEnum


class Outcome(StrEnum):
    """What a worker's end means for what to do next."""

    DONE = "done"
    BAD_JOB = "bad_job"  # the settings or the weights: the same job will fail again
    BAD_DATA = "bad_data"  # the dataset: it will fail again until the annotations change
    OUT_OF_MEMORY = "out_of_memory"  # of the GPU, or of what trains in its place: a smaller batch may help
    OUT_OF_HOST_MEMORY = "out_of_host_memory"  # of the machine: fewer data loaders may help
    DIVERGED = "diverged"  # losses or weights became infinite or NaN
    INFRASTRUCTURE = "infrastructure"  # the machine, the disk, a kill: try again from the checkpoint


class Phase(StrEnum):
    """What a worker does, in this order."""

    PREPARE = "prepare"
    TRAIN = "train"
    EXPORT = "export"
    EVALUATE = "evaluate"
    REPORT = "report"
