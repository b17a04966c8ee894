"""The verdict in a job's report.html: decided by the daemon after the worker has written the page, and perhaps overruled later.

The page keeps a block for it between two comments, with one entry a verdict, the newest first. Nothing else of the page is touched, and
everything in an entry is escaped, so that no text can end the block.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from azaion_daemon.store.durable import replace_durably, storage
from azaion_daemon.training.gate import Check, Decision, Verdict
from azaion_daemon.training.jobs import JobDirectory

_BEGIN, _END, _ENTRY = "<!--verdicts-->", "<!--/verdicts-->", "<!--verdict-->"
_PENDING = "pending"
_WHO = {"gate": "the gate", "operator": "an operator"}
_SIGNS = {Decision.ACCEPTED: "✓", Decision.REJECTED: "✕", Decision.HELD: "‖"}


def pending(*, trial: bool) -> str:
    """The block of a page that is new."""
    if trial:
        return _block([_entry(_PENDING, "○", "Trial", "It only shows that everything works: it is never judged nor released.")])
    return _block([_entry(_PENDING, "○", "Not judged yet", "The daemon judges a model when its training has ended.")])


def stamp(directory: JobDirectory, verdict: Verdict, *, by: str, at: datetime, reason: str | None) -> bool:
    """Put a verdict into the job's report, above those before it. Once more with the same one changes nothing.

    Args:
        directory: The job's.
        verdict: What was decided.
        by: Who decided: the gate, or an operator's name.
        at: When it was decided; with the verdict it says whether the report has it already.
        reason: What an operator gave for overruling the gate.

    Returns:
        Whether there is a report with a place for it; without one nothing is done.

    Raises:
        StorageError: It cannot be written; the page before is still there.
    """
    return stamp_page(directory.report, verdict, by=by, at=at, reason=reason)


def stamp_page(page: Path, verdict: Verdict, *, by: str, at: datetime, reason: str | None) -> bool:
    """As `stamp`, for a copy of a report, as one lies beside a model that was kept."""
    with storage("Writing the verdict into the report"):
        parts = _read(page)
        if parts is None:
            return False
        before, entries, after = parts
        entry = _render(verdict, by=by, at=at, reason=reason)
        if entry not in entries:
            kept = [one for one in entries if not _is_pending(one)]
            replace_durably(page, (before + _block([entry, *kept]) + after).encode())
        return True


def stamp_recorded(page: Path, recorded: Mapping[str, Any]) -> bool:
    """Bring a page up to what the ledger has of a job's verdict: that and, under `before`, each that it overruled, the oldest first.

    Raises:
        StorageError: As in `stamp`.
    """
    earlier = recorded.get("before")
    if earlier is not None and not stamp_recorded(page, earlier):
        return False
    checks = tuple(Check(**check) for check in recorded.get("checks", ()))
    verdict = Verdict(Decision(recorded["decision"]), recorded["reason"], checks)
    by = _WHO.get(recorded["by"], recorded["by"])
    return stamp_page(page, verdict, by=by, at=datetime.fromtimestamp(recorded["time"], UTC), reason=None)


def stamped(directory: JobDirectory) -> bool:
    """Whether the report has a verdict; also when there is no report to put one into."""
    with storage("Reading the report"):
        parts = _read(directory.report)
    return parts is None or not any(_is_pending(entry) for entry in parts[1])


def _read(page: Path) -> tuple[str, list[str], str] | None:
    """What stands before the block, its entries, and what stands after it."""
    try:
        text = page.read_bytes().decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    before, begin, rest = text.partition(_BEGIN)
    block, end, after = rest.partition(_END)
    return (before, [_ENTRY + entry for entry in block.split(_ENTRY)[1:]], after) if begin and end else None


def _block(entries: Iterable[str]) -> str:
    return _BEGIN + "".join(entries) + _END


def _is_pending(entry: str) -> bool:
    return entry.startswith(f'{_ENTRY}<div class="verdict {_PENDING}">')


def _render(verdict: Verdict, *, by: str, at: datetime, reason: str | None) -> str:
    sentence = f"{verdict.reason[:1].upper()}{verdict.reason[1:]}"
    who = f"by {by}, {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" + (f": {reason}" if reason else "")
    kind = str(verdict.decision)
    return _entry(kind, _SIGNS[verdict.decision], kind.capitalize(), sentence, who, _checks(verdict.checks))


def _entry(kind: str, sign: str, word: str, sentence: str, who: str = "", checks: str = "") -> str:
    signature = f'<p class="who">{escape(who)}</p>' if who else ""
    ended = sentence if sentence.endswith((".", "!", "?")) or not sentence else f"{sentence}."
    return (
        f'{_ENTRY}<div class="verdict {escape(kind)}">'
        f'<p class="decision"><span class="sign" aria-hidden="true">{sign}</span>{escape(word)}</p>'
        f'<p class="sentence">{escape(ended)}</p>{checks}{signature}</div>'
    )


def _checks(checks: tuple[Check, ...]) -> str:
    if not checks:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(check.name)}</th><td>{_number(check.value, check)}</td><td>{_number(check.limit, check)}</td>'
        f'<td class="{"good" if check.ok else "bad"}">{"yes" if check.ok else "no"}</td></tr>'
        for check in checks
    )
    return (
        '<table class="checks"><caption>What was looked at</caption><thead><tr><th scope="col">Check</th><th scope="col">Value</th>'
        f'<th scope="col">At least</th><th scope="col">Passed</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _number(value: float, check: Check) -> str:
    if check.counts:
        return f"{value:,.0f}"
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
