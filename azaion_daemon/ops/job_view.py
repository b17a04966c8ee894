"""Jobs and GPUs for people, as rows. What is missing or unknown is left out."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from azaion_daemon.ops.loosely import number
from azaion_daemon.ops.rows import Mood, Row
from azaion_daemon.ops.wording import ahead, bar, duration, moment, since, size

_SILENT_S = 60.0
_MOODS = {
    "released": Mood.GOOD,
    "releasing": Mood.GOOD,
    "accepted": Mood.GOOD,
    "tried": Mood.GOOD,
    "rejected": Mood.WARN,
    "held": Mood.WARN,
    "failed": Mood.BAD,
    "cancelled": Mood.DIM,
}


def under_way_rows(job: Mapping[str, Any], now: datetime, *, width: int) -> Iterator[Row]:
    """A job that is under way: its phase, how far it is, how good, how fast, and when it ends. Its bar takes `width` characters."""
    progress = job.get("progress")
    words = [f"{job.get('id')}", f"{job.get('state')}{' (a trial)' if job.get('trial') else ''}"]
    if job.get("goes_on"):
        words.append("it goes on without the daemon")
    if job.get("dataset"):
        words.append(f"dataset {job['dataset']}")
    if isinstance(progress, Mapping) and progress.get("attempt", 1) != 1:
        words.append(f"attempt {progress['attempt']}")
    yield Row("job", ", ".join(words), Mood.BUSY)
    if job.get("waits_for"):
        yield Row("", f"waits: {job['waits_for']}", Mood.WARN)
    if isinstance(progress, Mapping):
        yield from _progress_rows(progress, now, width)


def _progress_rows(progress: Mapping[str, Any], now: datetime, width: int) -> Iterator[Row]:
    share = progress.get("share")
    drawn = [] if share is None else [f"{bar(share, width)} {share:4.0%}"]
    yield Row("", "  ".join([*drawn, _where(progress)]), Mood.BUSY)
    ends = [] if progress.get("remaining_s") is None else [f"ends {ahead(progress['remaining_s'], now)}"]
    began = [f"began {since(progress['started'], now)}"] if progress.get("started") else []
    yield Row("", "; ".join([*ends, *began]))
    quality = [f"{name} {progress[key]:.3f}" for name, key in (("mAP50", "map50"), ("mAP50-95", "map50_95")) if number(progress.get(key))]
    losses = progress.get("losses") or {}
    said = [f"{_short(str(name))} {value:.3g}" if number(value) else f"{_short(str(name))} is no number" for name, value in losses.items()]
    if quality or said:
        yield Row("", "; ".join([part for part in (", ".join(quality), f"losses {', '.join(said)}" if said else "") if part]))
    if speed := list(_speed(progress)):
        yield Row("", "; ".join(speed), Mood.DIM)
    if (silent := _silent_s(progress, now)) > _SILENT_S:
        yield Row("", f"the worker has said nothing for {duration(silent)}", Mood.WARN)


def _short(loss: str) -> str:
    return loss.rpartition("/")[2].removesuffix("_loss")


def _where(progress: Mapping[str, Any]) -> str:
    words = [str(progress.get("phase", "unknown"))]
    if progress.get("step"):
        words[0] += f" ({progress['step']})"
    if progress.get("epochs"):
        words.append(f"epoch {progress.get('epoch', 0)} of {progress['epochs']}")
    if progress.get("batches"):
        words.append(f"batch {progress.get('batch', 0)}/{progress['batches']}")
    return ", ".join(words)


def _speed(progress: Mapping[str, Any]) -> Iterator[str]:
    if number(progress.get("images_per_s")):
        yield f"{progress['images_per_s']:.3g} images/s"
    if number(progress.get("epoch_s")):
        yield f"{duration(progress['epoch_s'])} an epoch"
    if progress.get("gpu_memory_bytes"):
        yield f"GPU {size(progress['gpu_memory_bytes'])}"
    if progress.get("memory_bytes"):
        yield f"RAM {size(progress['memory_bytes'])}"


def _silent_s(progress: Mapping[str, Any], now: datetime) -> float:
    try:
        return (now - datetime.fromisoformat(str(progress.get("updated")))).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def job_row(job: Mapping[str, Any], now: datetime) -> Row:
    """A job that has ended, in a line: what became of it, and why."""
    state = str(job.get("state"))
    text = f"{state}{' (a trial)' if job.get('trial') else ''}"
    if number(job.get("ended")):
        text += f" {moment(datetime.fromtimestamp(job['ended'], UTC).astimezone(now.tzinfo), now)}"
    if number(job.get("map50_95")):
        text += f", mAP50-95 {job['map50_95']:.3f}"
    if why := verdict_reason(job) or job.get("why"):
        text += f": {' '.join(str(why).split())}"
    return Row("earlier", f"{text.rstrip('.')}; job {job.get('id')}", _MOODS.get(state, Mood.PLAIN))


def held_row(job: Mapping[str, Any], now: datetime) -> Row:
    """A job whose model waits for an operator, and what to do."""
    row = job_row(job, now)
    return replace(row, label="to decide", text=f"{row.text}: `model show` it, then `model promote` or `model reject`")


def verdict_reason(job: Mapping[str, Any]) -> str | None:
    """What the gate said of a job's model, in a sentence."""
    verdict = job.get("verdict")
    reason = verdict.get("reason") if isinstance(verdict, Mapping) else None
    return None if reason is None else str(reason)


def gpu_row(gpu: Mapping[str, Any]) -> Row:
    """A GPU: what it is, how busy, who has it, what is wrong with it."""
    index, mood, words = gpu.get("index"), Mood.PLAIN, []
    if gpu.get("job"):
        words.append(f"job {gpu['job']}")
        mood = Mood.BUSY
    elif gpu.get("leased"):
        words.append("leased by a worker")
        mood = Mood.BUSY
    elif processes := gpu.get("processes"):
        words.append("used by " + ", ".join(_process(process) for process in processes))
        mood = Mood.WARN
    elif not gpu.get("faults"):
        words.append("free")
    if faults := gpu.get("faults"):
        words += [str(fault) for fault in faults]
        mood = Mood.BAD
    if number(gpu.get("utilisation_percent")):
        words.append(f"{gpu['utilisation_percent']}% busy")
    total, free = gpu.get("memory_total_bytes"), gpu.get("memory_free_bytes")
    if total and free is not None:
        words.append(f"{size(total - free)} of {size(total)} used")
    if number(gpu.get("temperature_celsius")):
        words.append(f"{gpu['temperature_celsius']} °C")
    words.append(str(gpu.get("name", "unknown")))
    return Row("GPU" if index is None else f"GPU {index}", ", ".join(words), mood)


def _process(process: Any) -> str:
    if not isinstance(process, Mapping):
        return f"pid {process}"
    used = process.get("memory_bytes")
    return f"{process.get('name') or 'pid'} {process.get('pid')}" + (f" ({size(used)})" if used else "")
