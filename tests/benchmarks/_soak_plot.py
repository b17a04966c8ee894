"""The course of a soak as a picture."""

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks._soak_samples import Sample


def draw(samples: Sequence[Sample], warm_up_s: float, file: Path) -> None:
    """Memory, descriptors, tasks, threads, and the write-ahead log over time, as a PNG; quiet moments are shaded."""
    import matplotlib as mpl  # noqa: PLC0415 - only who draws needs it

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    minutes = [sample.at / 60 for sample in samples]
    figure, (memory, counts, files) = plt.subplots(3, 1, sharex=True, figsize=(12, 10), layout="constrained")
    for name, values in (
        ("RSS", [sample.rss for sample in samples]),
        ("PSS", [sample.pss for sample in samples]),
        ("anonymous", [sample.anonymous for sample in samples]),
    ):
        memory.plot(minutes, [value / 1e6 for value in values], label=name)
    memory.set_ylabel("MB")
    for name, numbers in (
        ("descriptors", [sum(sample.descriptors.values()) for sample in samples]),
        ("tasks", [sample.tasks or 0 for sample in samples]),
        ("threads", [sample.threads for sample in samples]),
        ("children", [sample.children for sample in samples]),
    ):
        counts.plot(minutes, numbers, label=name)
    for name, values in (("ledger", [sample.ledger for sample in samples]), ("write-ahead log", [sample.wal for sample in samples])):
        files.plot(minutes, [value / 1e6 for value in values], label=name)
    files.set_ylabel("MB")
    files.set_xlabel("minutes")
    for axes in (memory, counts, files):
        axes.axvline(warm_up_s / 60, linestyle=":", color="grey")
        axes.fill_between(minutes, 0, 1, where=[sample.quiet for sample in samples], transform=axes.get_xaxis_transform(), alpha=0.15)
        axes.legend(loc="upper left")
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)
