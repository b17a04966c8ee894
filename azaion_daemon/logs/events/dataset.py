"""Datasets and retention: what is logged about it."""

from azaion_daemon.logs.event import Event

EVENTS: dict[str, Event] = {
    "trigger.due": Event("info", "A training job is due, because of `why`.", ("why", "job")),
    "dataset.forming": Event("info", "A dataset is being formed.", ("job",)),
    "dataset.formed": Event(
        "info",
        "A dataset is complete under its name; `remarks` are what dataset.json says of it.",
        ("job", "dataset", "id", "images", "objects", "excluded", "remarks"),
    ),
    "dataset.resizing": Event(
        "info", "Images are being reduced to the training size; `done` `of` those that were not yet.", ("done", "of", "images_per_s")
    ),
    "dataset.resized": Event("info", "Images were reduced; `outcomes` counts what became of them.", ("outcomes", "bytes", "seconds")),
    "dataset.resized_pruned": Event("info", "Resized images that no dataset uses were removed.", ("images", "bytes")),
    "dataset.resizer_died": Event(
        "warning",
        "A process that resizes images has ended; another one goes on with its work.",
        ("how", "annotation", "deaths", "repeated", "for_s"),
        "Nothing for one. Many: memory is short (`dmesg`), or an image is hostile: `annotation` names it.",
    ),
    "dataset.debris_removed": Event("info", "A dataset that a crash left unfinished was removed.", ("dataset",)),
    "retention.evaluations_pruned": Event("info", "Evaluations that were not used for the longest time were removed.", ("evaluations",)),
    "retention.removed": Event(
        "info",
        "A dataset, a model or (a part of) a job's directory was removed, because of `why`; that gave `freed_bytes`.",
        ("directory", "name", "why", "freed_bytes"),
    ),
    "retention.failed": Event(
        "warning",
        "Something cannot be read or removed, see `why`; it is tried again, once a day at least.",
        ("name", "why", "repeated", "for_s"),
        "Mend what `why` says, mostly the owner of the files: `chown -R azaion:` the directory.",
    ),
    "index.digesting": Event("info", "A dataset waits until the images of an indexed tree are read; `left` is how many.", ("left",)),
    "index.digested": Event("info", "The images of an indexed tree are read; their digests are known.", ("annotations", "seconds")),
}
