"""What a trained model and the current one are worth: what to compare them on, and what came out.

The daemon writes `comparison.json` into a job's directory, since it knows what each model has seen; the worker evaluates.
"""

from pathlib import Path

from azaion_daemon.training.document import Document


class Rival(Document):
    """The current model, which a candidate is compared with. `job` is None for one that was taken over."""

    sha256: str
    onnx: Path
    job: str | None = None


class Comparison(Document):
    """What the worker is to evaluate on: file names in the dataset's `test/images`.

    `images` are those that neither model was trained on, at most `gate.max_images`, chosen by hash; `own` those that the candidate is
    evaluated on whatever the rival has seen, of which `images` are usually a part.
    """

    rival: Rival | None
    images: tuple[str, ...]
    own: tuple[str, ...]
    digest: str
    """Of the images and labels to compare on: with the model's it names a cached evaluation."""
    own_digest: str
    left_out: dict[str, int] = {}
    """How many test images are not compared on, by reason."""
    cache: Path
    """A directory of evaluations that were made before."""
    max_class_drop: float | None = None
    """`gate.max_class_drop`, for the report to mark what drops more."""


class ClassMetrics(Document):
    """One class on the test images; the mAPs are null where it has no instance."""

    name: str
    images: int
    instances: int
    map50: float | None = None
    map50_95: float | None = None


class Metrics(Document):
    """What the exported model reaches on the test images."""

    images: int
    instances: int
    map50: float
    map50_95: float
    classes: tuple[ClassMetrics, ...]


class Evaluation(Document):
    """Both models on the same images. `problem` says why the rival could not be evaluated."""

    rival: str | None
    """The digest of the model that was compared with; None where there was none."""
    images: int
    digest: str
    candidate: Metrics
    current: Metrics | None = None
    problem: str = ""
    left_out: dict[str, int] = {}


class Evaluated(Document):
    """What the worker's fourth phase leaves in its marker."""

    metrics: Metrics
    """Of the candidate on its own test images."""
    evaluation: Evaluation | None = None
    """None for a trial, which is compared with nothing."""


class PrecisionRecall(Document):
    """Precision at IoU 0.5 over recall, by class."""

    recall: tuple[float, ...]
    precision: dict[str, tuple[float, ...]]


class F1(Document):
    """The F1 score at IoU 0.5 over the confidence that a detection needs, by class."""

    confidence: tuple[float, ...]
    f1: dict[str, tuple[float, ...]]


class Confusion(Document):
    """How often what (a column) is taken for what (a row), at a confidence of 0.25; the last label is the background."""

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]


class Curves(Document):
    """`curves.json`: what the candidate's figures on its own test images come from, for its report. Only classes that have instances."""

    pr: PrecisionRecall
    f1: F1
    confusion: Confusion


class CachedEvaluation(Document):
    """An evaluation that was made before, and everything that it depends on."""

    model: str
    """SHA-256 of the ONNX."""
    images: str
    """Digest of the images and labels."""
    class_names: tuple[str, ...]
    imgsz: int
    device: str
    """The kind of device, such as `cpu`: figures of different ones differ in the last digits."""
    library: str
    """The version of Ultralytics."""
    metrics: Metrics
