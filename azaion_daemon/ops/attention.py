"""What needs an operator, worst first: decided from the status alone, so that a person, a program and a test see the same.

The document may be the last words of an earlier version or those of a later one: what is missing or strange is passed over.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from azaion_daemon.ops.loosely import mapping, number, several
from azaion_daemon.ops.status import SILENT_S
from azaion_daemon.ops.wording import duration, since, size

_LONG_S = 120.0
"""A connection that has been gone for so long does not come back by itself in the next moment."""
_BEHIND_S = 3600.0
_GOOD = frozenset({"accepted", "releasing", "released"})
_LONGEST = 300


class Level(StrEnum):
    """How soon somebody must come."""

    BROKEN = "broken"
    """Work stands still, or will not go on by itself."""
    WARNING = "warning"
    """Work goes on, and something must be decided or mended."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing: what it is, and what to do about it."""

    level: Level
    what: str
    do: str


def attention(document: Mapping[str, Any], now: datetime) -> list[Attention]:
    """Everything that needs somebody; nothing when all is well. `now` is in the reader's time zone."""
    found = [
        *_process(document, now),
        *_configuration(document, now),
        *_health(document),
        *_ingest(document),
        *_machine(document),
        *_training(document, now),
        *_releases(document),
    ]
    order = list(Level)
    return sorted(found, key=lambda one: order.index(one.level))  # stable: as above within a level


def attention_document(found: Sequence[Attention]) -> list[dict[str, str]]:
    """The same as JSON."""
    return [{"level": one.level.value, "what": one.what, "do": one.do} for one in found]


def _process(document: Mapping[str, Any], now: datetime) -> Iterator[Attention]:
    process = mapping(document, "process")
    if problem := process.get("problem"):
        what, _, advice = str(problem).rstrip(".").partition(". ")
        # A root on which nothing has run yet is no fault.
        level = Level.NOTE if "never run" in what and not process.get("running") else Level.BROKEN
        yield Attention(level, what, advice or "Start it: systemctl start azaion-daemon; `azaion-daemon doctor` says whether it can work")
    if document.get("state") == "stopped":
        seen = f" {since(str(process['last_seen']), now)}" if process.get("last_seen") else ""
        if process.get("ended") == "crashed":
            what = f"the daemon was killed or crashed; its last sign of life was{seen or ' long ago'}"
            yield Attention(
                Level.BROKEN, what, "See why: journalctl -u azaion-daemon -e; then: systemctl start azaion-daemon. Nothing is lost"
            )
        elif reason := document.get("ended_by"):
            yield Attention(
                Level.BROKEN, f"the daemon ended{seen} because of: {_line(reason)}", "Mend that, then: systemctl start azaion-daemon"
            )
        else:
            yield Attention(Level.BROKEN, f"the daemon was stopped{seen}", "When it is to work again: systemctl start azaion-daemon")
    silent = process.get("silent_s")
    if number(silent) and silent > SILENT_S:
        what = (
            f"the daemon has not written its status for {duration(silent)}: it hangs, is stopped by a signal, or cannot write to the disk"
        )
        yield Attention(
            Level.BROKEN,
            what,
            "Look at journalctl -u azaion-daemon -e and the disk; then: systemctl restart azaion-daemon (trainings go on)",
        )


def _configuration(document: Mapping[str, Any], now: datetime) -> Iterator[Attention]:
    config = mapping(document, "config")
    last = mapping(config, "last_reload")
    mend = "Mend it, check it with `azaion-daemon config check`, then: systemctl reload azaion-daemon"
    if last and not last.get("ok"):
        at = f" {_when(last['at'], now)}" if number(last.get("at")) else ""
        yield Attention(
            Level.BROKEN, f"the reload{at} failed, and the configuration of before is in force: {_line(last.get('error'))}", mend
        )
    elif problem := config.get("file_problem"):
        yield Attention(
            Level.BROKEN, f"the configuration file cannot be used as it is now; a reload or start would fail: {_line(problem)}", mend
        )
    if isinstance(waits := last.get("restart_required"), list) and waits:
        names = ", ".join(str(one) for one in waits)
        yield Attention(
            Level.WARNING, f"settings wait for a restart: {names}", "systemctl restart azaion-daemon (a training under way goes on)"
        )
    if config.get("model_key") is False:
        yield Attention(
            Level.WARNING,
            "no model key is set: models are trained, releases wait",
            "Set AZAION_MODEL_KEY in .env, then: systemctl reload azaion-daemon",
        )


def _health(document: Mapping[str, Any]) -> Iterator[Attention]:
    for one in several(mapping(document, "health").get("ailing")):
        long = f" for {duration(one['for_s'])}" if number(one.get("for_s")) else ""
        yield Attention(
            Level.BROKEN,
            f"the part {one.get('part', '?')} has not got on{long}; it is at: {_line(one.get('what') or 'it does not say what')}",
            "Look at the disk and at dmesg; the watchdog starts the daemon again by itself (trainings go on)",
        )


def _ingest(document: Mapping[str, Any]) -> Iterator[Attention]:
    stream = mapping(document, "stream")
    if document.get("state") != "stopped":
        if paused := stream.get("paused"):
            do = "Free some space on the root's filesystem (see `azaion-daemon dataset list`, `model list`); it goes on by itself"
            yield Attention(Level.BROKEN, f"nothing is taken from the stream: {_line(paused)}", do)
        away = stream.get("not_connected_s")
        if not stream.get("connected") and number(away) and away > _LONG_S:
            what = f"no connection to the broker for {duration(away)}: {_line(stream.get('why') or 'it is tried')}"
            yield Attention(Level.BROKEN, what, "It is tried again for ever; find out more with: azaion-daemon doctor --only broker")
        behind = stream.get("behind_s")
        if number(behind) and behind > _BEHIND_S:
            yield Attention(
                Level.WARNING, f"ingest is {duration(behind)} behind the annotators", "Look whether the disk or the processor is the limit"
            )
    lost = mapping(document, "log").get("lost_lines")
    if number(lost) and lost and document.get("state") != "stopped":
        lines = "line of the log was" if lost == 1 else "lines of the log were"
        do = "See journalctl --disk-usage and systemctl status systemd-journald: nobody reads fast enough, or a disk is full"
        yield Attention(Level.NOTE, f"{lost:,} {lines} lost since the start", do)
    quarantined = mapping(document, "annotations").get("quarantined")
    if number(quarantined) and quarantined:
        messages = "message is" if quarantined == 1 else "messages are"
        yield Attention(
            Level.NOTE,
            f"{quarantined:,} {messages} in quarantine",
            "See why: azaion-daemon quarantine list; after a fix: quarantine replay --all",
        )


def _machine(document: Mapping[str, Any]) -> Iterator[Attention]:
    disk = mapping(document, "disk")
    if pressure := disk.get("pressure"):
        level = Level.BROKEN if pressure == "critical" else Level.WARNING
        free = f", {size(disk['free_bytes'])} free" if number(disk.get("free_bytes")) else ""
        what = f"the root's filesystem is {disk.get('used_percent', '?')}% full{free}"
        if number(disk.get("inodes_free")) and number(disk.get("inodes_total")) and disk["inodes_free"] < disk["inodes_total"] / 5:
            what = f"{what}, {disk['inodes_free']:,} more files fit"
        yield Attention(level, what, "Make room: lower retention.*_keep, then reload; or give it a larger disk. Full, ingest pauses")
    if problem := document.get("gpus_problem"):
        what, _, advice = _line(problem).rstrip(".").partition(". ")
        yield Attention(Level.BROKEN, what, advice or "Look at nvidia-smi and dmesg; trainings wait meanwhile")
    for gpu in several(document.get("gpus")):
        for fault in gpu.get("faults") or []:
            what, _, advice = _line(fault).partition(": ")
            yield Attention(Level.BROKEN, f"GPU {gpu.get('index', '?')} is not used: {what}", advice or "Look at nvidia-smi and dmesg")


def _training(document: Mapping[str, Any], now: datetime) -> Iterator[Attention]:
    jobs = several(mapping(document, "training").get("jobs"))
    for job in jobs:
        if job.get("state") == "held":
            name = str(job.get("id"))
            do = f"azaion-daemon model show {name}; then: model promote {name} or model reject {name}"
            yield Attention(Level.WARNING, f"the model of job {name} is held until you decide", do)
    real = [job for job in jobs if not job.get("trial")]
    good = max((at for at, job in enumerate(real) if job.get("state") in _GOOD), default=-1)
    failed = [job for job in real[good + 1 :] if job.get("state") == "failed"]
    if failed:
        last = failed[-1]
        when = f" {_when(last['ended'], now)}" if number(last.get("ended")) else ""
        often = f" ({len(failed)} since the last good one)" if len(failed) > 1 else ""
        what = f"training {last.get('id')} failed{when}{often}: {_line(last.get('why') or 'it does not say why')}"
        yield Attention(Level.WARNING, what, f"See azaion-daemon train logs {last.get('id')}; again: azaion-daemon train now")


def _releases(document: Mapping[str, Any]) -> Iterator[Attention]:
    waiting = [one for one in several(document.get("releases")) if one.get("state") == "waiting" and not one.get("under_way")]
    if mapping(document, "api").get("login_refused") is True and document.get("state") != "stopped":
        yield Attention(
            Level.WARNING,
            "the platform refuses the login, which is not tried again by itself: releases wait",
            "Correct AZAION_API_EMAIL and AZAION_API_PASSWORD in .env, then: systemctl reload azaion-daemon",
        )
        return
    if not waiting or mapping(document, "config").get("model_key") is False:  # which is said already
        return
    last = waiting[-1]
    if last.get("why"):
        what = f"release {last.get('serial')} waits: {_line(last['why'])}"
        yield Attention(
            Level.WARNING, what, "Consumers have the model of before; find out more with: azaion-daemon doctor --only publishing"
        )


def _when(seconds: float, now: datetime) -> str:
    try:
        at = datetime.fromtimestamp(seconds, now.tzinfo)
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"
    return since(at.isoformat(), now)


def _line(text: Any) -> str:
    """In one line that ends without a full stop, and is not longer than a person reads."""
    lines = [" ".join(one.split()) for one in str(text).splitlines()]
    line = "; ".join(one for one in lines if one).replace(":;", ":").rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
