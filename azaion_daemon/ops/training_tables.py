"""What `ops.trainings` says of trainings, for people."""

import textwrap
from typing import Any

from azaion_daemon.logs.tidying import printable
from azaion_daemon.ops.tables import moment, table

_WIDTH = 120


def render_list(document: dict[str, Any]) -> str:
    """Every job with its times and, below it, why it is as it is; before them what is asked for."""
    lines = [line for request in document["requests"] for line in _filled(_request(request))]
    jobs = document["jobs"]
    if not jobs:
        return "\n".join([*lines, "There is no job yet."])
    head = ["job", "state", "requested", "training ended", "starts", "dataset"]
    rows = [
        [
            job["id"],
            f"{job['state']}{' (trial)' if job['trial'] and job['state'] != 'tried' else ''}",
            moment(job["created"]),
            "" if job["ended"] is None else moment(job["ended"]),
            "" if job["attempts"] is None else str(job["attempts"]),
            job["dataset"] or "",
        ]
        for job in jobs
    ]
    first, *others = table([head, *rows], right={4})
    lines.append(first)
    for job, line in zip(jobs, others, strict=True):
        lines += [line, *_filled(job["reason"]), *(_filled(job["why"]) if job["why"] else ())]
    if document["more"]:
        lines.append(f"{document['more']} older ones are shown by --all.")
    return "\n".join(lines)


def _request(request: dict[str, Any]) -> str:
    if request["kind"] == "cancel":
        what = f"Job {request['job']} is to be cancelled"
    else:
        epochs = "" if request["epochs"] is None else f" of {request['epochs']} epochs"
        what = f"A {'trial' if request['trial'] else 'training'}{epochs} is asked for"
    when = "" if request["time"] is None else f" since {moment(request['time'])}"
    return f"{what}{when} ({request['reason']}) and waits for {request['waits_for']}."


def _filled(text: str) -> list[str]:
    words = printable(" ".join(text.split()))
    return textwrap.wrap(words, _WIDTH, initial_indent="    ", subsequent_indent="      ", break_long_words=False)
